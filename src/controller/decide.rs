//! One decision: what must be remembered, and the plan. Pure; what a reconciliation does and what the
//! tests simulate is the same function.

use super::desired::collections;
use super::names;
use super::names::Component;
use super::notes::Notes;
use super::observe::{observe, outcome, present};
use super::state::{Saved, Stored};
use super::view::View;
use super::world::label;
use crate::cache::Report;
use crate::planner::{self, Action, Garbage, Plan, Timestamp};

/// What was decided.
#[derive(Clone, Debug)]
pub struct Decision {
    /// To be written before anything of the plan is done.
    pub saved: Saved,
    /// To be done.
    pub plan: Plan,
}

/// Decides. `view.saved` is what was read.
pub fn decide(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Decision {
    notes.garbage = garbage(view, notes.garbage, now);
    let mut saved = remember(view);
    let known = View {
        saved: &saved,
        ..*view
    };
    let observed = observe(&known, notes, now);
    let plan = planner::plan(&observed, now);
    notes.memory = plan.memory.clone();
    if notes.due.is_some_and(|due| now >= due) {
        notes.passed = notes.due;
    }
    notes.due = plan.wake_at;
    saved.durable = plan.durable.clone();
    for action in &plan.actions {
        match action {
            // First they are forgotten, then they are deleted.
            Action::CollectGarbage { keep } => {
                saved.revisions.retain(|id, _| keep.contains(id));
                notes.garbage = Garbage::Running;
            }
            Action::EnsureFallback => notes.fallback_ordered = true,
            Action::StopFallback | Action::ParkFallback => notes.fallback_ordered = false,
            _ => {}
        }
    }
    if view.lifecycle() != planner::Lifecycle::Run {
        notes.fallback_ordered = false;
    }
    Decision { saved, plan }
}

/// What fetches have brought since, and what else must be known from now on.
fn remember(view: &View<'_>) -> Saved {
    let mut saved = view.saved.clone();
    let highest = view
        .world
        .deployments
        .iter()
        .filter_map(|one| label(&one.metadata, names::INSTANCE)?.parse::<u64>().ok())
        .max();
    if let Some(highest) = highest {
        // Also where the state was lost no number is given away twice.
        let next = &mut saved.durable.next_instance;
        *next = (*next).max(highest.saturating_add(1));
    }
    if let Some(node) = view.node {
        saved.node = Some(node.name.clone());
    }
    let revision = view.engine.revision();
    let uid = view
        .claim_name()
        .and_then(|name| view.world.claim(&name)?.metadata.uid.clone());
    let report = present(view, Component::Fetch, &revision)
        .filter(|_| view.stored(&revision).is_none())
        .and_then(|(_, job)| outcome(view, job)?.ok());
    if let (Some(claim_uid), Some(Report::Fetched { sha256, facts }), Ok(server)) =
        (uid, report, view.server())
    {
        saved.revisions.insert(
            revision.clone(),
            Stored {
                source: view.engine.model.source.to_string(),
                served: view.served(),
                server,
                sha256,
                facts,
                bundle: None,
                claim_uid,
            },
        );
    }
    let built = present(view, Component::Build, &revision)
        .filter(|_| view.stored(&revision).is_some())
        .and_then(|(_, job)| outcome(view, job)?.ok());
    if let (Some(Report::Built { bundle }), Some(stored)) =
        (built, saved.revisions.get_mut(&revision))
    {
        stored.bundle = Some(bundle);
    }
    saved
}

fn garbage(view: &View<'_>, before: Garbage, now: Timestamp) -> Garbage {
    let jobs = collections(view);
    let any = |wanted: Option<bool>| jobs.iter().any(|(_, ended)| *ended == wanted);
    match before {
        _ if any(None) => Garbage::Running,
        Garbage::Failed { at } if any(Some(false)) => Garbage::Failed { at },
        _ if any(Some(false)) => Garbage::Failed { at: now },
        Garbage::Running => Garbage::Idle,
        other if jobs.is_empty() => other,
        _ => Garbage::Idle,
    }
}
