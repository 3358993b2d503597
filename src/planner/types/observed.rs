//! What a shell sees. Everything here is level: the shell reports the state it finds *now*, the
//! planner never needs to have seen an edge. A shell fills every field on every observation; what
//! it cannot know yet has a value that says so (`None`, `Unknown`), which is never taken for a
//! failure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{Reason, RevisionId};

use super::{Durable, Failure, Measured, Memory, Policy, Timestamp};

/// Everything [`crate::planner::plan`] looks at: one engine resource on one node. A cluster with
/// several matching nodes plans each of them with its own `Observed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// What the user wants now.
    pub desired: Desired,
    /// What the last plan that was applied said to persist; `Durable::default()` on the very first.
    /// After a restart of the shell: what it reads back from disk (or from the status in a cluster).
    pub durable: Durable,
    /// What the last plan said to remember; `Memory::default()` after a restart of the shell.
    pub memory: Memory,
    /// The node this plan acts on; `None` when no node matches the placement.
    pub node: Option<Node>,
    /// The desired revision, and each other revision of which anything is stored on the node.
    pub revisions: Vec<Revision>,
    /// Engine processes (or pods) of ours, also those that ended and were not yet acknowledged with
    /// [`super::Action::StopEngine`].
    pub engines: Vec<Instance>,
    /// The stable endpoint.
    pub gateway: Service,
    /// The fallback; [`Service::Absent`] where none is configured. For an address the shell reports
    /// `Ready` while it answers and `Failed` while it does not; it is never told to start it.
    pub fallback: Service,
    /// The route table in force: the gateway has taken it over, not only been told. `None` when the
    /// shell does not know (never written in this life, or the gateway does not run).
    pub routed: Option<Route>,
    /// How the last garbage collection went.
    pub garbage: Garbage,
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// `metadata.generation`; in `run` [`Durable::generation_of`] of the file's digest. Grows with
    /// every change of the spec.
    pub generation: u64,
    /// Digest of the whole spec where the shell has to number generations itself (`run`); empty in
    /// a cluster, where the API server does.
    pub spec_digest: String,
    /// What is to be served: a hash over model, engine and runtime.
    pub revision: RevisionId,
    /// `spec.rollout.retryToken`: any change lifts the quarantine.
    pub retry_token: Option<String>,
    /// Whether to run, to freeze, or to take everything down.
    pub lifecycle: Lifecycle,
    /// How.
    pub policy: Policy,
}

/// What is wanted of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lifecycle {
    /// Converge.
    Run,
    /// `spec.suspend`: take everything down, the endpoint included, as for `Remove`, and keep what
    /// is stored.
    Suspended,
    /// Take everything down, the gateway first so that it can drain: the resource is being deleted,
    /// or `run` was told to end. `Plan::removed` says when all is gone. `Durable` keeps what it knows.
    Remove,
}

/// The node: what is there, not what is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// For messages.
    pub name: String,
    /// Memory that engines, builds and the fallback may use *together*: the node's, less what the
    /// system and others hold. The planner subtracts what it knows to run.
    pub memory_bytes: u64,
}

/// One revision as it is on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Which.
    pub id: RevisionId,
    /// What will run it.
    pub kind: EngineKind,
    /// Whether it can run here, from `engine::fit`.
    pub fit: Fit,
    /// Whether a bundle must exist besides the model.
    pub build: BuildNeed,
    /// What of it is stored.
    pub artefact: Artefact,
}

/// What runs a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EngineKind {
    /// A TensorRT engine.
    TensorRt,
    /// The model itself on the CPU.
    Cpu,
    /// A container that somebody else made.
    Image,
}

/// Whether a revision can run on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// Not computed yet (the model's facts are not known before it is fetched).
    Unknown,
    /// It can.
    Fits {
        /// Memory it needs while running: weights, KV cache, runtime.
        memory_bytes: u64,
        /// Needs the GPU for itself: never two such processes at a time, whatever the memory says.
        exclusive: bool,
    },
    /// It cannot, whatever else is stopped.
    Refused {
        /// Stable CamelCase word.
        reason: Reason,
        /// With the numbers, ending with the remedy.
        message: String,
    },
}

/// Whether an engine bundle is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildNeed {
    /// Runs from the model alone.
    None,
    /// Needs a bundle, fetched or built.
    Bundle {
        /// Memory of this node a build needs; 0 when it is built elsewhere.
        memory_bytes: u64,
    },
}

/// How far a revision's artefacts are, in the order in which they are made. The shell looks at the
/// disk and at its own running work. `Done` must mean complete and durable (renamed and fsynced).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// The model: the file, blob or weights.
    pub model: Step,
    /// The bundle from the registry. [`Step::Done`] also when it lies in the node's cache.
    pub bundle: Step,
    /// The bundle built here.
    pub build: Step,
    /// Signature, digest and key checked over the bytes that will be loaded, in this life of the
    /// shell: after a restart it is `Todo` again. Includes that the revision's own spec is stored,
    /// so that it can be started when it is no longer the desired one. What fails verification is
    /// deleted (its `model`, `bundle` or `build` is `Todo` again), unless it is the user's own file.
    pub verify: Step,
}

