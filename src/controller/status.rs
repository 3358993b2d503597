//! The status of a resource: the planner's report, what is in the way of it, and the arithmetic of
//! memory. Pure; made only of what was applied.

use serde_json::Value;

use super::desired::endpoint;
use super::view::View;
use super::write::Applied;
use crate::api::conditions::{Condition, ConditionStatus, ConditionType, Reason};
use crate::api::inference_engine::{MeasuredStatus, MemoryStatus, NodesStatus};
use crate::api::{InferenceEngineStatus, Problem};
use crate::planner::{Plan, status_of};

/// Most problems that a message lists.
const LISTED: usize = 8;

/// The status after what was applied.
pub fn status(
    view: &View<'_>,
    plan: &Plan,
    applied: &Applied,
    before: &InferenceEngineStatus,
    now: &str,
) -> InferenceEngineStatus {
    let mut status = status_of(
        &plan.status,
        before,
        Some(&endpoint(view)),
        view.engine.rollout.retry_token.as_deref(),
        now,
    );
    if status.measured.is_none() {
        // What was measured stays true of what serves, also when nobody remembers the measurement.
        let same =
            |measured: &MeasuredStatus| Some(&measured.revision) == status.active_revision.as_ref();
        status.measured = before.measured.clone().filter(same);
    }
    for failed in &mut status.failed_revisions {
        failed.node = view.node.map(|node| node.name.clone());
    }
    status.memory = memory(view);
    status.nodes = Some(nodes(view, plan));
    if let Some((kind, name)) = applied.foreign().first() {
        let message = format!(
            "The {} {name} in namespace {} is needed and belongs to somebody else. Delete or rename \
             it, or this InferenceEngine.",
            kind.as_str(),
            view.owner.namespace
        );
        stall(&mut status, before, Reason::ObjectConflict, &message, now);
    }
    status
}

/// The status of a resource that cannot be understood.
pub fn invalid(
    problems: &[Problem],
    generation: Option<i64>,
    before: &InferenceEngineStatus,
    now: &str,
) -> InferenceEngineStatus {
    let listed: Vec<String> = problems
        .iter()
        .take(LISTED)
        .map(ToString::to_string)
        .collect();
    let mut message = format!(
        "{}. What runs goes on. Correct the spec.",
        listed.join("; ")
    );
    message.truncate(message.floor_char_boundary(4000));
    // What serves is not touched, so what was said of it stays.
    let mut status = before.clone();
    status.observed_generation = generation;
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
    }
    stall(&mut status, before, Reason::SpecInvalid, &message, now);
    status
}

/// A person must act: not ready, stalled, and nothing else about the course of things.
fn stall(
    status: &mut InferenceEngineStatus,
    before: &InferenceEngineStatus,
    reason: Reason,
    message: &str,
    now: &str,
) {
    use ConditionType::{Ready, Reconciling, Stalled};
    status
        .conditions
        .retain(|one| !matches!(one.kind, Ready | Reconciling | Stalled));
    for (kind, holds) in [
        (Ready, ConditionStatus::False),
        (Stalled, ConditionStatus::True),
    ] {
        let old = before
            .conditions
            .iter()
            .find(|old| old.kind == kind && old.status == holds);
        status.conditions.push(Condition {
            kind,
            status: holds,
            observed_generation: status.observed_generation,
            last_transition_time: old
                .map_or(now, |old| old.last_transition_time.as_str())
                .to_owned(),
            reason,
            message: message.to_owned(),
        });
    }
    status.conditions.sort_by_key(|one| one.kind);
}

fn memory(view: &View<'_>) -> Option<MemoryStatus> {
    let revision = view.engine.revision();
    let fit = view.fit(&revision, view.stored(&revision)?)?;
    let need = fit
        .served()
        .or_else(|| fit.candidates.first())?
        .need
        .clone()?;
    let fallback = fit
        .fallback
        .as_ref()
        .map_or(0, |fallback| fallback.resident.bytes.0);
    Some(MemoryStatus {
        total_bytes: fit.budget.total.0,
        available_bytes: fit.budget.left.0,
        weights_bytes: need.weights.bytes.0,
        kv_cache_bytes: need.kv_cache.bytes.0,
        runtime_bytes: need.runtime.bytes.0 + need.activations.bytes.0,
        fallback_bytes: fallback,
        required_bytes: need.total.0.saturating_add(fallback),
    })
}

/// One node serves, so all counts are 0 or 1.
fn nodes(view: &View<'_>, plan: &Plan) -> NodesStatus {
    let count = |holds: bool| u32::from(holds);
    let selected = view.node.is_some();
    NodesStatus {
        selected: count(selected),
        matched: count(selected && plan.status.is_true(ConditionType::HardwareMatched)),
        ready: count(plan.status.is_true(ConditionType::Ready)),
        failed: count(
            plan.status
                .failed
                .iter()
                .any(|one| one.revision == plan.status.desired && one.quarantined),
        ),
        unreachable: count(view.node.is_some_and(|node| !node.reachable)),
    }
}

/// What to write, if it differs from what is there.
pub fn to_write(next: &InferenceEngineStatus, written: Option<&Value>) -> Option<Value> {
    let next = serde_json::to_value(next).ok()?;
    (written != Some(&next)).then_some(next)
}
