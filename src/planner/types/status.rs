//! What the planner answers, and the words of its report. Reasons are stable: people and machines
//! match on them.

use serde::{Deserialize, Serialize};

use super::{Action, Durable, Memory, RevisionId, Timestamp};

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

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ActiveBackend {
    /// The desired revision, on TensorRT.
    TensorRT,
    /// The last good revision, which is not the desired one.
    LastGood,
    /// The fallback.
    Ollama,
    /// The desired revision, on the CPU.
    Cpu,
    /// Nobody.
    None,
}

/// One condition, as in Kubernetes but without its time (the shell keeps that).
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

/// Types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// Always there. `True`: what is served is what the spec wants, proven and soaked.
    Ready,
    /// Only while something is under way.
    Reconciling,
    /// Only when a person must act.
    Stalled,
    /// A node matches and the revision fits it.
    HardwareMatched,
    /// The model is on the node.
    ModelFetched,
    /// The desired revision's engine runs and is proven.
    EngineReady,
    /// Some back end answers.
    Available,
    /// The fallback or the last good engine answers in place of the desired one.
    FallbackActive,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

/// Why, in one stable word. Names are never changed or reused for another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    // What goes well.
    /// The desired revision serves, proven and soaked.
    Serving,
    /// The desired revision serves; the fallback is not ready to help.
    ServingWithoutFallback,
    /// The last good revision serves in place of the desired one.
    ServingLastGood,
    /// Another revision than the desired one serves until it is replaced.
    ServingPrevious,
    /// The fallback serves.
    ServingFallback,
    /// A node matches and the revision fits.
    Matched,
    /// The model is here.
    Fetched,
    /// The engine is proven.
    Proven,
    // What is under way.
    /// Nothing is known yet.
    Pending,
    /// The model or the bundle is being brought here.
    Fetching,
    /// The bundle is being built.
    Building,
    /// Bytes are being checked.
    Verifying,
    /// The engine is loading.
    Starting,
    /// The smoke generation and the objectives are being measured.
    Proving,
    /// The objectives could not be measured; measured again later.
    ProofInconclusive,
    /// The new route is being taken over.
    Promoting,
    /// Serving, and watched before it counts as good.
    Soaking,
    /// An older engine ends, or memory is being made free.
    MakingRoom,
    /// A failed attempt waits for its next try.
    BackingOff,
    /// The process ended and is about to be started again.
    Restarting,
    /// Waits for the fallback, which has to answer before the old engine is stopped.
    WaitingForFallback,
    /// Waits for memory that something else holds now.
    WaitingForMemory,
    /// `spec.suspend` holds it.
    Suspended,
    /// Everything is being taken down.
    Removing,
    // What is wrong.
    /// No node matches the placement.
    NoNodeMatches,
    /// The device lacks the precision.
    PrecisionUnsupported,
    /// Does not fit into the memory of the node.
    InsufficientMemory,
    /// The source names something that is not there.
    ModelNotFound,
    /// The model is there and cannot be used.
    ModelInvalid,
    /// Bytes could not be brought here.
    FetchFailed,
    /// The registry has no bundle with this key.
    BundleNotFound,
    /// The build ended with an error.
    BuildFailed,
    /// Digest, signature or key is wrong.
    VerificationFailed,
    /// Work made no progress for too long.
    NoProgress,
    /// The process ended before it was ready.
    StartFailed,
    /// It did not become ready in time.
    StartTimeout,
    /// Starts vanished without a verdict too often.
    StartInterrupted,
    /// The smoke generation was wrong.
    SmokeFailed,
    /// Measured, and too slow or too inaccurate.
    ObjectivesMissed,
    /// The process ended too often.
    CrashLoop,
    /// It lives but does not generate.
    GenerationDead,
    /// The fallback cannot come up.
    FallbackFailed,
    /// The gateway cannot come up.
    GatewayFailed,
    /// Attempts are used up.
    RetriesExhausted,
    /// Nothing answers.
    NothingServes,
    /// No fallback is needed now.
    NotNeeded,
}

impl Reason {
    /// The word, as in the resource's conditions.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}
