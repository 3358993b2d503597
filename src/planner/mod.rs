//! The planner: `plan(observed, now) -> Plan`, the next step for one engine on one node.
//!
//! It decides what runs, what is tried, promoted, rolled back and quarantined, and what is said
//! about it. It does nothing: a shell (`run` with processes, the operator with pods) observes,
//! persists [`Durable`], applies the [`Action`]s, publishes the [`Status`] and plans again when
//! something changed or at [`Plan::wake_at`].
//!
//! ```text
//!         +--------------------- shell ---------------------+
//!         |  observe -> plan -> persist -> act -> publish    |
//!         +--^-----------------------------------------+-----+
//!            |  event, or wake_at                      |
//!            +-----------------------------------------+
//! ```
//!
//! Pure: no clock, no random source, no I/O. The same observation gives the same plan.

pub mod types;

pub use types::*;

/// The next step: what to persist, do, remember and report for this observation at this time.
///
/// Total: it never fails and never panics, whatever the observation says.
pub fn plan(observed: &Observed, _now: Timestamp) -> Plan {
    let pending = Condition {
        kind: ConditionType::Ready,
        status: ConditionStatus::Unknown,
        reason: Reason::Pending,
        message: "Nothing is known yet; wait for the next observation.".to_owned(),
        observed_generation: observed.desired.generation,
    };
    Plan {
        actions: Vec::new(),
        durable: observed.durable.clone(),
        memory: observed.memory.clone(),
        status: Status {
            observed_generation: observed.desired.generation,
            active_backend: ActiveBackend::None,
            desired: observed.desired.revision.clone(),
            active: observed.durable.active.clone(),
            last_good: observed.durable.last_good.clone(),
            failed: Vec::new(),
            measured: None,
            conditions: vec![pending],
        },
        wake_at: None,
        removed: false,
    }
}
