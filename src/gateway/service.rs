//! From an HTTP request to an HTTP answer: checks who asks and for what, then hands over to
//! [`Relay`] or answers itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::sync::Semaphore;

use super::ask::Ask;
use super::breaker::BreakerState;
use super::endpoint::{Api, Endpoint};
use super::metadata;
use super::relay::{Begun, Relay};
use super::state::{Gateway, Target};
use crate::server::auth::ApiKeys;
use crate::server::body::{Reception, receive_within};
use crate::server::edge::local_only;
use crate::wire::{
    ApiError, BACKEND_HEADER, ErrorKind, JSON_CONTENT_TYPE, NDJSON_CONTENT_TYPE, Protocol,
    REQUEST_ID_HEADER, SSE_CONTENT_TYPE,
};

/// What is allowed, and to whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// Keys.
    pub keys: ApiKeys,
    /// Refuse what does not name this machine as its host: without keys on loopback, a web page in
    /// a browser here could ask otherwise.
    pub local_hosts_only: bool,
    /// Limits of request bodies.
    pub bodies: Reception,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            local_hosts_only: false,
            bodies: Reception {
                max_bytes: 4 << 20,
                timeout: Duration::from_secs(30),
                budget: Arc::new(Semaphore::new(64 << 20)),
            },
        }
    }
}

type Shared = (Arc<Gateway>, Arc<Access>);

/// The service. Paths are told apart in [`Endpoint`], not by the router, so that nothing is open
/// that is not named there.
pub fn router(gateway: Arc<Gateway>, access: Arc<Access>) -> Router {
    Router::new().fallback(answer).with_state((gateway, access))
}

