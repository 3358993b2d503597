//! The request and response shapes of the HTTP APIs, their stream framings, and the one error type.
//! Pure: bytes in, values out. It decides nothing about generation and opens no connection, so that
//! the server, the gateway, the probe and the load test speak the same dialects.
//!
//! Requests are read tolerantly (unknown fields are ignored, `null` is absence) but never silently
//! wrong: a field of the wrong type is an error that names its path, see [`json`].

pub mod error;
pub mod generate;
pub mod json;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod sse;
pub mod time;

pub use error::{ApiError, ErrorKind, Protocol};

/// Header on every answer: which back end produced it (`TensorRT`, `LastGood`, `Ollama`, `Cpu`,
/// `None`).
pub const BACKEND_HEADER: &str = "x-enginewright-backend";

/// Header on every answer: the request's identity in the logs. A client may send its own.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Media type of OpenAI's streams.
pub const SSE_CONTENT_TYPE: &str = "text/event-stream";

/// Media type of Ollama's streams.
pub const NDJSON_CONTENT_TYPE: &str = "application/x-ndjson";

/// Media type of everything else.
pub const JSON_CONTENT_TYPE: &str = "application/json";

/// Whether a stream framing was violated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// One event or line is longer than the limit; nothing that follows is read.
    #[error("one event of the stream is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// An event is not UTF-8.
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

/// Longest event or line that the decoders accept, in bytes.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
