//! What a status other than 200 means: the upstream's failure, which goes to the next one, or an
//! answer to the client.

use std::time::Duration;

use http::StatusCode;

use crate::wire::{ApiError, ErrorKind};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the next upstream.
    Failure,
    /// Tell the client.
    PassOn,
}

/// Judges a status. The gateway has checked path, model and key before, so that an upstream's 401
/// or 404 is about our configuration, not about the client.
pub fn of_status(status: StatusCode, ollama: bool, message: Option<&str>) -> Verdict {
    match status {
        // How Ollama says that its queue is full.
        StatusCode::SERVICE_UNAVAILABLE
            if ollama && message.is_some_and(|text| text.contains("busy")) =>
        {
            Verdict::PassOn
        }
        // Whatever the status: it is the client's prompt.
        _ if message.is_some_and(is_overflow) => Verdict::PassOn,
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED => Verdict::Failure,
        status if status.is_client_error() => Verdict::PassOn,
        _ => Verdict::Failure,
    }
}

/// Whether Ollama says that the prompt does not fit into the context.
pub fn is_overflow(message: &str) -> bool {
    message.contains("exceeds the context length") || message.contains("exceeds maximum context")
}

/// The client's error for a status of an upstream that speaks another API.
pub fn translated(status: StatusCode, message: String) -> ApiError {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ApiError::new(ErrorKind::Overloaded, message).retry_after(Duration::from_secs(1))
        }
        _ if is_overflow(&message) => ApiError::new(ErrorKind::ContextOverflow, message),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(ErrorKind::TooLarge, message),
        _ => ApiError::new(ErrorKind::InvalidRequest, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_an_answer_and_a_dead_engine_is_not() {
        let of = |status: u16, ollama, message| {
            of_status(StatusCode::from_u16(status).unwrap(), ollama, message)
        };
        for status in [400, 413, 422, 429] {
            assert_eq!(of(status, false, None), Verdict::PassOn, "{status}");
        }
        for status in [301, 401, 403, 404, 405, 500, 502, 503, 504] {
            assert_eq!(of(status, false, None), Verdict::Failure, "{status}");
        }
        let busy = Some("server busy, please try again.  maximum pending requests exceeded");
        assert_eq!(of(503, true, busy), Verdict::PassOn);
        assert_eq!(of(503, false, busy), Verdict::Failure);
        assert_eq!(
            translated(StatusCode::SERVICE_UNAVAILABLE, String::new()).status(),
            429
        );
    }
}
