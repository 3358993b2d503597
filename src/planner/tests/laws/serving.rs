//! I1, I2, I7 and I8: what serves.

use super::super::world::World;
use super::{Laws, room_of};
use crate::planner::*;

impl Laws {
    pub(super) fn i7_last_good(&mut self, observed: &Observed, plan: &Plan, now: u64) {
        if plan.durable.last_good == observed.durable.last_good {
            return;
        }
        let desired = &observed.desired;
        assert_eq!(
            plan.durable.last_good.as_ref(),
            Some(&desired.revision),
            "I7"
        );
        let (id, since) = self.serving.expect("I7: nothing serves");
        let one = observed
            .engines
            .iter()
            .find(|one| one.id == id)
            .expect("I7");
        assert_eq!(one.revision, desired.revision, "I7: something else serves");
        assert!(self.measured.contains(&id), "I7: not measured");
        let until = Timestamp(since) + desired.policy.soak;
        assert!(Timestamp(now) >= until, "I7: not soaked");
        let health = one.health.unwrap_or_default();
        assert_eq!(health.consecutive_failures, 0, "I7: failing");
        let after = health.last_success.is_some_and(|last| last >= until);
        assert!(
            after || desired.policy.soak.is_zero(),
            "I7: no good generation after the soak"
        );
    }

    pub(super) fn i7_only_proven_engines_serve(&mut self, observed: &Observed, plan: &Plan) {
        for action in &plan.actions {
            let Action::Route(Route {
                primary: Some(id), ..
            }) = action
            else {
                continue;
            };
            assert!(self.proven.contains(id), "{id} is not proven");
            let one = observed
                .engines
                .iter()
                .find(|one| one.id == *id)
                .expect("it is there");
            assert_eq!(one.phase, Phase::Ready, "{id} is not ready");
            self.promotions.push(one.revision.clone());
        }
    }
}

pub(super) fn i1_verified(observed: &Observed, plan: &Plan) {
    for action in &plan.actions {
        let Action::StartEngine { revision, .. } = action else {
            continue;
        };
        let known = observed.revisions.iter().find(|one| one.id == *revision);
        let artefact = &known.expect("I1: nothing is known of it").artefact;
        assert_eq!(artefact.model, Step::Done, "I1: {revision} is not here");
        assert_eq!(
            artefact.verify,
            Step::Done,
            "I1: {revision} is not verified"
        );
    }
}

/// Requests leave a healthy engine only for something that answers, where anything can.
pub(super) fn i2_never_dark(observed: &Observed, plan: &Plan) {
    let policy = &observed.desired.policy;
    let (Some(fallback), Some(_)) = (policy.fallback, &observed.node) else {
        return;
    };
    let serves = observed.routed.and_then(|route| route.primary);
    let healthy = observed.engines.iter().any(|one| {
        Some(one.id) == serves
            && one.phase == Phase::Ready
            && !plan.durable.settled.contains(&one.id)
    });
    let engines = observed.engines.iter();
    let running = engines.filter(|one| !matches!(one.phase, Phase::Exited { .. }));
    let taken: u64 = running.map(|one| one.memory_bytes).sum();
    let can_answer = taken + fallback.memory_bytes <= room_of(observed);
    for action in &plan.actions {
        if let Action::Route(route) = action
            && healthy
            && route.primary.is_none()
        {
            let answers = route.fallback && matches!(observed.fallback, Service::Ready { .. });
            assert!(answers || !can_answer, "I2: dark by {route:?}");
        }
    }
}

pub(super) fn i2_last_good_and_fallback(world: &World, observed: &Observed, plan: &Plan) {
    let before = &observed.durable.last_good;
    assert!(
        before.is_none() || plan.durable.last_good.is_some(),
        "I2: last good given up"
    );
    let down = observed.desired.lifecycle != Lifecycle::Run;
    let fallback = observed.desired.policy.fallback;
    for action in &plan.actions {
        match action {
            Action::CollectGarbage { keep } => {
                let needed = [&plan.durable.last_good, &plan.durable.active];
                let needed = needed.into_iter().flatten();
                let running = observed.engines.iter().map(|one| &one.revision);
                for id in needed.chain(running).chain([&observed.desired.revision]) {
                    assert!(keep.contains(id), "I2, I4: {id} is collected");
                }
            }
            Action::StopFallback | Action::StopGateway => {
                let unwanted = *action == Action::StopFallback && fallback.is_none();
                assert!(down || unwanted, "I2: {action:?} while it is wanted");
            }
            Action::ParkFallback => {
                let reached = observed.routed.is_some_and(|route| route.fallback);
                let gateway = matches!(observed.gateway, Service::Ready { .. });
                assert!(!reached || !gateway, "I2: parked while requests reach it");
                let fallback = fallback.expect("I2: no fallback to park");
                let tight = observed.revisions.iter().any(|one| match one.fit {
                    Fit::Fits { memory_bytes, .. } => {
                        memory_bytes + fallback.memory_bytes > room_of(observed)
                    }
                    _ => false,
                });
                let cold = fallback.residency == Residency::Cold;
                assert!(tight || cold, "I2: parked for nothing");
            }
            Action::StopEngine { instance, .. } if !down => {
                may_stop(world, observed, plan, *instance);
            }
            _ => {}
        }
    }
}

fn may_stop(world: &World, observed: &Observed, plan: &Plan, id: InstanceId) {
    let Some(route) = observed.routed.filter(|route| route.primary == Some(id)) else {
        return;
    };
    let healthy = observed
        .engines
        .iter()
        .any(|one| one.id == id && one.phase == Phase::Ready);
    if !healthy || plan.durable.settled.contains(&id) || world.node.is_none() {
        return;
    }
    panic!("I2: {id} serves ({route:?}) and is stopped");
}

pub(super) fn i8_ready(world: &World, observed: &Observed, plan: &Plan) {
    let serving = observed.routed.and_then(|route| route.primary);
    let serving = serving.and_then(|id| observed.engines.iter().find(|one| one.id == id));
    if plan.status.is_true(ConditionType::Ready) {
        assert!(
            matches!(world.gateway, Service::Ready { .. }),
            "I8: no gateway"
        );
        let one = serving.expect("I8: nothing serves");
        assert_eq!(one.phase, Phase::Ready, "I8: dead");
        assert_eq!(
            one.revision, observed.desired.revision,
            "I8: something else serves"
        );
        assert_eq!(
            plan.durable.last_good.as_ref(),
            Some(&one.revision),
            "I8: on trial"
        );
    }
    let answers = match plan.status.active_backend {
        ActiveBackend::None => return,
        ActiveBackend::Ollama => matches!(world.fallback, Service::Ready { .. }),
        _ => serving.is_some_and(|one| one.phase == Phase::Ready),
    };
    assert!(
        answers,
        "I8: {:?} does not answer",
        plan.status.active_backend
    );
}
