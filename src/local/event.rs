//! What the tasks of `run` tell its one loop. Tasks do the waiting, the loop owns all state.

use std::process::ExitStatus;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::model::Fetched;
use crate::api::RevisionId;
use crate::planner::{Failure, InstanceId, Work};
use crate::probe::health::Finding;
use crate::probe::proof::Outcome;

/// Sends events; never blocks. Events are few: they are bounded by the number of children and tasks.
pub type Events = UnboundedSender<Event>;

/// A channel for events.
pub fn channel() -> (Events, UnboundedReceiver<Event>) {
    unbounded_channel()
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Work on a revision moves.
    WorkProgress {
        /// Of which revision.
        revision: RevisionId,
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// Work on a revision ended.
    WorkEnded {
        /// Of which revision.
        revision: RevisionId,
        /// What.
        work: Work,
        /// How.
        result: Result<Box<Fetched>, Failure>,
    },
    /// An engine says that it is ready.
    EngineReady(InstanceId),
    /// An engine's process is gone.
    EngineEnded(InstanceId, std::io::Result<ExitStatus>),
    /// A proof ended; the number tells it from an earlier one on the same engine.
    Proved(InstanceId, u64, Outcome),
    /// A periodic probe ended.
    Probed {
        /// Of which engine.
        instance: InstanceId,
        /// What was found.
        finding: Finding,
        /// Whether the machine holds back its speed.
        throttled: bool,
    },
    /// The gateway of this start accepts requests.
    GatewayReady(u64),
    /// The gateway of this start is gone.
    GatewayEnded(u64, std::io::Result<ExitStatus>),
    /// The gateway of this start has taken over the route table of this generation.
    RoutesInForce(u64, u64),
    /// The fallback of this start.
    Fallback(u64, FallbackEvent),
    /// Garbage collection ended.
    Collected(std::io::Result<()>),
    /// The YAML file may have changed.
    FileChanged,
    /// End in order.
    Stop,
}

/// What the fallback's task says.
#[derive(Debug)]
pub enum FallbackEvent {
    /// Bytes of a model went over.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// It answers.
    Ready,
    /// Its model is not loaded any more.
    Parked,
    /// Its process has ended because it was told to.
    Gone,
    /// It has failed; nothing of it runs.
    Failed(Failure),
}
