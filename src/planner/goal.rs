//! Which revision shall run now: the desired one when it can and may, else the last good one, else
//! what serves already, else none (and the fallback answers).

use super::artefacts::{self, Preparation, mib};
use super::context::Context;
use super::ledger::{self, Standing};
use super::room;
use super::services;
use super::types::{Fit, LastGoodUse, Reason, Revision, RevisionId, Service};

/// How the desired revision stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DesiredState {
    /// It may run: it runs already, or can be started.
    Runnable,
    /// It is being fetched, built or verified.
    Preparing { reason: Reason, message: String },
    /// It can only be built when the engine that runs makes room.
    NeedsRoom,
    /// It cannot run here until something outside changes.
    Refused { reason: Reason, message: String },
    /// It failed, and waits for its next attempt.
    BackingOff,
    /// It failed too often.
    Exhausted,
}

/// What is wanted, and what shall be done about it now.
#[derive(Clone, Debug)]
pub(super) struct Outlook {
    pub(super) desired: DesiredState,
    /// The revision whose engine shall run.
    pub(super) goal: Option<RevisionId>,
}

pub(super) fn choose(ctx: &mut Context<'_>) -> Outlook {
    let desired = desired_state(ctx);
    if ctx.observed.node.is_none() {
        return Outlook {
            desired,
            goal: None,
        };
    }
    let serving = ctx.incumbent().map(|one| one.revision.clone());
    let goal = match &desired {
        DesiredState::Runnable => Some(ctx.desired().clone()),
        // The build takes the GPU's memory; the fallback answers meanwhile, or it is not built. Who
        // wants no fallback accepts that nothing answers.
        DesiredState::NeedsRoom if stand_in(ctx) => None,
        DesiredState::Preparing { .. } | DesiredState::NeedsRoom => {
            serving.or_else(|| last_good(ctx))
        }
        DesiredState::Refused { .. } | DesiredState::BackingOff | DesiredState::Exhausted => {
            last_good(ctx).or(serving)
        }
    };
    Outlook { desired, goal }
}

/// Whether the fallback answers, or cannot beside what runs.
fn stand_in(ctx: &Context<'_>) -> bool {
    let ready = matches!(ctx.observed.fallback, Service::Ready { .. });
    ready || ctx.policy().fallback.is_none() || !services::may_raise(ctx)
}

fn desired_state(ctx: &mut Context<'_>) -> DesiredState {
    let id = ctx.desired().clone();
    if ctx.observed.node.is_none() {
        return DesiredState::Refused {
            reason: Reason::NoMatchingNode,
            message: with_remedy("No node matches spec.placement.", Reason::NoMatchingNode),
        };
    }
    // What runs stays: memory that others take meanwhile is no reason to stop it.
    if ctx.live(&id).is_some() {
        return DesiredState::Runnable;
    }
    let Some(revision) = ctx.revision(&id) else {
        return pending();
    };
    match ledger::standing(ctx, &id) {
        Standing::Clear => {}
        Standing::BackingOff => return DesiredState::BackingOff,
        Standing::Exhausted => return DesiredState::Exhausted,
    }
    if let Some((reason, message)) = refusal(ctx, revision) {
        return DesiredState::Refused { reason, message };
    }
    match artefacts::prepare(ctx, revision) {
        Preparation::Verified if room::need_of(revision).is_some() => DesiredState::Runnable,
        Preparation::Verified => pending(),
        Preparation::Working { reason, message } => DesiredState::Preparing { reason, message },
        Preparation::NeedsRoom(_) => DesiredState::NeedsRoom,
        Preparation::Refused { reason, message } => DesiredState::Refused { reason, message },
        Preparation::Failed(failure) => {
            ledger::fail_attempt(ctx, &id, None, &failure);
            match ledger::standing(ctx, &id) {
                Standing::Exhausted => DesiredState::Exhausted,
                Standing::Clear | Standing::BackingOff => DesiredState::BackingOff,
            }
        }
    }
}

fn pending() -> DesiredState {
    DesiredState::Preparing {
        reason: Reason::Pending,
        message: "The node has not been looked at yet. Nothing to do but wait.".to_owned(),
    }
}

/// Why a revision can never run on this node as it is now.
fn refusal(ctx: &Context<'_>, revision: &Revision) -> Option<(Reason, String)> {
    match &revision.fit {
        Fit::Refused { reason, message } => Some((*reason, message.clone())),
        Fit::Fits { memory_bytes, .. } if *memory_bytes > room::node_bytes(ctx) => {
            let text = format!(
                "The engine needs {} MiB, the node has {} MiB for it.",
                mib(*memory_bytes),
                mib(room::node_bytes(ctx)),
            );
            let reason = Reason::InsufficientMemory;
            Some((reason, with_remedy(&text, reason)))
        }
        Fit::Unknown | Fit::Fits { .. } => None,
    }
}

/// The last good revision, where it may take over: proven, complete, verified, with a clean page.
fn last_good(ctx: &mut Context<'_>) -> Option<RevisionId> {
    let id = ctx.durable.last_good.clone()?;
    if id == *ctx.desired() || ledger::standing(ctx, &id) != Standing::Clear {
        return None;
    }
    let in_order = match ctx.policy().last_good {
        LastGoodUse::First => true,
        LastGoodUse::Never => false,
        LastGoodUse::AfterFallback => {
            let none = ctx.policy().fallback.is_none();
            none || matches!(ctx.observed.fallback, Service::Failed { .. })
        }
    };
    if ctx.live(&id).is_some() {
        return (ctx.policy().last_good != LastGoodUse::Never).then_some(id);
    }
    let revision = ctx.revision(&id)?;
    if !in_order || refusal(ctx, revision).is_some() || room::need_of(revision).is_none() {
        return None;
    }
    match artefacts::reverify(ctx, revision) {
        Preparation::Verified => Some(id),
        Preparation::Failed(failure) => {
            ledger::fail_attempt(ctx, &id, None, &failure);
            None
        }
        Preparation::Working { .. } | Preparation::NeedsRoom(_) | Preparation::Refused { .. } => {
            None
        }
    }
}

/// A message that ends with what to do.
pub(super) fn with_remedy(text: &str, reason: Reason) -> String {
    let text = text.trim_end();
    let stop = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    match reason.remedy() {
        Some(remedy) if !text.ends_with(remedy) => format!("{text}{stop} {remedy}"),
        _ => format!("{text}{stop}"),
    }
}
