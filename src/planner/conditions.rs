//! Conditions: the same facts in the words of Kubernetes, following kstatus and Flux.
//!
//! `Ready` is always there; `Reconciling` only while something is under way, `Stalled` only when a
//! person must act, never both, and neither beside `Ready=True`. Every message ends with what to do.

use super::context::Context;
use super::goal::{DesiredState, with_remedy};
use super::report::{Serving, View};
use super::types::{
    Condition, ConditionStatus, ConditionType, EngineKind, Fit, Lifecycle, Reason, Service, Step,
};

type Word = (ConditionStatus, Reason, String);

const WAIT: &str = "Nothing to do but wait.";
const FINE: &str = "Nothing to do.";

pub(super) fn conditions(ctx: &Context<'_>, view: &View, serving: Serving<'_>) -> Vec<Condition> {
    let overall = overall(ctx, view, serving);
    let mut words: Vec<(ConditionType, Word)> = Vec::new();
    let (ready, reason, message) = &overall.ready;
    match overall.course {
        Course::Arrived => {}
        Course::UnderWay => words.push((
            ConditionType::Reconciling,
            (ConditionStatus::True, *reason, message.clone()),
        )),
        Course::Stuck => words.push((
            ConditionType::Stalled,
            (ConditionStatus::True, *reason, message.clone()),
        )),
    }
    words.push((ConditionType::Ready, (*ready, *reason, message.clone())));
    if !matches!(view, View::Stale) {
        words.push((ConditionType::HardwareMatched, hardware(ctx)));
        words.push((ConditionType::ModelFetched, model(ctx)));
        words.push((ConditionType::EngineReady, engine(ctx, &overall, serving)));
        words.push((ConditionType::Available, available(ctx, view, serving)));
        words.push((ConditionType::FallbackActive, fallback(ctx, serving)));
    }
    words.sort_by_key(|(kind, _)| *kind);
    words
        .into_iter()
        .map(|(kind, (status, reason, message))| Condition {
            kind,
            status,
            reason,
            message,
            observed_generation: ctx.durable.observed_generation,
        })
        .collect()
}

/// Where things are going.
enum Course {
    Arrived,
    UnderWay,
    Stuck,
}

struct Overall {
    ready: Word,
    course: Course,
}

fn overall(ctx: &Context<'_>, view: &View, serving: Serving<'_>) -> Overall {
    let not_ready = |course, reason, message| Overall {
        ready: (ConditionStatus::False, reason, message),
        course,
    };
    let (outlook, progress) = match view {
        View::Stale => {
            let message = "An older spec than the one acted on was read. Nothing to do but wait.";
            return Overall {
                ready: (
                    ConditionStatus::Unknown,
                    Reason::Pending,
                    message.to_owned(),
                ),
                course: Course::UnderWay,
            };
        }
        View::Down { gone } => return down(ctx, *gone),
        View::Running { outlook, progress } => (outlook, progress),
    };
    if is_served(ctx, serving) && ctx.observed.node.is_some() {
        return Overall {
            ready: (ConditionStatus::True, Reason::Serving, served(ctx)),
            course: Course::Arrived,
        };
    }
    if let Some((reason, message)) = gateway_trouble(ctx) {
        return not_ready(Course::UnderWay, reason, message);
    }
    match &outlook.desired {
        DesiredState::Refused { reason, message } => {
            not_ready(Course::Stuck, *reason, message.clone())
        }
        DesiredState::Exhausted => {
            let reason = Reason::RetryLimitReached;
            not_ready(
                Course::Stuck,
                reason,
                blame(ctx, "It failed too often", reason),
            )
        }
        DesiredState::BackingOff => {
            let message = blame(
                ctx,
                "It is tried again after the backoff",
                Reason::WaitingForRetry,
            );
            not_ready(Course::UnderWay, Reason::WaitingForRetry, message)
        }
        DesiredState::Preparing { reason, message } => {
            let message = with_remedy(message, *reason);
            let mut overall = not_ready(Course::UnderWay, *reason, message);
            if *reason == Reason::Pending {
                overall.ready.0 = ConditionStatus::Unknown;
            }
            overall
        }
        DesiredState::NeedsRoom => not_ready(
            Course::UnderWay,
            Reason::FallbackUnavailable,
            "The build waits until the fallback can answer in place of the engine that makes room \
             for it. Check that Ollama is installed and answers."
                .to_owned(),
        ),
        DesiredState::Runnable => {
            not_ready(Course::UnderWay, progress.reason, progress.message.clone())
        }
    }
}