/// State of one piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The shell has not looked yet: the planner waits.
    Unknown,
    /// Not done and not running.
    #[default]
    Todo,
    /// Running.
    Running {
        /// When bytes or steps last moved.
        progress_at: Timestamp,
    },
    /// Done.
    Done,
    /// Ended without result; stays until the same work is ordered again.
    Failed {
        /// When it ended.
        at: Timestamp,
        /// Why.
        failure: Failure,
    },
}

/// One engine process (or pod), given its number by the planner and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An engine process as the shell sees it. One that was ordered with `StartEngine` must be seen
/// from the next observation on, even if the process has not been spawned yet (`Starting`) or could
/// not be (`Exited`). One that vanishes without `StopEngine` counts as interrupted, not as crashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// From the order that started it (a label of the pod, an argument of the process).
    pub id: InstanceId,
    /// What it runs.
    pub revision: RevisionId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Memory it was admitted with, from the order that started it.
    pub memory_bytes: u64,
    /// From the order that started it.
    pub exclusive: bool,
    /// Result of the last [`super::Action::Prove`] on it.
    pub proof: Proof,
    /// Since when it has been the gateway's primary without a break, as far as this life of the
    /// shell has seen; `None` when it is not, or when the gateway does not run.
    pub serving_since: Option<Timestamp>,
    /// What the periodic probe says; `None` while none was ordered.
    pub health: Option<Health>,
}

impl Instance {
    /// Whether the last proof says that it generates.
    pub const fn is_proven(&self) -> bool {
        matches!(
            self.proof,
            Proof::Done {
                smoke: Verdict::Good,
                ..
            }
        )
    }
}

/// Life of an engine process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Ordered, spawned or loading: `/readyz` does not say yes yet.
    Starting {
        /// Since when.
        since: Timestamp,
    },
    /// `/readyz` has said yes at least once and the process lives.
    Ready,
    /// Told to end by `StopEngine`; still there, so its memory counts. The shell kills it hard when
    /// its grace time is over. It then vanishes from `engines`.
    Stopping,
    /// The process ended *by itself*, or could not be spawned.
    Exited {
        /// When.
        at: Timestamp,
        /// Exit code, last words of its log.
        failure: Failure,
    },
}

/// A proof: smoke generation, then objectives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Proof {
    /// None was ordered, or the shell restarted meanwhile.
    #[default]
    None,
    /// Running. The shell bounds every request it makes; the engine that does not answer within
    /// that bound is `Bad`, not for ever `Running`.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Done.
    Done {
        /// When.
        at: Timestamp,
        /// Whether it generates: text comes, is not empty, is not one token repeated.
        smoke: Verdict,
        /// Whether it reaches the objectives; `Good` where there are none.
        objectives: Verdict,
        /// What was measured, for the status.
        measured: Option<Measured>,
    },
}

/// Outcome of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Measured, good.
    Good,
    /// Measured, bad: a failure of the revision.
    Bad(Failure),
    /// Could not be measured (throttled, busy with users' requests, the prober itself failed):
    /// never a failure, never a success. The text says why and what would help.
    Inconclusive(String),
}

/// The periodic probe of a serving engine. Each probe is liveness and one real generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Probes that failed since the last good one: no answer, an error, no token in time. Probes
    /// that could not be made (429 because users keep it busy) count neither way.
    pub consecutive_failures: u32,
    /// Probes since the last good one that answered, but outside the objectives, while the machine
    /// was *not* throttled. A slow answer while throttled counts as good.
    pub consecutive_slow: u32,
    /// Slow because hot or because of the power mode, right now: reported, not punished.
    pub throttled: bool,
    /// When a probe was last good.
    pub last_success: Option<Timestamp>,
    /// The interval it runs with: another policy makes the planner order `Watch` again.
    pub interval: Duration,
}

/// A service of ours that is one process: the gateway, the fallback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// The shell has not looked yet.
    Unknown,
    /// Not there.
    #[default]
    Absent,
    /// Coming up: process started, model being pulled, created or loaded.
    Starting {
        /// Since when.
        since: Timestamp,
    },
    /// Answers.
    Ready {
        /// Since when, in this life of the shell.
        since: Timestamp,
    },
    /// Only the fallback: its model is not loaded and will not be unless a request reaches it.
    /// `Standby` and `Warm` keep the process, `Cold` does not. A fallback of which the shell sees
    /// that its model has been loaded since is `Ready`.
    Parked,
    /// Told to end (or to park) and not there yet: its memory counts.
    Stopping,
    /// Ended or cannot come up; nothing of it runs. Stays until it is ordered again.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        failure: Failure,
    },
}

/// A route table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The engine that gets requests first.
    pub primary: Option<InstanceId>,
    /// Whether the fallback takes what the primary cannot, or everything where there is none.
    pub fallback: bool,
}

/// State of garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garbage {
    /// Nothing running; what could be collected was.
    #[default]
    Idle,
    /// Running.
    Running,
    /// The last one failed: tried again after a while, never urgent.
    Failed {
        /// When.
        at: Timestamp,
    },
}
