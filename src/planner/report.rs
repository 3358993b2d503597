//! The status: who answers now, which revisions there are, and what failed. Says only what was
//! observed; conditions are next door.

use super::conditions;
use super::context::Context;
use super::engines::Progress;
use super::goal::Outlook;
use super::ledger::{self, Standing};
use super::types::{
    ActiveBackend, EngineKind, FailedRevision, Instance, Measured, Phase, Proof, Service, Status,
};

/// What kind of plan is being reported.
pub(super) enum View {
    /// An older spec than one already acted on was read.
    Stale,
    /// Everything is being taken down, or is.
    Down {
        /// Nothing runs any more.
        gone: bool,
    },
    /// The usual case.
    Running {
        /// What is wanted.
        outlook: Outlook,
        /// How far it is.
        progress: Progress,
    },
}

/// Who answers requests now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Serving<'a> {
    Engine(&'a Instance),
    Fallback,
    Nobody,
}

pub(super) fn serving<'a>(ctx: &Context<'a>) -> Serving<'a> {
    if !matches!(ctx.observed.gateway, Service::Ready { .. }) {
        return Serving::Nobody;
    }
    let Some(route) = ctx.observed.routed else {
        return Serving::Nobody;
    };
    let primary = route.primary.and_then(|id| ctx.instance(id));
    if let Some(one) = primary.filter(|one| one.phase == Phase::Ready && ctx.is_live(one)) {
        return Serving::Engine(one);
    }
    // What the primary cannot answer, the fallback does, request by request.
    if route.fallback && matches!(ctx.observed.fallback, Service::Ready { .. }) {
        return Serving::Fallback;
    }
    Serving::Nobody
}

pub(super) fn status(ctx: &mut Context<'_>, view: &View) -> Status {
    let serving = serving(ctx);
    let active = match serving {
        Serving::Engine(one) => Some(one.revision.clone()),
        Serving::Fallback | Serving::Nobody => None,
    };
    let conditions = conditions::conditions(ctx, view, serving);
    Status {
        observed_generation: ctx.durable.observed_generation,
        active_backend: backend(ctx, serving),
        desired: ctx.desired().clone(),
        active,
        last_good: ctx.durable.last_good.clone(),
        failed: failed(ctx),
        measured: measured(serving),
        conditions,
    }
}

fn backend(ctx: &Context<'_>, serving: Serving<'_>) -> ActiveBackend {
    match serving {
        Serving::Nobody => ActiveBackend::None,
        Serving::Fallback => ActiveBackend::Ollama,
        Serving::Engine(one) => {
            let desired = one.revision == *ctx.desired();
            if !desired && ctx.durable.last_good.as_ref() == Some(&one.revision) {
                return ActiveBackend::LastGood;
            }
            match ctx.revision(&one.revision).map(|revision| revision.kind) {
                Some(EngineKind::TensorRt) => ActiveBackend::TensorRT,
                Some(EngineKind::Image) => ActiveBackend::Image,
                Some(EngineKind::Cpu) | None => ActiveBackend::Cpu,
            }
        }
    }
}

fn failed(ctx: &mut Context<'_>) -> Vec<FailedRevision> {
    let entries = ctx.durable.ledger.clone();
    let mut failed = Vec::new();
    for entry in entries {
        let Some(failure) = entry.failure else {
            continue;
        };
        let attempts = ctx.page(&entry.revision).map_or(0, |page| page.attempts);
        failed.push(FailedRevision {
            quarantined: ledger::standing(ctx, &entry.revision) != Standing::Clear,
            revision: entry.revision,
            reason: failure.reason,
            message: failure.message,
            exit_code: failure.exit_code,
            attempts,
        });
    }
    failed
}

fn measured(serving: Serving<'_>) -> Option<Measured> {
    match serving {
        Serving::Engine(one) => match &one.proof {
            Proof::Done { measured, .. } => *measured,
            Proof::None | Proof::Running { .. } => None,
        },
        Serving::Fallback | Serving::Nobody => None,
    }
}
