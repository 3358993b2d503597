//! What can keep one reconciliation from coming to its end, and what it is called in metrics.

use std::time::Duration;

use super::state::StateError;
use super::workloads::Kind;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or nothing.
    #[error("{verb} {what}: {source}")]
    Api {
        /// What was asked for.
        verb: &'static str,
        /// Of what.
        what: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{verb} {what}: no answer within {} s", .limit.as_secs())]
    Timeout {
        /// What was asked for.
        verb: &'static str,
        /// Of what.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// What was to be changed has changed meanwhile.
    #[error("{what} has changed meanwhile")]
    Conflict {
        /// What.
        what: String,
    },
    /// An object with a name that is needed belongs to somebody else.
    #[error("{} {name} exists and does not belong to this InferenceEngine", .kind.as_str())]
    Foreign {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// What is remembered cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another operator leads.
    #[error("another operator leads")]
    NotLeader,
}

impl Error {
    /// The label in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Timeout { .. } => "timeout",
            Self::Conflict { .. } => "conflict",
            Self::Foreign { .. } => "foreign",
            Self::State(_) => "state",
            Self::NotLeader => "not_leader",
        }
    }

    /// How long the API server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Api { source, .. } = self else {
            return None;
        };
        let kube::Error::Api(status) = source.as_ref() else {
            return None;
        };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
    }
}

/// Whether the API server said that there is no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether the API server said that an object is not as was expected.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}
