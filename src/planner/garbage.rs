//! What may be deleted: everything stored for revisions that nothing refers to any more. Never the
//! desired, active or last good revision, nor one that runs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::context::Context;
use super::types::{Action, Garbage, RevisionId};

/// Wait after a collection that failed.
const RETRY: Duration = Duration::from_hours(1);

pub(super) fn collect(ctx: &mut Context<'_>) {
    let keep: BTreeSet<RevisionId> = [
        Some(ctx.desired().clone()),
        ctx.durable.active.clone(),
        ctx.durable.last_good.clone(),
    ]
    .into_iter()
    .flatten()
    .chain(ctx.observed.engines.iter().map(|one| one.revision.clone()))
    .collect();
    let clean = ctx
        .observed
        .revisions
        .iter()
        .all(|one| keep.contains(&one.id));
    if clean {
        return;
    }
    let due = match ctx.observed.garbage {
        Garbage::Idle => true,
        Garbage::Running => false,
        Garbage::Failed { at } => ctx.reached(at + RETRY),
    };
    if due {
        ctx.act(Action::CollectGarbage { keep });
    }
}
