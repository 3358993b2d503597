//! The vocabulary between the planner and its shells: what a shell observes, what it keeps, what
//! it is told to do, and what it reports. Values only; nothing is decided here.

mod action;
mod durable;
mod failure;
mod observed;
mod policy;
mod status;
mod time;

pub use crate::api::{
    ActiveBackend, ConditionStatus, ConditionType, EnginePolicy, Reason, Residency, RevisionId,
    RolloutStrategy,
};
pub use action::{Action, StopReason, Work};
pub use durable::{Durable, DurableFailure, Ledger, Memory, SCHEMA_VERSION};
pub use failure::{Failure, failure, transient};
pub use observed::{
    Artefact, BuildNeed, Desired, EngineKind, Fit, Garbage, Health, Instance, InstanceId,
    Lifecycle, Node, Observed, Phase, Proof, Revision, Route, Service, Step, Verdict,
};
pub use policy::{Backoff, Fallback, LastGoodUse, Policy};
pub use status::{Condition, FailedRevision, Measured, Plan, Status};
pub use time::Timestamp;
