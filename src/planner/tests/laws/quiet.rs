//! I9, I12 and I13: what is reported, what is taken down, and that nothing happens without cause.

use std::collections::BTreeSet;

use super::super::world::World;
use super::Laws;
use crate::planner::*;

impl Laws {
    pub(super) fn i9_report(&mut self, world: &World, plan: &Plan) {
        let status = &plan.status;
        assert!(
            status.observed_generation >= self.generation,
            "I9: generation went back"
        );
        assert!(
            plan.durable.observed_generation == status.observed_generation,
            "I9"
        );
        self.generation = status.observed_generation;
        let current = status.observed_generation == world.desired.generation;
        let ready = status
            .condition(ConditionType::Ready)
            .expect("I9: no Ready");
        let reconciling = status.condition(ConditionType::Reconciling);
        let stalled = status.condition(ConditionType::Stalled);
        assert!(
            reconciling.is_none() || stalled.is_none(),
            "I9: Reconciling and Stalled"
        );
        if ready.status == ConditionStatus::True {
            assert!(current, "I9: Ready for an older generation");
            assert!(
                reconciling.is_none() && stalled.is_none(),
                "I9: Ready and not"
            );
            assert!(
                !status.is_true(ConditionType::FallbackActive),
                "I9: Ready on the fallback"
            );
            assert!(
                status.is_true(ConditionType::Available),
                "I9: Ready and not available"
            );
        }
        for condition in &status.conditions {
            assert_eq!(
                condition.observed_generation, status.observed_generation,
                "I9"
            );
            assert!(
                condition.message.ends_with('.'),
                "I9: {}",
                condition.message
            );
        }
        let kinds: BTreeSet<_> = status.conditions.iter().map(|one| one.kind).collect();
        assert_eq!(
            kinds.len(),
            status.conditions.len(),
            "I9: a condition twice"
        );
        assert!(
            plan.durable.ledger.len() <= Durable::LEDGER_LIMIT,
            "I9: ledger grows"
        );
    }
}

pub(super) fn i12_taken_down(observed: &Observed, plan: &Plan) {
    let quiet = |service: &Service| matches!(service, Service::Absent | Service::Failed { .. });
    let gateway = quiet(&observed.gateway);
    if observed.desired.lifecycle == Lifecycle::Run {
        assert!(!plan.removed, "I12: removed while it runs");
        return;
    }
    for action in &plan.actions {
        let stops = matches!(action, Action::StopEngine { .. } | Action::StopFallback);
        let allowed = matches!(action, Action::StopGateway | Action::Cancel { .. });
        assert!(allowed || (stops && gateway), "I12: {action:?}");
    }
    let ours = observed
        .desired
        .policy
        .fallback
        .is_none_or(|one| one.managed);
    if plan.removed {
        assert!(gateway && observed.engines.is_empty(), "I12: not gone");
        assert!(
            !ours || quiet(&observed.fallback),
            "I12: the fallback is not gone"
        );
    }
}

/// Nothing that failed is tried again without a wait.
pub(super) fn i13_waits(world: &World, observed: &Observed, plan: &Plan) {
    let policy = &observed.desired.policy;
    let waited = |at: Timestamp, backoff: Backoff| world.time() >= at + backoff.initial;
    for action in &plan.actions {
        let failed = match action {
            Action::EnsureGateway => &observed.gateway,
            Action::EnsureFallback => &observed.fallback,
            _ => continue,
        };
        if let Service::Failed { at, .. } = failed {
            assert!(
                waited(*at, policy.restart),
                "I13: {action:?} without a wait"
            );
        }
    }
    for action in &plan.actions {
        let Action::Begin { revision, work } = action else {
            continue;
        };
        let mut known = observed.revisions.iter().filter(|one| one.id == *revision);
        let artefact = known.next().map(|one| &one.artefact);
        let step = artefact.map(|artefact| match work {
            Work::FetchModel => &artefact.model,
            Work::FetchBundle => &artefact.bundle,
            Work::BuildBundle => &artefact.build,
            Work::Verify => &artefact.verify,
        });
        if let Some(Step::Failed { at, failure }) = step
            && failure.transient
        {
            assert!(
                waited(*at, policy.backoff),
                "I13: {action:?} without a wait"
            );
        }
    }
}

/// Nothing is ordered twice, and nothing changes by itself before `wake_at`.
pub(super) fn i13_fixpoint(world: &World, observed: &Observed, plan: &Plan) {
    let mut after = world.clone();
    after.turn(None);
    let again = crate::planner::plan(&after.observe(), after.time());
    for action in &plan.actions {
        let quiet = matches!(action, Action::Route(_));
        assert!(
            quiet || !again.actions.contains(action),
            "I13: again {action:?}"
        );
    }
    let mut kept = observed.clone();
    kept.durable = plan.durable.clone();
    kept.memory = plan.memory.clone();
    let now = crate::planner::plan(&kept, world.time());
    let horizon = now
        .wake_at
        .map_or(world.now + 400 * 24 * 3_600_000, |at| at.0 - 1);
    for time in [world.now + (horizon - world.now) / 2, horizon] {
        let later = crate::planner::plan(&kept, Timestamp(time));
        assert_eq!(later.actions, now.actions, "I13: acts before wake_at");
        assert_eq!(later.durable, now.durable, "I13: changes before wake_at");
        assert_eq!(later.status, now.status, "I13: reports before wake_at");
    }
}
