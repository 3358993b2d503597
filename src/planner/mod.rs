//! The planner: `plan(observed, now) -> Plan`, the next step for one engine on one node.
//!
//! It decides what runs, what is tried, promoted, rolled back and quarantined, and what is said
//! about it. It does nothing: a shell (`run` with processes, the operator with pods) observes,
//! persists [`Durable`], applies the [`Action`]s, publishes the [`Status`] and plans again when
//! something changed or at [`Plan::wake_at`].
//!
//! ```text
//!            +------------------- shell --------------------+
//!            |  observe -> plan -> persist -> act -> publish |
//!            +--^----------------------------------------+---+
//!               |  event, or wake_at                     |
//!               +----------------------------------------+
//! ```
//!
//! One plan goes through these steps, each a module that says what it decides:
//! `settle` (verdicts into the `ledger`), `goal` (which revision shall run; its `artefacts`),
//! `services` (gateway, fallback), `engines` (start, prove, replace, stop), `route`, `good` (soak),
//! `garbage`, then the report (`conditions`, `report`). `room` does the memory arithmetic,
//! `teardown` takes everything down.
//!
//! Pure: no clock, no random source, no I/O. The same observation gives the same plan.

mod artefacts;
mod conditions;
mod context;
mod engines;
mod garbage;
mod goal;
mod good;
mod ledger;
mod report;
mod resource;
mod room;
mod route;
mod services;
mod settle;
mod teardown;
pub mod types;

#[cfg(test)]
mod tests;

pub use resource::status_of;
pub use types::*;

use context::Context;
use report::View;

/// The next step: what to persist, do, remember and report for this observation at this time.
///
/// Total: it never fails and never panics, whatever the observation says.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let mut ctx = Context::new(observed, now);
    let desired = &observed.desired;
    if desired.generation < observed.durable.observed_generation {
        // An older spec than one already acted on (a stale read): it must change nothing.
        return finish(ctx, &View::Stale, false);
    }
    ctx.durable.version = SCHEMA_VERSION;
    ctx.durable.observed_generation = desired.generation;
    ctx.durable.spec_digest.clone_from(&desired.spec_digest);
    ledger::restore_backoffs(&mut ctx);
    match desired.lifecycle {
        Lifecycle::Run => run(ctx),
        Lifecycle::Suspended | Lifecycle::Remove => {
            let gone = teardown::teardown(&mut ctx);
            ledger::trim(&mut ctx);
            let removed = gone && desired.lifecycle == Lifecycle::Remove;
            finish(ctx, &View::Down { gone }, removed)
        }
    }
}

fn run(mut ctx: Context<'_>) -> Plan {
    settle::settle(&mut ctx);
    services::gateway(&mut ctx);
    let outlook = goal::choose(&mut ctx);
    let wanted = |id: &RevisionId| {
        *id == ctx.observed.desired.revision || Some(id) == ctx.observed.durable.last_good.as_ref()
    };
    artefacts::cancel_unwanted(&mut ctx, wanted);
    let stage = engines::stage(&mut ctx, outlook.goal.as_ref());
    let role = services::role(&ctx, &stage, &outlook.desired);
    services::fallback(&mut ctx, role);
    let progress = engines::drive(&mut ctx, &outlook, stage, role);
    route::route(&mut ctx, progress.primary, role);
    good::reward(&mut ctx);
    garbage::collect(&mut ctx);
    ledger::trim(&mut ctx);
    let view = View::Running { outlook, progress };
    finish(ctx, &view, false)
}

fn finish(mut ctx: Context<'_>, view: &View, removed: bool) -> Plan {
    let status = report::status(&mut ctx, view);
    let wake_at = ctx.wake_at();
    let mut actions = ctx.actions;
    actions.sort_by_key(rank);
    Plan {
        actions,
        durable: ctx.durable,
        memory: ctx.memory,
        status,
        wake_at,
        removed,
    }
}

/// Order of actions: what answers comes before what ends something.
const fn rank(action: &Action) -> u8 {
    match action {
        Action::EnsureGateway | Action::EnsureFallback => 0,
        Action::Route(_) => 1,
        Action::StopGateway
        | Action::StopFallback
        | Action::ParkFallback
        | Action::StopEngine { .. }
        | Action::Cancel { .. } => 2,
        Action::Begin { .. }
        | Action::StartEngine { .. }
        | Action::Prove { .. }
        | Action::Watch { .. }
        | Action::CollectGarbage { .. } => 3,
    }
}
