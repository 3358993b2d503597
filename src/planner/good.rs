//! What good service earns: the title of last good revision, and that starts, crashes and failed
//! attempts are forgotten.

use super::context::Context;
use super::ledger;
use super::types::{Health, Instance, Phase, Proof, Timestamp, Verdict};

pub(super) fn reward(ctx: &mut Context<'_>) {
    let Some(primary) = ctx.primary().and_then(|id| ctx.instance(id)) else {
        return;
    };
    if primary.phase != Phase::Ready || !ctx.is_live(primary) {
        return;
    }
    soak(ctx, primary);
    survive(ctx, primary);
    forgive(ctx, primary);
}

/// A start that has served its soak time well was not cut off.
fn survive(ctx: &mut Context<'_>, one: &Instance) {
    let open = ctx.page(&one.revision).is_some_and(|page| page.starts > 0);
    let Some(since) = one.serving_since.filter(|_| open) else {
        return;
    };
    let until = since + ctx.policy().soak;
    if ctx.reached(until) && one.health.is_some_and(|health| good_at(health, until)) {
        ledger::conclude_start(ctx, &one.revision);
    }
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
    let good = match one.health {
        // Without a soak time the proof alone is trusted, unless a probe says otherwise already.
        Some(health) if soak.is_zero() => is_unmarked(health),
        Some(health) => good_at(health, since + soak),
        None => soak.is_zero(),
    };
    if good {
        ctx.durable.last_good = Some(one.revision.clone());
        ledger::conclude_start(ctx, &one.revision);
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

/// Whether no probe has failed since the last good one, which was made at `time` or later.
fn good_at(health: Health, time: Timestamp) -> bool {
    is_unmarked(health) && health.last_success.is_some_and(|last| last >= time)
}

const fn is_unmarked(health: Health) -> bool {
    health.consecutive_failures == 0 && health.consecutive_slow == 0
}