async fn answer(State((gateway, access)): State<Shared>, request: Request) -> Response {
    let began = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let protocol = Protocol::of_path(&path);
    let endpoint = Endpoint::of(&method, &path);
    let open = matches!(endpoint, Endpoint::Health | Endpoint::Ready);
    let answered = match admit(&access, &request, open) {
        Ok(()) => route(gateway, &access, endpoint, request, id.clone()).await,
        Err(error) => Err(error),
    };
    let mut response = answered.unwrap_or_else(|error| {
        let mut response = full(error.to_response(protocol));
        if matches!(error.kind, ErrorKind::TooLarge | ErrorKind::RequestTimeout) {
            // The rest of the body is still on its way: the connection cannot be used again.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    });
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(REQUEST_ID_HEADER), id.clone());
    let backend = HeaderName::from_static(BACKEND_HEADER);
    let backend = headers
        .entry(backend)
        .or_insert(HeaderValue::from_static("None"))
        .clone();
    if !open {
        tracing::info!(
            request_id = id.to_str().unwrap_or_default(), %method,
            path = path.chars().take(80).collect::<String>(),
            status = response.status().as_u16(),
            backend = backend.to_str().unwrap_or_default(),
            milliseconds = began.elapsed().as_secs_f64() * 1e3,
            "request"
        );
    }
    response
}

fn admit(access: &Access, request: &Request, open: bool) -> Result<(), ApiError> {
    if request.headers().contains_key(header::CONTENT_LENGTH)
        && request.headers().contains_key(header::TRANSFER_ENCODING)
    {
        let message = "content-length and transfer-encoding together are ambiguous";
        return Err(ApiError::new(ErrorKind::InvalidRequest, message));
    }
    if access.local_hosts_only {
        local_only(request)?;
    }
    if open || access.keys.admit(request.headers()) {
        return Ok(());
    }
    let message = "a valid API key is needed: Authorization: Bearer <key>";
    Err(ApiError::new(ErrorKind::Unauthorized, message))
}

async fn route(
    gateway: Arc<Gateway>,
    access: &Access,
    endpoint: Endpoint,
    request: Request,
    id: HeaderValue,
) -> Result<Response, ApiError> {
    match endpoint {
        Endpoint::Root => Ok(full(http::Response::new(
            "enginewright is running\n".into(),
        ))),
        Endpoint::Health => Ok(json_response(StatusCode::OK, &json!({ "status": "ok" }))),
        Endpoint::Ready => Ok(ready(&gateway)),
        Endpoint::Metrics => Ok(exposition(&gateway)),
        Endpoint::Management => Err(ApiError::new(
            ErrorKind::Forbidden,
            "models are not managed through this endpoint; change the InferenceEngine resource",
        )),
        Endpoint::Unknown => Err(ApiError::new(
            ErrorKind::RouteNotFound,
            "there is no such path here",
        )),
        Endpoint::WrongMethod(allowed) => {
            let error = ApiError::new(ErrorKind::MethodNotAllowed, format!("use {allowed}"));
            let mut response = full(error.to_response(Protocol::of_path(request.uri().path())));
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            Ok(response)
        }
        Endpoint::Models(question) => {
            metadata::answer(&gateway, &question)
                .await
                .map(|(response, backend)| {
                    let mut response = full(response);
                    name_backend(&mut response, &backend);
                    response
                })
        }
        Endpoint::Generate(api, stream) => {
            let body = receive_within(&access.bodies, request).await?;
            let snapshot = gateway.snapshot();
            let served_name = &snapshot.table.served_name;
            let ask = Ask::read(api, stream, body.bytes.clone(), served_name)?;
            generate(gateway, ask, id).await
        }
    }
}

async fn generate(gateway: Arc<Gateway>, ask: Ask, id: HeaderValue) -> Result<Response, ApiError> {
    let (api, stream) = (ask.api, ask.stream);
    let mut relay = Relay::new(gateway, ask, id);
    if !stream {
        let mut response = full(relay.whole().await?);
        name_backend(&mut response, relay.backend());
        return Ok(response);
    }
    let begun = relay.begin().await?;
    let backend = relay.backend().to_owned();
    let mut response = match begun {
        Begun::Answer(answer) => full(answer),
        Begun::Stream(held) => streaming(api, relay, &held),
    };
    name_backend(&mut response, &backend);
    Ok(response)
}

/// A body that is pulled by the connection: no task, no queue; when the client goes away the body
/// is dropped, and with it the connection to the upstream.
fn streaming(api: Api, relay: Relay, held: &[super::chunk::Frame]) -> Response {
    let first: Bytes = held
        .iter()
        .flat_map(|frame| relay.encode(frame))
        .collect::<Vec<u8>>()
        .into();
    let body = stream::unfold((Some(first), relay), |(first, mut relay)| async move {
        let bytes = match first {
            Some(bytes) => bytes,
            None => relay.next().await?,
        };
        Some((Ok::<_, Infallible>(bytes), (None, relay)))
    });
    let mut response = Response::new(Body::from_stream(body));
    let kind = if api.is_sse() {
        SSE_CONTENT_TYPE
    } else {
        NDJSON_CONTENT_TYPE
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn ready(gateway: &Gateway) -> Response {
    let snapshot = gateway.snapshot();
    let state = |target| {
        let line = snapshot.line(target)?;
        let breaker = match gateway.breaker_state(&snapshot, target)? {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half-open",
            BreakerState::Open => "open",
        };
        Some(json!({ "backend": line.upstream.backend, "breaker": breaker }))
    };
    let ready = gateway.is_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json_response(
        status,
        &json!({
            "ready": ready,
            "draining": gateway.draining.is_cancelled(),
            "routes_generation": snapshot.table.generation,
            "primary": state(Target::Primary),
            "fallback": state(Target::Fallback),
            "continuation": snapshot.template.is_some(),
        }),
    )
}

fn exposition(gateway: &Gateway) -> Response {
    let snapshot = gateway.snapshot();
    for target in [Target::Primary, Target::Fallback] {
        let level = match gateway.breaker_state(&snapshot, target) {
            None | Some(BreakerState::Closed) => 0,
            Some(BreakerState::HalfOpen) => 1,
            Some(BreakerState::Open) => 2,
        };
        gateway.metrics.breaker(target.name(), level);
    }
    let mut response = full(http::Response::new(Bytes::from(gateway.metrics.text())));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = full(http::Response::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let json = HeaderValue::from_static(JSON_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn full(response: http::Response<Bytes>) -> Response {
    response.map(Body::from)
}

fn name_backend(response: &mut Response, backend: &str) {
    if let Ok(value) = HeaderValue::from_str(backend) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(BACKEND_HEADER), value);
    }
}

/// The client's own id where it is short and plain, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let own = request.headers().get(REQUEST_ID_HEADER).filter(|value| {
        (1..=128).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    });
    own.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}
