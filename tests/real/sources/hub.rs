//! `hf://`: a server that speaks the API of Hugging Face as its clients know it: what a repository
//! has at a revision, and its files behind a redirect to another host that must not see the token.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::proxy::{Fault, Proxy, serve};
use super::support::{Cache, digest, secret, shown};
use crate::tools::model;

const COMMIT: &str = "896ea440e5a9e6070e3d8a2774daf2b481ab425b";
const TOKEN: &str = "hf_of_the_test";
/// Of the repository that only members see.
const GATED: &str = "gated";

#[derive(Clone)]
struct Hub {
    /// Where files are sent on to; `None`: they are served at once.
    store: Option<SocketAddr>,
    seen: Arc<Mutex<Vec<String>>>,
}

fn hub(store: Option<SocketAddr>) -> SocketAddr {
    serve(move |_| {
        let hub = Hub {
            store,
            seen: Arc::default(),
        };
        Router::new()
            .route("/api/models/{org}/{name}/revision/{revision}", get(about))
            .route("/{org}/{name}/resolve/{commit}/{*file}", get(resolve))
            .with_state(hub)
    })
}

/// The host that has the files: it refuses who brings a token that is not for it.
fn store() -> SocketAddr {
    serve(|_| {
        Router::new().route(
            "/file",
            get(|headers: HeaderMap| async move {
                if headers.contains_key(header::AUTHORIZATION) {
                    return StatusCode::BAD_REQUEST.into_response();
                }
                file(&headers)
            }),
        )
    })
}

fn refused(name: &str, headers: &HeaderMap) -> bool {
    let token = format!("Bearer {TOKEN}");
    name == GATED
        && headers
            .get(header::AUTHORIZATION)
            .is_none_or(|it| it != token.as_str())
}

async fn about(
    State(hub): State<Hub>,
    Path((org, name, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    hub.seen
        .lock()
        .unwrap()
        .push(format!("{org}/{name}@{revision}"));
    if refused(&name, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if revision == "gone" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let bytes = std::fs::metadata(model()).unwrap().len();
    let sha256 = if name == "wrong" {
        "0a".repeat(32)
    } else {
        digest().to_owned()
    };
    let one = |path: &str| {
        json!({"rfilename": path, "size": bytes, "blobId": "b",
               "lfs": {"sha256": sha256, "size": bytes, "pointerSize": 134}})
    };
    let mut siblings = vec![json!({"rfilename": "README.md", "size": 10, "blobId": "a"})];
    siblings.push(one("sub/smol Q4_1.gguf"));
    if name == "several" {
        siblings.push(one("smol.Q8_0.gguf"));
    }
    axum::Json(json!({"id": format!("{org}/{name}"), "sha": COMMIT, "siblings": siblings}))
        .into_response()
}

async fn resolve(
    State(hub): State<Hub>,
    Path((_, name, commit, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if refused(&name, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if commit != COMMIT || !path.contains("gguf") {
        return StatusCode::NOT_FOUND.into_response();
    }
    match hub.store {
        Some(store) => {
            let place = format!("http://{store}/file?X-Amz-Signature=hidden");
            (StatusCode::FOUND, [(header::LOCATION, place)]).into_response()
        }
        None => file(&headers),
    }
}

/// The model, or the rest of it.
fn file(headers: &HeaderMap) -> Response {
    let bytes = std::fs::read(model()).unwrap();
    let from = headers.get(header::RANGE).map_or(0, |range| {
        let text = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        text.trim_end_matches('-').parse().unwrap()
    });
    let all = bytes.len();
    let status = if from > 0 {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let range = format!("bytes {from}-{}/{all}", all - 1);
    let rest = bytes[from..].to_vec();
    let length = rest.len().to_string();
    (
        status,
        [
            (header::CONTENT_RANGE, range),
            (header::CONTENT_LENGTH, length),
        ],
        Body::from(rest),
    )
        .into_response()
}

#[test]
fn the_only_model_of_a_repository_is_fetched_from_where_the_hub_sends() {
    let hub = format!("http://{}", hub(Some(store())));
    let cache = Cache::new();
    cache.fetched("hf://acme/smol@main", "r1", &["--endpoint", &hub]);
    // As clients of Hugging Face name a mirror and a token.
    let mut command = cache.fetch("hf://acme/gated@main", "r2", &[]);
    command.env("HF_ENDPOINT", &hub).env("HF_TOKEN", TOKEN);
    let mut process = crate::tools::Process::start(command);
    assert!(
        process.wait_for_exit(super::support::LIMIT).success(),
        "{}",
        process.output()
    );
    cache.is_the_model("r2");
}

#[test]
fn of_several_models_one_must_be_named() {
    let hub = format!("http://{}", hub(None));
    let more = ["--endpoint", &hub];
    let (reason, message) = Cache::new().refused("hf://acme/several@main", "r1", &more);
    assert_eq!(reason, "ModelNotFound", "{message}");
    for name in ["smol.Q8_0.gguf", "#FILE"] {
        assert!(message.contains(name), "{message}");
    }
    Cache::new().fetched("hf://acme/several@refs/pr/1#smol.Q8_0.gguf", "r1", &more);
}

#[test]
fn a_gated_repository_wants_the_token_of_the_secret() {
    let hub = format!("http://{}", hub(Some(store())));
    let source = "hf://acme/gated@main";
    let (reason, message) = Cache::new().refused(source, "r1", &["--endpoint", &hub]);
    assert_eq!(reason, "ModelUnauthorized", "{message}");
    assert!(message.contains("spec.model.credentials"), "{message}");
    let wrong = secret(&[("token", "hf_wrong")]);
    let more = ["--endpoint", &hub, "--credentials", shown(wrong.path())];
    let (reason, message) = Cache::new().refused(source, "r1", &more);
    assert_eq!(reason, "ModelUnauthorized", "{message}");
    assert!(!message.contains("hf_wrong"), "{message}");
    let right = secret(&[("token", TOKEN)]);
    let more = ["--endpoint", &hub, "--credentials", shown(right.path())];
    Cache::new().fetched(source, "r1", &more);
}

#[test]
fn a_revision_that_is_gone_and_bytes_that_are_others_are_said() {
    let hub = format!("http://{}", hub(None));
    let more = ["--endpoint", &hub];
    let (reason, message) = Cache::new().refused("hf://acme/smol@gone", "r1", &more);
    assert_eq!(reason, "ModelNotFound", "{message}");
    assert!(message.contains("gone"), "{message}");
    let cache = Cache::new();
    let (reason, message) = cache.refused("hf://acme/wrong@main", "r1", &more);
    assert_eq!(reason, "ModelDigestMismatch", "{message}");
    assert_eq!(cache.left(), Vec::<String>::new());
}

#[test]
fn a_transfer_from_the_hub_that_breaks_goes_on_where_it_broke() {
    let proxy = Proxy::new(hub(None));
    proxy.will([Fault::Cut(30 << 20), Fault::Cut(20 << 20)]);
    let cache = Cache::new();
    cache.fetched("hf://acme/smol@main", "r1", &["--endpoint", &proxy.url()]);
    let ranges: Vec<_> = proxy.files().into_iter().map(|one| one.range).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(
        ranges[0].is_none() && ranges[1].is_some() && ranges[2] > ranges[1],
        "{ranges:?}"
    );
}