/// Whether what is served is what this generation wants, proven and soaked.
fn is_served(ctx: &Context<'_>, serving: Serving<'_>) -> bool {
    let Serving::Engine(one) = serving else {
        return false;
    };
    one.revision == *ctx.desired() && ctx.durable.last_good.as_ref() == Some(&one.revision)
}

fn served(ctx: &Context<'_>) -> String {
    match (&ctx.observed.fallback, ctx.policy().fallback) {
        (Service::Failed { failure, .. }, Some(_)) => {
            let failure = with_remedy(&failure.message, Reason::FallbackUnavailable);
            format!("What the spec asks for is served, but the fallback is not ready: {failure}")
        }
        _ => format!("What the spec asks for is served. {FINE}"),
    }
}

fn down(ctx: &Context<'_>, gone: bool) -> Overall {
    let suspended = ctx.observed.desired.lifecycle == Lifecycle::Suspended;
    let (reason, message) = match (suspended, gone) {
        (true, _) => (
            Reason::Suspended,
            with_remedy("spec.suspend is set: nothing runs.", Reason::Suspended),
        ),
        (false, false) => (Reason::Removing, format!("Everything ends. {WAIT}")),
        (false, true) => (Reason::Removing, format!("Everything has ended. {FINE}")),
    };
    let course = if gone {
        Course::Arrived
    } else {
        Course::UnderWay
    };
    Overall {
        ready: (ConditionStatus::False, reason, message),
        course,
    }
}

fn gateway_trouble(ctx: &Context<'_>) -> Option<(Reason, String)> {
    let reason = Reason::GatewayUnavailable;
    match &ctx.observed.gateway {
        Service::Failed { failure, .. } => Some((reason, with_remedy(&failure.message, reason))),
        _ => None,
    }
}

/// What the desired revision failed of, for the message.
fn blame(ctx: &Context<'_>, what: &str, reason: Reason) -> String {
    let failure = ctx
        .page(ctx.desired())
        .and_then(|page| page.failure.as_ref());
    match failure {
        Some(failure) => {
            let cause = failure.message.trim_end().trim_end_matches('.');
            let text = format!("{}: {cause}. {what}.", failure.reason);
            let remedy = reason.remedy().or_else(|| failure.reason.remedy());
            match remedy {
                Some(remedy) if !text.contains(remedy) => format!("{text} {remedy}"),
                _ => text,
            }
        }
        None => format!("{what}."),
    }
}

fn hardware(ctx: &Context<'_>) -> Word {
    if ctx.observed.node.is_none() {
        let reason = Reason::NoMatchingNode;
        let message = with_remedy("No node matches spec.placement.", reason);
        return (ConditionStatus::False, reason, message);
    }
    match ctx.revision(ctx.desired()).map(|revision| &revision.fit) {
        Some(Fit::Fits { .. }) => (
            ConditionStatus::True,
            Reason::HardwareFits,
            format!("The node can run it. {FINE}"),
        ),
        Some(Fit::Refused { reason, message }) => (
            ConditionStatus::False,
            *reason,
            with_remedy(message, *reason),
        ),
        Some(Fit::Unknown) | None => (
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("What it needs is known once the model is here. {WAIT}"),
        ),
    }
}

fn model(ctx: &Context<'_>) -> Word {
    let step = ctx.revision(ctx.desired()).map(|one| &one.artefact.model);
    match step {
        Some(Step::Done) => (
            ConditionStatus::True,
            Reason::ModelPresent,
            format!("The model is on the node. {FINE}"),
        ),
        Some(Step::Running { .. } | Step::Todo) => (
            ConditionStatus::False,
            Reason::FetchingModel,
            format!("The model is not on the node yet. {WAIT}"),
        ),
        Some(Step::Failed { failure, .. }) => (
            ConditionStatus::False,
            failure.reason,
            with_remedy(&failure.message, failure.reason),
        ),
        Some(Step::Unknown) | None => (
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("The node has not been looked at yet. {WAIT}"),
        ),
    }
}

