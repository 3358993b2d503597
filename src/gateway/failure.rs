//! The ways in which an upstream fails a request.

use std::time::Duration;

use super::chunk::NotAChunk;
use super::client::SendError;

/// One failure: a class for metrics, words for people.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// A status that says that it cannot serve.
    #[error("status {0}{1}")]
    Status(u16, String),
    /// Nothing was generated in time.
    #[error("no first token within {0:?}")]
    FirstToken(Duration),
    /// It stopped generating.
    #[error("no token for {0:?}")]
    Stall(Duration),
    /// The connection ended before the answer did.
    #[error("the connection broke before the answer's end: {0}")]
    Cut(String),
    /// It said something that is not an answer.
    #[error("{0}")]
    Garbage(String),
    /// It said that it failed.
    #[error("it reports: {0}")]
    Reported(String),
}

impl Failure {
    /// Stable label.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Status(..) => "status",
            Self::FirstToken(_) => "first_token",
            Self::Stall(_) => "stall",
            Self::Cut(_) => "cut",
            Self::Garbage(_) => "garbage",
            Self::Reported(_) => "reported",
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(cause) => Self::Connect(format!("no connection: {cause}")),
            SendError::Broken(cause) => Self::Cut(cause),
        }
    }
}

impl From<NotAChunk> for Failure {
    fn from(problem: NotAChunk) -> Self {
        match problem {
            NotAChunk::Failure(message) => Self::Reported(message),
            garbage @ NotAChunk::Garbage(_) => Self::Garbage(garbage.to_string()),
        }
    }
}
