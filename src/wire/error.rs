//! The one error that leaves the HTTP APIs: classified once, rendered in the shape of the protocol
//! the client speaks. It holds no cause chain: what is private goes to [`ApiError::diagnostic`],
//! which is logged and never sent.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::{JSON_CONTENT_TYPE, json::JsonError, ndjson, sse};

/// Which dialect the client speaks; decided by the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `/v1/…`
    OpenAi,
    /// `/api/…`
    Ollama,
    /// Everything else: `/generate`, `/healthz`, …
    Plain,
}

impl Protocol {
    /// The dialect of a request path.
    pub fn of_path(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") {
            Self::OpenAi
        } else if path == "/api" || path.starts_with("/api/") {
            Self::Ollama
        } else {
            Self::Plain
        }
    }

    /// Stable name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
            Self::Plain => "plain",
        }
    }
}

/// What went wrong, which decides status, `type` and `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request cannot be read, or a field has a value that is not allowed.
    InvalidRequest,
    /// 400: prompt and answer together do not fit into the context.
    ContextOverflow,
    /// 401: no key, or a wrong one.
    Unauthorized,
    /// 403: understood, and refused whoever asks.
    Forbidden,
    /// 404: another model is served here.
    ModelNotFound,
    /// 404: no such path.
    RouteNotFound,
    /// 405: the path exists, with another method.
    MethodNotAllowed,
    /// 408: the client took too long to send its request.
    RequestTimeout,
    /// 413: the body is longer than the limit.
    TooLarge,
    /// 429: slots and queue are full.
    Overloaded,
    /// 500: a bug or a failed device.
    Internal,
    /// 502: the answer began and could not be brought to its end.
    Interrupted,
    /// 503: not ready yet, shutting down, or no back end.
    Unavailable,
    /// 504: the request's deadline passed.
    DeadlineExceeded,
}

impl ErrorKind {
    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::ContextOverflow => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::ModelNotFound | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Interrupted => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// OpenAI's `error.type`.
    pub const fn openai_type(self) -> &'static str {
        match self {
            Self::InvalidRequest
            | Self::ContextOverflow
            | Self::Unauthorized
            | Self::Forbidden
            | Self::ModelNotFound
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::TooLarge => "invalid_request_error",
            Self::Overloaded => "rate_limit_error",
            Self::Internal | Self::Interrupted | Self::Unavailable | Self::DeadlineExceeded => {
                "server_error"
            }
        }
    }

    /// OpenAI's `error.code`; also the label of the error metric.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::ContextOverflow => "context_length_exceeded",
            Self::Unauthorized => "invalid_api_key",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::RouteNotFound => "unknown_url",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "request_too_large",
            Self::Overloaded => "rate_limit_exceeded",
            Self::Internal => "internal_error",
            Self::Interrupted => "stream_interrupted",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }
}

/// An error for a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The class.
    pub kind: ErrorKind,
    /// What is wrong and what to do, for the client.
    pub message: String,
    /// The path of the offending field, such as `messages[0].content`.
    pub param: Option<String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// What only the operator should know; logged, never sent.
    pub diagnostic: Option<String>,
}

impl ApiError {
    /// An error of this class.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind,
            message,
            param: None,
            retry_after: None,
            diagnostic: None,
        }
    }

    /// A field has a value that is not allowed; the message begins with the field's path.
    pub fn field(param: impl Into<String>, problem: impl AsRef<str>) -> Self {
        let param = param.into();
        let message = format!("{param}: {}", problem.as_ref());
        Self {
            param: Some(param),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }

    /// Another model is served here.
    pub fn unknown_model(asked: &str, served: &str) -> Self {
        let shown: String = asked.chars().take(100).collect();
        let message = format!("model '{shown}' not found; this endpoint serves '{served}'");
        Self {
            param: Some("model".into()),
            ..Self::new(ErrorKind::ModelNotFound, message)
        }
    }

    /// Adds when trying again makes sense.
    #[must_use]
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds what only the operator should know.
    #[must_use]
    pub fn diagnostic(mut self, diagnostic: impl Into<String>) -> Self {
        self.diagnostic = Some(diagnostic.into());
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The error as JSON in the dialect's shape.
    pub fn to_json(&self, protocol: Protocol) -> serde_json::Value {
        match protocol {
            Protocol::OpenAi => json!({ "error": {
                "message": self.message,
                "type": self.kind.openai_type(),
                "param": self.param,
                "code": self.kind.code(),
            }}),
            Protocol::Ollama => json!({ "error": self.message }),
            Protocol::Plain => json!({ "error": self.message, "code": self.kind.code() }),
        }
    }

    /// The error as the last event of a stream that began with status 200.
    pub fn to_stream_event(&self, protocol: Protocol) -> Bytes {
        let body = self.to_json(protocol);
        match protocol {
            Protocol::OpenAi | Protocol::Plain => sse::data(&body),
            Protocol::Ollama => ndjson::line(&body),
        }
    }

    /// The whole response: status, body, `Retry-After`, `WWW-Authenticate`.
    pub fn to_response(&self, protocol: Protocol) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.to_json(protocol).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(JSON_CONTENT_TYPE),
        );
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        if self.kind == ErrorKind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// `Retry-After` has whole seconds; never 0, which clients read as "at once".
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Field { path, problem } => Self::field(path, problem),
            other => Self::new(ErrorKind::InvalidRequest, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_has_the_shape_of_each_protocol() {
        let error = ApiError::field("temperature", "must be between 0 and 2, got 3");
        let openai = error.to_json(Protocol::OpenAi);
        assert_eq!(openai["error"]["param"], "temperature");
        assert_eq!(openai["error"]["type"], "invalid_request_error");
        assert_eq!(
            error.to_json(Protocol::Ollama),
            json!({ "error": "temperature: must be between 0 and 2, got 3" })
        );
        assert_eq!(error.to_json(Protocol::Plain)["code"], "invalid_request");
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds_and_never_zero() {
        let response = |after| {
            ApiError::new(ErrorKind::Overloaded, "full")
                .retry_after(after)
                .to_response(Protocol::OpenAi)
        };
        let header = |after| {
            response(after).headers()["retry-after"]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(header(Duration::ZERO), "1");
        assert_eq!(header(Duration::from_millis(1001)), "2");
        assert_eq!(response(Duration::ZERO).status(), 429);
    }

    #[test]
    fn a_diagnostic_is_never_sent() {
        let error = ApiError::new(ErrorKind::Internal, "internal error").diagnostic("secret path");
        for protocol in [Protocol::OpenAi, Protocol::Ollama, Protocol::Plain] {
            assert!(!error.to_json(protocol).to_string().contains("secret"));
        }
    }

    #[test]
    fn the_path_decides_the_protocol() {
        assert_eq!(Protocol::of_path("/v1/models"), Protocol::OpenAi);
        assert_eq!(Protocol::of_path("/api/chat"), Protocol::Ollama);
        assert_eq!(Protocol::of_path("/apix"), Protocol::Plain);
        assert_eq!(Protocol::of_path("/generate"), Protocol::Plain);
    }
}
