//! Taking everything down: the gateway first, so that its requests end on live engines, then
//! engines and fallback. What is stored and what is known stays.

use super::artefacts;
use super::context::Context;
use super::engines;
use super::types::{Action, Phase, Service, Step, StopReason};

/// Orders the next steps; says whether nothing of ours runs any more.
pub(super) fn teardown(ctx: &mut Context<'_>) -> bool {
    artefacts::cancel_unwanted(ctx, |_| false);
    match ctx.observed.gateway {
        Service::Absent | Service::Failed { .. } => {}
        Service::Unknown | Service::Stopping => return false,
        Service::Parked | Service::Starting { .. } | Service::Ready { .. } => {
            ctx.act(Action::StopGateway);
            return false;
        }
    }
    for one in &ctx.observed.engines {
        if one.phase != Phase::Stopping {
            let why = if matches!(one.phase, Phase::Exited { .. }) {
                StopReason::Failed
            } else {
                StopReason::Removed
            };
            engines::stop(ctx, one, why);
        }
    }
    let fallback_gone = fallback_gone(ctx);
    let idle = ctx.observed.revisions.iter().all(|revision| {
        let steps = artefacts::steps(revision);
        steps
            .iter()
            .all(|(_, step)| !matches!(step, Step::Running { .. }))
    });
    ctx.observed.engines.is_empty() && fallback_gone && idle
}

fn fallback_gone(ctx: &mut Context<'_>) -> bool {
    if ctx.policy().fallback.is_some_and(|one| !one.managed) {
        return true;
    }
    match ctx.observed.fallback {
        Service::Absent | Service::Failed { .. } => true,
        Service::Unknown | Service::Stopping => false,
        Service::Starting { .. } | Service::Ready { .. } | Service::Parked => {
            ctx.act(Action::StopFallback);
            false
        }
    }
}