fn engine(ctx: &Context<'_>, overall: &Overall, serving: Serving<'_>) -> Word {
    let serves = matches!(serving, Serving::Engine(one) if one.revision == *ctx.desired());
    let (_, reason, message) = &overall.ready;
    if serves {
        let what = match ctx.revision(ctx.desired()).map(|one| one.kind) {
            Some(EngineKind::TensorRt) => "The TensorRT engine",
            Some(EngineKind::Image) => "The engine's container",
            Some(EngineKind::Cpu) | None => "The CPU engine",
        };
        let message = format!("{what} is proven and serves. {FINE}");
        return (ConditionStatus::True, Reason::EngineProven, message);
    }
    (ConditionStatus::False, *reason, message.clone())
}

fn available(ctx: &Context<'_>, view: &View, serving: Serving<'_>) -> Word {
    let yes = |reason, text: &str| (ConditionStatus::True, reason, format!("{text} {FINE}"));
    match serving {
        Serving::Engine(one) if one.revision == *ctx.desired() => {
            yes(Reason::EngineServing, "The engine answers.")
        }
        Serving::Engine(_) => {
            let (reason, text) = stand_in(ctx, serving);
            yes(reason, text)
        }
        Serving::Fallback => yes(Reason::FallbackServing, "Ollama answers."),
        Serving::Nobody => {
            let (reason, message) = nobody(ctx, view);
            (ConditionStatus::False, reason, message)
        }
    }
}

fn stand_in(ctx: &Context<'_>, serving: Serving<'_>) -> (Reason, &'static str) {
    match serving {
        Serving::Engine(one) if ctx.durable.last_good.as_ref() == Some(&one.revision) => (
            Reason::LastGoodServing,
            "The last good engine answers in place of the desired one.",
        ),
        Serving::Engine(_) => (
            Reason::PreviousServing,
            "The engine of an earlier spec answers until the desired one is ready.",
        ),
        Serving::Fallback | Serving::Nobody => (
            Reason::FallbackServing,
            "Ollama answers in place of the engine.",
        ),
    }
}

fn nobody(ctx: &Context<'_>, view: &View) -> (Reason, String) {
    if matches!(view, View::Down { .. }) {
        return (
            Reason::NothingServing,
            "Everything is being taken down.".to_owned(),
        );
    }
    if let Some(trouble) = gateway_trouble(ctx) {
        return trouble;
    }
    match (&ctx.observed.fallback, ctx.policy().fallback) {
        (Service::Failed { failure, .. }, Some(_)) => (
            Reason::FallbackUnavailable,
            with_remedy(&failure.message, Reason::FallbackUnavailable),
        ),
        (_, None) => (
            Reason::NoFallback,
            with_remedy(
                "No engine serves, and there is no fallback.",
                Reason::NoFallback,
            ),
        ),
        _ => (
            Reason::NothingServing,
            format!("Nothing answers yet. {WAIT}"),
        ),
    }
}

fn fallback(ctx: &Context<'_>, serving: Serving<'_>) -> Word {
    let in_place = match serving {
        Serving::Engine(one) => one.revision != *ctx.desired(),
        Serving::Fallback => true,
        Serving::Nobody => false,
    };
    if in_place {
        let (reason, text) = stand_in(ctx, serving);
        let message = format!("{text} See the condition Ready for what is missing.");
        return (ConditionStatus::True, reason, message);
    }
    if serving == Serving::Nobody {
        let message = format!("Nothing answers. {WAIT}");
        return (ConditionStatus::False, Reason::NothingServing, message);
    }
    (
        ConditionStatus::False,
        Reason::FallbackNotNeeded,
        format!("The engine answers. {FINE}"),
    )
}
