//! What a shell is told to do. Each variant states what must be done, what doing it twice means,
//! and where its result shows in the next [`super::Observed`]. That last part is the contract that
//! keeps the planner level-triggered: an action that shows nowhere is ordered again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InstanceId, Route};
use crate::api::RevisionId;

/// One thing to do. A shell performs the actions of a plan in order, after persisting
/// `Plan::durable`; it may start long ones and go on. An action that cannot even be started is not
/// an error of the plan: its failure is reported where its result would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Start the gateway (also after it failed). Nothing to do when it runs. Shows in
    /// `Observed::gateway`: `Starting` at once, then `Ready` or `Failed`. A gateway that starts
    /// must take over the last route table that was written, if there is one.
    EnsureGateway,
    /// Start the managed fallback (also after it failed or was parked) and make its model available:
    /// pulled or created, and loaded too unless its residency is `Standby` and an engine serves.
    /// Nothing to do when it runs. Shows in `Observed::fallback`: `Starting` at once, then `Ready`
    /// or `Failed`.
    EnsureFallback,
    /// Make the managed fallback give its memory back: unload the model, and with `Cold` end the
    /// processes too; its files stay. Shows as `Stopping`, then `Parked`.
    ParkFallback,
    /// End the managed fallback's processes; its files stay. Only ordered when everything is taken
    /// down, or when the spec wants no fallback any more. Shows as `Stopping`, then `Absent`.
    StopFallback,
    /// Drain and end the gateway. Only ordered when everything is taken down. Shows as `Stopping`,
    /// then `Absent`.
    StopGateway,
    /// Do one piece of work for a revision. Nothing to do while that work runs. Shows in the
    /// revision's [`super::Artefact`]: `Running` at once, then `Done` or `Failed`. Work interrupted
    /// by a restart of the shell shows as `Todo`; what is half done must not show as `Done`.
    Begin {
        /// For which revision.
        revision: RevisionId,
        /// What.
        work: Work,
    },
    /// End running work because it is not wanted any more or does not move. Shows as `Todo`, or as
    /// `Failed { transient: true }` where `stalled`.
    Cancel {
        /// Of which revision.
        revision: RevisionId,
        /// What.
        work: Work,
        /// It made no progress for too long: to be reported as failed, so that backoff applies.
        stalled: bool,
    },
    /// Start an engine process. Nothing to do when an instance with this id exists in whatever
    /// phase. Shows in `Observed::engines` with the same id, from the next observation on.
    StartEngine {
        /// Its identity, never used before.
        instance: InstanceId,
        /// What to run.
        revision: RevisionId,
        /// Number of the attempt, from 1, for names and logs.
        attempt: u32,
        /// To be reported back in the instance.
        memory_bytes: u64,
        /// To be reported back in the instance.
        exclusive: bool,
    },
    /// Run smoke generation and objectives against a ready engine; a proof already running is
    /// ended and begun anew. Shows in the instance's `proof`: `Running` at once, then `Done`.
    Prove {
        /// Which.
        instance: InstanceId,
    },
    /// Probe this engine periodically from now on, until it ends. Ordered again when the interval
    /// changes. Shows in the instance's `health`.
    Watch {
        /// Which.
        instance: InstanceId,
        /// How often.
        interval: Duration,
    },
    /// End an engine: the process drains its running answers within its grace time and is killed
    /// hard after it. Shows as `Stopping`, then the instance vanishes. For an instance that exited
    /// by itself: forget it, it vanishes.
    StopEngine {
        /// Which.
        instance: InstanceId,
        /// For logs and events.
        why: StopReason,
    },
    /// Write the route table, whole, and make the gateway take it over. New requests follow it;
    /// running ones end where they began. Shows in `Observed::routed` once in force, and in the
    /// primary's `serving_since`.
    Route(Route),
    /// Delete everything stored for revisions that are not in `keep`, and nothing else. Shows in
    /// `Observed::revisions` (they vanish) and `Observed::garbage`.
    CollectGarbage {
        /// What stays.
        keep: BTreeSet<RevisionId>,
    },
}

/// Pieces of work on a revision's artefacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Work {
    /// Bring the model here (`Artefact::model`).
    FetchModel,
    /// Look the bundle up in the registry and bring it here (`Artefact::bundle`). That there is
    /// none is `Failed` with [`crate::api::Reason::EngineNotFound`].
    FetchBundle,
    /// Build the bundle (`Artefact::build`).
    BuildBundle,
    /// Check what will be loaded (`Artefact::verify`).
    Verify,
}

/// Why something of ours is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// It failed: crashed, was proven bad, or stopped answering.
    Failed,
    /// Another engine serves, or another revision is wanted.
    Superseded,
    /// To free the memory for what is to run next.
    MakeRoom,
    /// Everything is being taken down.
    Removed,
}
