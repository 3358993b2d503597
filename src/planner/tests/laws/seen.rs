//! What the histories reach: noted in words, so that weak generators are noticed.

use super::{Laws, page};
use crate::planner::*;

impl Laws {
    pub(super) fn see(&mut self, observed: &Observed, plan: &Plan) {
        let mut seen = |what: String| {
            if !self.seen.contains(&what) {
                self.seen.insert(what);
            }
        };
        let status = &plan.status;
        seen(format!("backend {}", status.active_backend));
        if let Some(ready) = status.condition(ConditionType::Ready) {
            seen(format!("ready {}", ready.reason));
        }
        for failed in &status.failed {
            seen(format!("failed {}", failed.reason));
        }
        for action in &plan.actions {
            match action {
                Action::ParkFallback => seen("does ParkFallback".to_owned()),
                Action::StopEngine { why, .. } => seen(format!("does StopEngine {why:?}")),
                Action::Cancel { stalled: true, .. } => seen("does Cancel stalled".to_owned()),
                Action::CollectGarbage { .. } => seen("does CollectGarbage".to_owned()),
                _ => {}
            }
        }
        let before = &observed.durable;
        if before.last_good.is_some() && before.last_good != plan.durable.last_good {
            seen("last good replaced".to_owned());
        }
        let desired = &observed.desired;
        let failed = page(observed, &plan.durable, &desired.revision);
        if failed.is_some_and(|page| page.attempts > 0)
            && status.active_backend == ActiveBackend::LastGood
        {
            seen("rolled back".to_owned());
        }
        let on_trial = |id: &RevisionId| before.last_good.as_ref() != Some(id);
        if desired.generation > before.observed_generation
            && before.active.as_ref().is_some_and(on_trial)
        {
            seen("spec changed on trial".to_owned());
        }
    }
}
