//! What happens in the world when nobody interferes: everything in progress comes to the end that
//! its nature gives it, probes are made, time goes on.

use std::time::Duration;

use super::laws::Laws;
use super::world::{Nature, World, failure};
use crate::planner::*;

impl World {
    /// Lets one round of things in progress come to their end. Says whether anything happened.
    pub(super) fn happen(&mut self) -> bool {
        let before = self.observe();
        let pending = self.next_route;
        self.services_happen();
        self.work_happens();
        self.engines_happen();
        self.route_taken_over();
        if self.garbage == Garbage::Running {
            self.garbage = Garbage::Idle;
        }
        before != self.observe() || pending != self.next_route
    }

    pub(super) fn services_happen(&mut self) {
        let now = self.time();
        match self.gateway {
            Service::Starting { .. } => self.gateway = Service::Ready { since: now },
            Service::Stopping => self.gateway_gone(Service::Absent),
            _ => {}
        }
        match self.fallback {
            Service::Starting { .. } if self.fallback_works => {
                self.fallback = Service::Ready { since: now };
            }
            Service::Starting { .. } => {
                self.fallback = Service::Failed {
                    at: now,
                    failure: failure(Reason::FallbackUnavailable, false),
                };
            }
            Service::Stopping => self.fallback = self.fallback_ends_as.clone(),
            _ => {}
        }
    }

    pub(super) fn work_happens(&mut self) {
        let Some((id, work)) = self.running_work() else {
            return;
        };
        let failed = |reason| Step::Failed {
            at: self.time(),
            failure: failure(reason, false),
        };
        let step = match (work, self.nature(&id)) {
            (Work::FetchModel, Nature::Missing) => failed(Reason::ModelNotFound),
            (Work::Verify, Nature::Forged) => failed(Reason::ModelDigestMismatch),
            (Work::FetchBundle, _) => failed(Reason::EngineNotFound),
            _ => Step::Done,
        };
        self.set_step(&id, work, step);
    }

    pub(super) fn engines_happen(&mut self) {
        self.engines.retain(|one| one.phase != Phase::Stopping);
        let ids: Vec<InstanceId> = self.engines.iter().map(|one| one.id).collect();
        for id in ids {
            self.engine_happens(id);
        }
    }

    fn engine_happens(&mut self, id: InstanceId) {
        let at = self.time();
        let Some(one) = self.engines.iter().find(|one| one.id == id).cloned() else {
            return;
        };
        let nature = self.nature(&one.revision);
        match (&one.phase, &one.proof) {
            (Phase::Starting { .. }, _) => match nature {
                Nature::CrashesAtStart => self.exit(id),
                Nature::HangsAtStart => {}
                _ => self.with(id, |one| one.phase = Phase::Ready),
            },
            (Phase::Ready, Proof::Running { .. }) if self.stuck.contains(&id) => {}
            (Phase::Ready, Proof::Running { .. }) => {
                let (smoke, objectives) = verdicts(nature);
                self.with(id, |one| {
                    one.proof = Proof::Done {
                        at,
                        smoke,
                        objectives,
                        measured: Some(Measured::default()),
                    };
                });
            }
            (Phase::Ready, _)
                if nature == Nature::CrashesServing && one.serving_since.is_some() =>
            {
                self.exit(id);
            }
            _ => {}
        }
    }

    /// Every watched engine is probed once.
    pub(super) fn probe(&mut self) {
        let now = self.time();
        for index in 0..self.engines.len() {
            let nature = self.nature(&self.engines[index].revision.clone());
            let one = &mut self.engines[index];
            let Some(health) = one.health.as_mut().filter(|_| one.phase == Phase::Ready) else {
                continue;
            };
            if nature == Nature::DiesServing {
                health.consecutive_failures += 1;
            } else {
                health.consecutive_failures = 0;
                health.consecutive_slow = 0;
                health.last_success = Some(now);
            }
        }
    }

    /// No faults any more: the world runs until it has arrived (`Ready`, `Stalled`), or for `rounds`.
    pub(super) fn run_on(&mut self, laws: &mut Laws, rounds: u32) {
        for _ in 0..rounds {
            self.lawful_turn(laws);
            if self.happen()
                || self
                    .last
                    .as_ref()
                    .is_some_and(|plan| !plan.actions.is_empty())
            {
                continue;
            }
            let status = self.status();
            let down = self.desired.policy.fallback.is_some_and(|one| one.managed)
                && !status.is_true(ConditionType::Available);
            if status.is_true(ConditionType::Ready)
                || (status.is_true(ConditionType::Stalled) && !down)
            {
                return;
            }
            if self.last.as_ref().is_some_and(|plan| plan.removed) {
                return;
            }
            self.pass_to_next();
        }
    }

    /// Time goes on to when the planner wants to be asked, or the next probe is due.
    pub(super) fn pass_to_next(&mut self) {
        let interval = u64::try_from(self.desired.policy.probe_interval.as_millis()).unwrap_or(0);
        let watched = self.engines.iter().any(|one| one.health.is_some());
        let probe_at = watched.then_some(self.now + interval.max(1));
        let wake_at = self
            .last
            .as_ref()
            .and_then(|plan| plan.wake_at)
            .map(|at| at.0);
        let next = [probe_at, wake_at].into_iter().flatten().min();
        self.now = next.unwrap_or(self.now + 1_000).max(self.now);
        if Some(self.now) == probe_at {
            self.probe();
        }
    }

    /// Time goes on with nothing but probes happening.
    pub(super) fn idle(&mut self, laws: &mut Laws, time: Duration) {
        let until = self.time() + time;
        while self.time() < until {
            self.lawful_turn(laws);
            while self.happen() {
                self.lawful_turn(laws);
            }
            self.pass_to_next();
        }
    }

    /// A turn that is checked against the laws.
    pub(super) fn lawful_turn(&mut self, laws: &mut Laws) {
        self.checked_turn(laws, None);
    }

    pub(super) fn checked_turn(&mut self, laws: &mut Laws, acts: Option<usize>) {
        let before = self.clone();
        let (observed, plan) = self.turn(acts);
        laws.check(&before, &observed, &plan);
    }
}

fn verdicts(nature: Nature) -> (Verdict, Verdict) {
    let bad = |reason| Verdict::Bad(failure(reason, false));
    match nature {
        Nature::Mute => (bad(Reason::GenerationFailed), Verdict::Good),
        Nature::Slow => (Verdict::Good, bad(Reason::ObjectiveMissed)),
        Nature::Unmeasurable => (
            Verdict::Good,
            Verdict::Inconclusive("The device is throttled. Cool it.".to_owned()),
        ),
        _ => (Verdict::Good, Verdict::Good),
    }
}
