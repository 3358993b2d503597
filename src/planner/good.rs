//! What long good service earns: the title of last good revision, and forgiveness.

use super::context::Context;
use super::ledger;
use super::types::{Health, Instance, Phase, Proof, Verdict};

pub(super) fn reward(ctx: &mut Context<'_>) {
    let Some(primary) = ctx.primary().and_then(|id| ctx.instance(id)) else {
        return;
    };
    if primary.phase != Phase::Ready || !ctx.is_live(primary) {
        return;
    }
    soak(ctx, primary);
    forgive(ctx, primary);
}

/// The last good revision is the desired one that was proven (smoke and objectives, both measured)
/// and whose real generations were still good when its soak time was over.
fn soak(ctx: &mut Context<'_>, one: &Instance) {
    let candidate = one.revision == *ctx.desired()
        && ctx.durable.last_good.as_ref() != Some(&one.revision)
        && is_measured_good(one);
    if !candidate {
        return;
    }
    let Some(since) = one.serving_since else {
        return;
    };
    let soak = ctx.policy().soak;
    if !ctx.reached(since + soak) {
        return;
    }
    // Without a soak time the proof alone is trusted.
    if soak.is_zero()
        || one
            .health
            .is_some_and(|health| good_at(health, since + soak))
    {
        ctx.durable.last_good = Some(one.revision.clone());
    }
}

fn forgive(ctx: &mut Context<'_>, one: &Instance) {
    if !ledger::has_marks(ctx, &one.revision) {
        return;
    }
    let Some(since) = one.serving_since else {
        return;
    };
    let until = since + ctx.policy().forgive_after;
    if ctx.reached(until) && one.health.is_some_and(|health| good_at(health, until)) {
        ledger::forgive(ctx, &one.revision);
    }
}

fn is_measured_good(one: &Instance) -> bool {
    matches!(
        one.proof,
        Proof::Done {
            smoke: Verdict::Good,
            objectives: Verdict::Good,
            ..
        }
    )
}

fn good_at(health: Health, time: super::types::Timestamp) -> bool {
    health.consecutive_failures == 0
        && health.consecutive_slow == 0
        && health.last_success.is_some_and(|last| last >= time)
}
