//! The gateway and the fallback: up before everything else, started again when they fail, and the
//! fallback parked where the engine needs its memory.

use std::time::Duration;

use super::context::Context;
use super::engines::Stage;
use super::goal::DesiredState;
use super::room::{self, Need};
use super::types::{Action, Residency, Service, Timestamp};

/// Uninterrupted readiness after which a service's failures are forgotten.
const STABLE: Duration = Duration::from_mins(1);

/// What the fallback shall be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The user wants none.
    Unwanted,
    /// It answers, or is about to.
    Up,
    /// It makes room for the engine.
    Parked,
}

pub(super) fn gateway(ctx: &mut Context<'_>) {
    if due(ctx, "gateway", &ctx.observed.gateway) {
        ctx.act(Action::EnsureGateway);
    }
}

/// Decides the fallback's role from what the engine is up to.
pub(super) fn role(ctx: &Context<'_>, stage: &Stage<'_>, desired: &DesiredState) -> Role {
    let Some(fallback) = ctx.policy().fallback else {
        return Role::Unwanted;
    };
    if !fallback.managed {
        return Role::Up;
    }
    let (need, live) = match stage {
        Stage::Live(one) => {
            let need = Need {
                memory_bytes: one.memory_bytes,
                exclusive: one.exclusive,
            };
            (need, Some(*one))
        }
        Stage::Start(need) | Stage::Restart(need) => (*need, None),
        Stage::None | Stage::Ending => return Role::Up,
    };
    if !room::fits_with_fallback(ctx, need) {
        let up = matches!(
            ctx.observed.fallback,
            Service::Starting { .. } | Service::Ready { .. }
        );
        let stays = match live {
            // They fitted when it was started: others have taken memory since, or it was loaded by
            // a request. What runs stays.
            Some(_) => up,
            // It stands in for the engine that serves until that one has made room.
            None => ctx.incumbent().is_some(),
        };
        return if stays { Role::Up } else { Role::Parked };
    }
    let serves = live.is_some_and(|one| ctx.primary() == Some(one.id));
    // It has to answer when the engine makes room for a build.
    let needed = *desired == DesiredState::NeedsRoom;
    if fallback.residency == Residency::Cold && serves && !needed {
        return Role::Parked;
    }
    Role::Up
}

pub(super) fn fallback(ctx: &mut Context<'_>, role: Role) {
    let state = &ctx.observed.fallback;
    match role {
        Role::Unwanted => {
            if !matches!(
                state,
                Service::Absent | Service::Unknown | Service::Stopping
            ) {
                ctx.act(Action::StopFallback);
            }
        }
        Role::Up => raise(ctx),
        Role::Parked => {
            let holds = matches!(state, Service::Ready { .. } | Service::Starting { .. });
            // A request that still reached it would load it again.
            let quiet = !ctx.observed.routed.is_some_and(|route| route.fallback);
            let deaf = !matches!(ctx.observed.gateway, Service::Ready { .. });
            if holds && (quiet || deaf) {
                ctx.act(Action::ParkFallback);
            }
        }
    }
}

fn raise(ctx: &mut Context<'_>) {
    let managed = ctx.policy().fallback.is_some_and(|one| one.managed);
    if managed && may_raise(ctx) && due(ctx, "fallback", &ctx.observed.fallback) {
        ctx.act(Action::EnsureFallback);
    }
}

/// Whether the fallback's memory is free. Alone it is always let in: it knows better than our
/// estimate how much of its model it can load.
pub(super) fn may_raise(ctx: &Context<'_>) -> bool {
    let taken = room::engines_and_builds(ctx).memory_bytes;
    let sum = taken.checked_add(room::fallback_bytes(ctx));
    taken == 0 || sum.is_some_and(|sum| sum <= room::node_bytes(ctx))
}

/// Whether a service has to be started now.
fn due(ctx: &mut Context<'_>, name: &str, service: &Service) -> bool {
    match service {
        Service::Unknown | Service::Starting { .. } | Service::Stopping => false,
        Service::Absent | Service::Parked => true,
        Service::Ready { since } => {
            forget_failures(ctx, name, *since);
            false
        }
        Service::Failed { at, .. } => {
            let retries = ctx.retries(name).saturating_add(1);
            if !ctx.reached(*at + ctx.policy().restart.after(retries)) {
                return false;
            }
            ctx.memory.retries.insert(name.to_owned(), retries);
            true
        }
    }
}

fn forget_failures(ctx: &mut Context<'_>, name: &str, since: Timestamp) {
    if ctx.retries(name) > 0 && ctx.reached(since + STABLE) {
        ctx.memory.retries.remove(name);
    }
}
