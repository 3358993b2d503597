//! Attempts, crashes and quarantine: what is held against a revision, and until when.
//!
//! One page per revision, in force for one generation and retry token. Counters only grow on a
//! page, but for [`forgive`], so attempts are bounded. It decides nothing about what runs instead.

use super::context::Context;
use super::types::{Durable, DurableFailure, Failure, InstanceId, RevisionId, Timestamp};

/// Whether a revision may be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Yes.
    Clear,
    /// Not before its backoff is over.
    BackingOff,
    /// Not before spec or retry token change.
    Exhausted,
}

pub(super) fn standing(ctx: &mut Context<'_>, revision: &RevisionId) -> Standing {
    let Some(page) = ctx.page(revision) else {
        return Standing::Clear;
    };
    let attempts = page.attempts;
    if attempts == 0 {
        return Standing::Clear;
    }
    if attempts > ctx.policy().retry_limit {
        return Standing::Exhausted;
    }
    let until = failed_at(ctx, revision) + ctx.policy().backoff.after(attempts);
    if ctx.reached(until) {
        Standing::Clear
    } else {
        Standing::BackingOff
    }
}

fn failed_at(ctx: &Context<'_>, revision: &RevisionId) -> Timestamp {
    let known = ctx.memory.failed_at.get(revision);
    known.copied().unwrap_or(ctx.now)
}

/// After a restart of the shell nobody knows how long ago an attempt failed: its backoff begins
/// anew, which is late but never early.
pub(super) fn restore_backoffs(ctx: &mut Context<'_>) {
    for entry in &ctx.observed.durable.ledger {
        if entry.attempts > 0 {
            let failed_at = &mut ctx.memory.failed_at;
            failed_at.entry(entry.revision.clone()).or_insert(ctx.now);
        }
    }
}

/// An attempt has failed: quarantine, and no longer what is active.
pub(super) fn fail_attempt(
    ctx: &mut Context<'_>,
    revision: &RevisionId,
    instance: Option<InstanceId>,
    failure: &Failure,
) {
    let page = ctx.page_mut(revision);
    page.attempts = page.attempts.saturating_add(1);
    page.crashes = 0;
    page.starts = 0;
    page.failure = Some(DurableFailure::from(failure));
    ctx.memory.failed_at.insert(revision.clone(), ctx.now);
    ctx.memory.crashed_at.remove(revision);
    ctx.durable.settled.extend(instance);
    if ctx.durable.active.as_ref() == Some(revision) {
        ctx.durable.active = None;
    }
}

/// The process of a promoted engine ended. Returns how often it now has.
pub(super) fn crash(
    ctx: &mut Context<'_>,
    revision: &RevisionId,
    instance: InstanceId,
    failure: &Failure,
) -> u32 {
    let page = ctx.page_mut(revision);
    page.crashes = page.crashes.saturating_add(1);
    page.starts = 0;
    page.failure = Some(DurableFailure::from(failure));
    let crashes = page.crashes;
    ctx.memory.crashed_at.insert(revision.clone(), ctx.now);
    ctx.durable.settled.push(instance);
    crashes
}

/// A start is about to be ordered.
pub(super) fn count_start(ctx: &mut Context<'_>, revision: &RevisionId) -> u32 {
    let page = ctx.page_mut(revision);
    page.starts = page.starts.saturating_add(1);
    page.attempts.saturating_add(1)
}

/// The start led somewhere: to a proof, or to an end that we ordered ourselves.
pub(super) fn conclude_start(ctx: &mut Context<'_>, revision: &RevisionId) {
    if ctx.page(revision).is_some_and(|page| page.starts > 0) {
        ctx.page_mut(revision).starts = 0;
    }
}

/// Long healthy service: the page is as good as new.
pub(super) fn forgive(ctx: &mut Context<'_>, revision: &RevisionId) {
    let page = ctx.page_mut(revision);
    page.attempts = 0;
    page.crashes = 0;
    ctx.memory.failed_at.remove(revision);
    ctx.memory.crashed_at.remove(revision);
}

/// Whether there is anything to forgive.
pub(super) fn has_marks(ctx: &Context<'_>, revision: &RevisionId) -> bool {
    let page = ctx.page(revision);
    page.is_some_and(|page| page.attempts > 0 || page.crashes > 0)
}

/// Keeps ledger and memory small: the oldest entries that no longer matter go.
pub(super) fn trim(ctx: &mut Context<'_>) {
    let desired = ctx.desired().clone();
    let durable = &mut ctx.durable;
    while durable.ledger.len() > Durable::LEDGER_LIMIT {
        let matters = |id: &RevisionId| {
            *id == desired
                || Some(id) == durable.last_good.as_ref()
                || Some(id) == durable.active.as_ref()
        };
        let oldest = durable.ledger.iter().position(|e| !matters(&e.revision));
        durable.ledger.remove(oldest.unwrap_or(0));
    }
    let present = |id: &InstanceId| ctx.observed.engines.iter().any(|one| one.id == *id);
    durable.settled.retain(present);

    let in_ledger = |id: &RevisionId| durable.ledger.iter().any(|entry| entry.revision == *id);
    ctx.memory.failed_at.retain(|id, _| in_ledger(id));
    ctx.memory.crashed_at.retain(|id, _| in_ledger(id));
    let stored = |id: &RevisionId| ctx.observed.revisions.iter().any(|one| one.id == *id);
    ctx.memory.begun.retain(|(id, _)| stored(id));
}
