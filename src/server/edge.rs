//! What happens to every request whatever it asks for: it gets an identity, strangers are turned
//! away, errors take the client's dialect, the answer is labelled, counted and logged.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tracing::Instrument;

use super::state::{Phase, ServerState};
use crate::wire::{ApiError, BACKEND_HEADER, ErrorKind, Protocol, REQUEST_ID_HEADER};

/// Paths that need no key: they tell a kubelet whether the process is well, and nothing else.
pub const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The identity of a request; an extension of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// An error on its way out; the edge writes it in the client's dialect.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

/// The middleware around all routes.
pub async fn edge(
    State(state): State<Arc<ServerState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let (method, route) = (request.method().clone(), route_label(request.uri().path()));
    let protocol = Protocol::of_path(request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", request_id = id, %method, route);
    let response = match admit(&state, &request) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(error) => Failure(error).into_response(),
    };
    let _within = span.enter();
    let mut response = write_error(response, protocol);
    let headers = response.headers_mut();
    headers.insert(
        BACKEND_HEADER,
        HeaderValue::from_static(state.config.backend),
    );
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    if state.phase() == Phase::Draining {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status().as_u16();
    state.metrics.request(route, status);
    log(route, status, began);
    response
}

fn log(route: &'static str, status: u16, began: Instant) {
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    if OPEN_PATHS.contains(&route) || route == "/metrics" {
        tracing::debug!(status, milliseconds, "answered");
    } else {
        tracing::info!(status, milliseconds, "answered");
    }
}

fn write_error(response: Response, protocol: Protocol) -> Response {
    let Some(error) = response.extensions().get::<Arc<ApiError>>().cloned() else {
        return response;
    };
    let diagnostic = error.diagnostic.as_deref().unwrap_or_default();
    if error.status().is_server_error() {
        tracing::warn!(code = error.kind.code(), %error, diagnostic, "refused");
    } else {
        tracing::debug!(code = error.kind.code(), %error, diagnostic, "refused");
    }
    let mut written = error.to_response(protocol).map(axum::body::Body::from);
    if matches!(error.kind, ErrorKind::TooLarge | ErrorKind::RequestTimeout) {
        // The rest of the body is still on its way: the connection cannot be used again.
        written
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    written
}

fn admit(state: &ServerState, request: &Request) -> Result<(), ApiError> {
    if request.headers().contains_key(header::CONTENT_LENGTH)
        && request.headers().contains_key(header::TRANSFER_ENCODING)
    {
        let message = "content-length and transfer-encoding together are ambiguous";
        return Err(ApiError::new(ErrorKind::InvalidRequest, message));
    }
    if state.config.local_hosts_only {
        local_only(request)?;
    }
    if OPEN_PATHS.contains(&request.uri().path()) || state.keys().admit(request.headers()) {
        return Ok(());
    }
    let message = "a valid API key is needed: Authorization: Bearer <key>";
    Err(ApiError::new(ErrorKind::Unauthorized, message))
}

/// A web page in a local browser can reach loopback through a name of its own; it cannot choose
/// `Host`, and says where it came from in `Origin`.
pub(crate) fn local_only(request: &Request) -> Result<(), ApiError> {
    let refused = |what: &str| {
        Err(ApiError::new(
            ErrorKind::Forbidden,
            format!("{what} is not this machine; listen on another address or use API keys"),
        ))
    };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    if let Some(host) = authority.or(host)
        && !is_local(host)
    {
        return refused("the Host");
    }
    let origin = request
        .headers()
        .get(header::ORIGIN)
        .and_then(|value| value.to_str().ok());
    match origin.and_then(|origin| origin.split_once("://")) {
        Some((scheme, host)) if scheme.starts_with("http") && !is_local(host) => {
            refused("the Origin")
        }
        _ => Ok(()),
    }
}

fn is_local(authority: &str) -> bool {
    let host = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, _)) => host,
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The client's identity for the request if it is harmless in a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless = |text: &&str| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    headers
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(harmless)
        .map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned)
}

/// The route for logs and metrics: one of a fixed set.
fn route_label(path: &str) -> &'static str {
    super::router::ROUTES
        .iter()
        .map(|route| route.path)
        .find(|route| *route == path)
        .unwrap_or_else(|| match path {
            _ if path.starts_with("/v1/models/") => "/v1/models/{id}",
            _ if path.starts_with("/api/blobs/") => "/api/blobs/{digest}",
            _ => "other",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "example.com",
            "127.0.0.1.example.com",
            "192.168.1.5:80",
            "localhost.evil",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn an_identity_from_outside_is_kept_only_when_harmless() {
        let id = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(id("abc-1.2:3_4"), "abc-1.2:3_4");
        assert_eq!(id("a b").len(), 16);
        assert_eq!(id("").len(), 16);
    }

    #[test]
    fn labels_come_from_a_fixed_set() {
        assert_eq!(route_label("/v1/chat/completions"), "/v1/chat/completions");
        assert_eq!(route_label("/v1/models/x"), "/v1/models/{id}");
        assert_eq!(route_label("/v1/../etc"), "other");
    }
}
