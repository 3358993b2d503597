//! I5 and I6: quarantine and counting.

use super::{Laws, page};
use crate::planner::*;

impl Laws {
    pub(super) fn i5_quarantine(&self, observed: &Observed, plan: &Plan, now: u64) {
        for action in &plan.actions {
            let (Action::StartEngine { revision, .. } | Action::Begin { revision, .. }) = action
            else {
                continue;
            };
            let Some(page) = page(observed, &plan.durable, revision) else {
                continue;
            };
            let policy = &observed.desired.policy;
            let crashed_at = self.crashed_at.get(revision).filter(|_| page.crashes > 0);
            if let Some(crashed_at) = crashed_at {
                let until = Timestamp(*crashed_at) + policy.restart.after(page.crashes);
                let start = matches!(action, Action::StartEngine { .. });
                assert!(
                    !start || Timestamp(now) >= until,
                    "I5: {revision} restarts at once"
                );
            }
            if page.attempts == 0 {
                continue;
            }
            assert!(
                page.attempts <= policy.retry_limit,
                "I5: {revision} is exhausted: {action:?}"
            );
            let failed_at = self.failed_at.get(revision).copied().unwrap_or(0);
            let until = Timestamp(failed_at) + policy.backoff.after(page.attempts);
            assert!(
                Timestamp(now) >= until,
                "I5: {revision} backs off: {action:?}"
            );
        }
    }

    /// A revision is held to be what cuts its starts off only when they were cut off.
    pub(super) fn i6_interrupted(&mut self, observed: &Observed, plan: &Plan) {
        let policy = &observed.desired.policy;
        for entry in &plan.durable.ledger {
            let attempts =
                |durable| page(observed, durable, &entry.revision).map_or(0, |p| p.attempts);
            let interrupted = entry.failure.as_ref().map(|failure| failure.reason);
            if attempts(&plan.durable) <= attempts(&observed.durable)
                || interrupted != Some(Reason::StartInterrupted)
            {
                continue;
            }
            let open = self.open_starts.values();
            let open = open.filter(|revision| **revision == entry.revision).count();
            let enough = open >= usize::try_from(policy.start_limit).unwrap_or(usize::MAX);
            assert!(enough, "I6: {} was not cut off: {open}", entry.revision);
        }
        for action in &plan.actions {
            match action {
                Action::StartEngine {
                    instance, revision, ..
                } => {
                    self.open_starts.insert(*instance, revision.clone());
                }
                Action::StopEngine { instance, .. } => {
                    self.open_starts.remove(instance);
                }
                _ => {}
            }
        }
    }

    pub(super) fn note_failures(&mut self, observed: &Observed, plan: &Plan, now: u64) {
        // After a restart of the shell the wait may be cut short.
        let known = |id: &RevisionId, _: &mut u64| plan.memory.crashed_at.contains_key(id);
        self.crashed_at.retain(known);
        for entry in &plan.durable.ledger {
            let attempts =
                |durable| page(observed, durable, &entry.revision).map_or(0, |p| p.attempts);
            if attempts(&plan.durable) > attempts(&observed.durable) {
                self.failed_at.insert(entry.revision.clone(), now);
            }
            let crashes =
                |durable| page(observed, durable, &entry.revision).map_or(0, |p| p.crashes);
            if attempts(&plan.durable) > attempts(&observed.durable) {
                let active = plan.durable.active.as_ref() == Some(&entry.revision);
                assert!(!active, "I3: {} failed and stays active", entry.revision);
            }
            if crashes(&plan.durable) > crashes(&observed.durable) {
                self.crashed_at.insert(entry.revision.clone(), now);
            }
        }
    }
}

pub(super) fn i6_counting(observed: &Observed, plan: &Plan, now: u64) {
    let policy = &observed.desired.policy;
    for entry in &plan.durable.ledger {
        let Some(page) = page(observed, &plan.durable, &entry.revision) else {
            continue;
        };
        assert!(
            page.attempts <= policy.retry_limit + 1,
            "I6: attempts {page:?}"
        );
        assert!(page.crashes < policy.crash_limit, "I6: crashes {page:?}");
        assert!(page.starts <= policy.start_limit, "I6: starts {page:?}");
        let Some(old) = self::page(observed, &observed.durable, &entry.revision) else {
            continue;
        };
        if page.attempts < old.attempts {
            assert!(
                earned_forgiveness(observed, &entry.revision, now),
                "I6: forgiven {old:?}"
            );
        }
    }
    for one in &observed.engines {
        if observed.durable.settled.contains(&one.id) || !has_failed(observed, one) {
            continue;
        }
        if observed.desired.lifecycle != Lifecycle::Run {
            continue;
        }
        assert!(
            plan.durable.settled.contains(&one.id),
            "I6: {} is not judged",
            one.id
        );
        let old = page(observed, &observed.durable, &one.revision);
        let new = page(observed, &plan.durable, &one.revision);
        let count =
            |page: Option<&Ledger>| page.map_or((0, 0), |page| (page.attempts, page.crashes));
        let failed = observed
            .engines
            .iter()
            .filter(|o| o.revision == one.revision);
        let failed = failed.filter(|o| has_failed(observed, o)).count();
        assert!(
            failed > 1 || count(new) > count(old),
            "I6: {} is not counted",
            one.id
        );
        let stopped = plan.actions.iter().any(
            |action| matches!(action, Action::StopEngine { instance, .. } if *instance == one.id),
        );
        assert!(stopped, "I6: {} failed and is not stopped", one.id);
    }
}

/// Whether the world itself gave this engine a verdict.
fn has_failed(observed: &Observed, one: &Instance) -> bool {
    let policy = &observed.desired.policy;
    let desired = one.revision == observed.desired.revision;
    match &one.phase {
        Phase::Exited { .. } => true,
        Phase::Ready => {
            let proof = match &one.proof {
                Proof::Done {
                    smoke, objectives, ..
                } => {
                    matches!(smoke, Verdict::Bad(_))
                        || (desired && matches!(objectives, Verdict::Bad(_)))
                }
                _ => false,
            };
            let dead = |health: Health| health.consecutive_failures >= policy.failure_threshold;
            proof || one.health.is_some_and(dead)
        }
        _ => false,
    }
}

fn earned_forgiveness(observed: &Observed, revision: &RevisionId, now: u64) -> bool {
    let primary = observed.routed.and_then(|route| route.primary);
    observed.engines.iter().any(|one| {
        let until = one
            .serving_since
            .map(|s| s + observed.desired.policy.forgive_after);
        Some(one.id) == primary
            && one.revision == *revision
            && until.is_some_and(|until| Timestamp(now) >= until)
    })
}
