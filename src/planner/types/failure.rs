//! Why something ended badly, and whose fault that is.

use serde::{Deserialize, Serialize};

use crate::api::Reason;

/// Why something ended badly. Written by the shell; the planner copies it into status and ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable CamelCase word.
    pub reason: Reason,
    /// For people: what happened and, last, what to do. At most about 500 characters; no times,
    /// rates or other numbers that differ from one try to the next.
    pub message: String,
    /// Exit code of the process, 128 + signal where it was killed.
    pub exit_code: Option<i32>,
    /// `true`: the world's fault (network, registry, a full disk): tried again with backoff for
    /// ever and never held against the revision. `false`: an attempt has failed.
    pub transient: bool,
}

/// A failure that counts against the revision; the message gets the reason's remedy as its end.
pub fn failure(reason: Reason, message: &str) -> Failure {
    let message = match reason.remedy() {
        Some(remedy) => format!("{message} {remedy}"),
        None => message.to_owned(),
    };
    Failure {
        reason,
        message,
        exit_code: None,
        transient: false,
    }
}

/// A failure of the world, tried again for ever.
pub fn transient(reason: Reason, message: &str) -> Failure {
    Failure {
        transient: true,
        ..failure(reason, message)
    }
}
