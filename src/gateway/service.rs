//! From an HTTP request to an HTTP answer: checks who asks and for what, then hands over to
//! [`Relay`] or answers itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame as BodyFrame, Incoming};
use serde_json::json;

use super::ask::Ask;
use super::breaker::BreakerState;
use super::endpoint::{Api, Endpoint};
use super::keys::Keys;
use super::metadata;
use super::relay::{Begun, Relay};
use super::state::{Gateway, Target};
use crate::wire::{
    ApiError, BACKEND_HEADER, ErrorKind, JSON_CONTENT_TYPE, NDJSON_CONTENT_TYPE, Protocol,
    REQUEST_ID_HEADER, SSE_CONTENT_TYPE,
};

/// A body on its way to a client.
pub type ClientBody = UnsyncBoxBody<Bytes, Infallible>;

/// What is allowed, and to whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// Keys.
    pub keys: Keys,
    /// Longest body in bytes.
    pub max_body: usize,
    /// How long a client may take to send its body.
    pub body_time: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            max_body: 16 << 20,
            body_time: Duration::from_secs(30),
        }
    }
}

/// Answers one request.
pub async fn answer(
    gateway: Arc<Gateway>,
    access: Arc<Access>,
    request: Request<Incoming>,
) -> Response<ClientBody> {
    let id = request_id(&request);
    let protocol = Protocol::of_path(request.uri().path());
    let endpoint = Endpoint::of(request.method(), request.uri().path());
    let open = matches!(endpoint, Endpoint::Health | Endpoint::Ready);
    let mut response = if open || access.keys.admit(request.headers()) {
        match route(&gateway, &access, endpoint, request, id.clone()).await {
            Ok(response) => response,
            Err(error) => {
                if let Some(diagnostic) = &error.diagnostic {
                    tracing::warn!(request = ?id, diagnostic, "a request was refused");
                }
                full(error.to_response(protocol))
            }
        }
    } else {
        let error = ApiError::new(ErrorKind::Unauthorized, "a valid API key is required");
        full(error.to_response(protocol))
    };
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(REQUEST_ID_HEADER), id);
    let backend = HeaderName::from_static(BACKEND_HEADER);
    headers
        .entry(backend)
        .or_insert(HeaderValue::from_static("None"));
    response
}

async fn route(
    gateway: &Arc<Gateway>,
    access: &Access,
    endpoint: Endpoint,
    request: Request<Incoming>,
    id: HeaderValue,
) -> Result<Response<ClientBody>, ApiError> {
    match endpoint {
        Endpoint::Health => Ok(json_response(StatusCode::OK, &json!({ "status": "ok" }))),
        Endpoint::Ready => Ok(ready(gateway)),
        Endpoint::Metrics => Ok(exposition(gateway)),
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
            metadata::answer(gateway, &question)
                .await
                .map(|(response, backend)| {
                    let mut response = full(response);
                    name_backend(&mut response, &backend);
                    response
                })
        }
        Endpoint::Generate(api, stream) => {
            let body = read_body(access, request).await?;
            let served_name = &gateway.snapshot().table.served_name;
            let ask = Ask::read(api, stream, body, served_name)?;
            generate(Arc::clone(gateway), ask, id).await
        }
    }
}

async fn generate(
    gateway: Arc<Gateway>,
    ask: Ask,
    id: HeaderValue,
) -> Result<Response<ClientBody>, ApiError> {
    let (api, stream) = (ask.api, ask.stream);
    let mut relay = Relay::new(gateway, ask, id);
    let mut response = if stream {
        match relay.begin().await? {
            Begun::Refusal(refusal) => {
                let backend = relay.backend().to_owned();
                let mut response = full(refusal);
                name_backend(&mut response, &backend);
                return Ok(response);
            }
            Begun::Stream(held) => {
                let backend = relay.backend().to_owned();
                let mut response = streaming(api, relay, &held);
                name_backend(&mut response, &backend);
                return Ok(response);
            }
        }
    } else {
        full(relay.whole().await?)
    };
    name_backend(&mut response, relay.backend());
    Ok(response)
}

/// A body that is pulled by the connection: no task, no queue; when the client goes away the body
/// is dropped, and with it the connection to the upstream.
fn streaming(api: Api, relay: Relay, held: &[super::chunk::Frame]) -> Response<ClientBody> {
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
        Some((Ok::<_, Infallible>(BodyFrame::data(bytes)), (None, relay)))
    });
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
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

async fn read_body(access: &Access, request: Request<Incoming>) -> Result<Bytes, ApiError> {
    let limit = access.max_body;
    let too_large = || {
        ApiError::new(
            ErrorKind::TooLarge,
            format!("the body is longer than {limit} bytes"),
        )
    };
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let read = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(access.body_time, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::new(
            ErrorKind::InvalidRequest,
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(ApiError::new(
            ErrorKind::RequestTimeout,
            "the body did not come in time",
        )),
    }
}

fn ready(gateway: &Gateway) -> Response<ClientBody> {
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

fn exposition(gateway: &Gateway) -> Response<ClientBody> {
    let snapshot = gateway.snapshot();
    for target in [Target::Primary, Target::Fallback] {
        let level = match gateway.breaker_state(&snapshot, target) {
            None | Some(BreakerState::Closed) => 0,
            Some(BreakerState::HalfOpen) => 1,
            Some(BreakerState::Open) => 2,
        };
        gateway.metrics.breaker(target.name(), level);
    }
    let mut response = full(Response::new(Bytes::from(gateway.metrics.text())));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn json_response(status: StatusCode, value: &serde_json::Value) -> Response<ClientBody> {
    let mut response = full(Response::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let json = HeaderValue::from_static(JSON_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn full(response: Response<Bytes>) -> Response<ClientBody> {
    response.map(|bytes| Full::new(bytes).boxed_unsync())
}

fn name_backend(response: &mut Response<ClientBody>, backend: &str) {
    if let Ok(value) = HeaderValue::from_str(backend) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(BACKEND_HEADER), value);
    }
}

/// The client's own id where it is short and plain, else a new one.
fn request_id<B>(request: &Request<B>) -> HeaderValue {
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
