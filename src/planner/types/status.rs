//! What the planner answers: what to do, and what to say about it.

use serde::{Deserialize, Serialize};

use super::{Action, Durable, Memory, Timestamp};
use crate::api::{ActiveBackend, ConditionStatus, ConditionType, Reason, RevisionId};

/// The answer to one observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// To be done, in order; empty when there is nothing to do.
    pub actions: Vec<Action>,
    /// To be persisted before the first action, where it differs from the observed one.
    pub durable: Durable,
    /// To be handed back with the next observation.
    pub memory: Memory,
    /// To be published, where it differs from what was.
    pub status: Status,
    /// Plan again at this time even if nothing happens; `None`: only when something does. Until
    /// then the same observation gives the same plan.
    pub wake_at: Option<Timestamp>,
    /// [`super::Lifecycle::Remove`] is complete: nothing of ours runs any more, the finalizer may
    /// go, `run` may end.
    pub removed: bool,
}

/// The report, without any value that changes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Newest generation a plan was made for.
    pub observed_generation: u64,
    /// Who answers now.
    pub active_backend: ActiveBackend,
    /// What is wanted.
    pub desired: RevisionId,
    /// What the gateway's primary runs now.
    pub active: Option<RevisionId>,
    /// What would be rolled back to.
    pub last_good: Option<RevisionId>,
    /// Revisions that failed, newest last.
    pub failed: Vec<FailedRevision>,
    /// What the proof of the serving engine measured.
    pub measured: Option<Measured>,
    /// Sorted by type.
    pub conditions: Vec<Condition>,
}

impl Status {
    /// The condition of a type, if it is present.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// Whether a condition is present and `True`.
    pub fn is_true(&self, kind: ConditionType) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

/// A revision that failed and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRevision {
    /// Which.
    pub revision: RevisionId,
    /// Of the last failure.
    pub reason: Reason,
    /// Of the last failure.
    pub message: String,
    /// Of the last failure.
    pub exit_code: Option<i32>,
    /// Failed attempts on the present account.
    pub attempts: u32,
    /// Whether it is kept from starting now (backoff or for good).
    pub quarantined: bool,
}

/// What a proof measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds to the first token.
    pub first_token_seconds: Option<f64>,
    /// Seconds to the whole answer.
    pub completion_seconds: Option<f64>,
    /// Tokens per second after the first.
    pub tokens_per_second: Option<f64>,
    /// Share of right tool calls, 0 to 1.
    pub tool_call_accuracy: Option<f64>,
}

/// One condition, as in Kubernetes but without its time, which the shell sets when `status` changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people, ending with what to do.
    pub message: String,
    /// Generation it was computed for.
    pub observed_generation: u64,
}
