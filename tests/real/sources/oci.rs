//! `oci://`: artifacts that ORAS pushed into a real registry, open and guarded.

use super::proxy::Proxy;
use super::support::{Cache, Registry, digest, push_with_oras, secret, shared, shown};

/// Of "open sesame" for the user `me`, as `htpasswd -B` writes it.
const USERS: &str = "me:$2a$04$W92BnVny.nGwh6x8T5HRkOrIuMOaHUKPA9sr6I7WYBNA5.o6LSzoi\n";

#[test]
fn an_artifact_that_oras_pushed_is_fetched_by_its_digest() {
    let registry = shared().to_string();
    for (repository, file) in [
        ("models/plain", "smol.gguf"),
        ("models/typed", "weights:application/vnd.gguf"),
    ] {
        let manifest = push_with_oras(&registry, repository, file, &[]);
        let source = format!("oci://{registry}/{repository}@{manifest}");
        let cache = Cache::new();
        cache.fetched(&source, "r1", &[]);
        assert!(!cache.revision("r1").join("modelfile.json").exists());
    }
}

#[test]
fn a_mirror_stands_in_for_the_registry_that_the_name_says() {
    let registry = shared().to_string();
    let manifest = push_with_oras(&registry, "models/mirrored", "smol.gguf", &[]);
    let source = format!("oci://ghcr.io/models/mirrored@{manifest}");
    let endpoint = format!("http://{registry}");
    Cache::new().fetched(&source, "r1", &["--endpoint", &endpoint]);
}

#[test]
fn what_is_no_model_is_said_with_what_to_push() {
    let registry = shared().to_string();
    let manifest = push_with_oras(&registry, "models/other", "notes.txt:text/plain", &[]);
    let source = format!("oci://{registry}/models/other@{manifest}");
    let (reason, message) = Cache::new().refused(&source, "r1", &[]);
    assert_eq!(reason, "ModelNotFound", "{message}");
    assert!(
        message.contains("text/plain") && message.contains("push"),
        "{message}"
    );
    let source = format!("oci://{registry}/models/other@sha256:{}", digest());
    let (reason, message) = Cache::new().refused(&source, "r1", &[]);
    assert_eq!(reason, "ModelNotFound", "{message}");
}

#[test]
fn a_registry_that_wants_a_password_gets_the_one_of_the_secret() {
    let users = secret(&[("htpasswd", USERS)]);
    let path = users.path().join("htpasswd");
    let auth = format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        path.display()
    );
    let registry = Registry::start(users.path(), &auth);
    let address = registry.address.to_string();
    let login = ["--username", "me", "--password", "open sesame"];
    let manifest = push_with_oras(&address, "models/guarded", "smol.gguf", &login);
    let source = format!("oci://{address}/models/guarded@{manifest}");
    let (reason, message) = Cache::new().refused(&source, "r1", &[]);
    assert_eq!(reason, "ModelUnauthorized", "{message}");
    assert!(message.contains("spec.model.credentials"), "{message}");
    for (password, right) in [("closed sesame", false), ("open sesame", true)] {
        let json =
            format!(r#"{{"auths":{{"{address}":{{"username":"me","password":"{password}"}}}}}}"#);
        let secret = secret(&[(".dockerconfigjson", &json)]);
        let more = ["--credentials", shown(secret.path())];
        if right {
            Cache::new().fetched(&source, "r1", &more);
        } else {
            let (reason, message) = Cache::new().refused(&source, "r1", &more);
            assert_eq!(reason, "ModelUnauthorized", "{message}");
            assert!(!message.contains("sesame"), "{message}");
        }
    }
}

#[test]
fn a_registry_that_wants_a_token_is_asked_for_one_once() {
    let registry = shared();
    let manifest = push_with_oras(&registry.to_string(), "models/tokens", "smol.gguf", &[]);
    let proxy = Proxy::demanding(registry, Some("a-token"));
    let source = format!("oci://{}/models/tokens@{manifest}", proxy.address);
    Cache::new().fetched(&source, "r1", &[]);
    let asked = proxy.asked();
    let tokens = asked
        .iter()
        .filter(|one| one.path.starts_with("/token"))
        .count();
    assert_eq!(tokens, 1, "{asked:?}");
    assert!(
        asked[1].path.contains("scope=repository%3Ax%3Apull"),
        "{asked:?}"
    );
}
