//! Engines: start, prove, watch, replace, stop. Makes the goal run; which goal is decided elsewhere.

use super::context::Context;
use super::goal::Outlook;
use super::ledger;
use super::room::{self, Need};
use super::services::{self, Role};
use super::types::{
    Action, Instance, InstanceId, Phase, Proof, Reason, RevisionId, RolloutStrategy, Service,
    StopReason, Verdict,
};

/// Where the goal's engine stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage<'a> {
    /// No engine shall run.
    None,
    /// It runs.
    Live(&'a Instance),
    /// An earlier process of it is still ending.
    Ending,
    /// Its process ended a moment ago and is started again soon.
    Restart(Need),
    /// It can be started.
    Start(Need),
}

/// What came out for the goal.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Whom the gateway shall send requests to first.
    pub(super) primary: Option<InstanceId>,
    /// How far the goal is.
    pub(super) reason: Reason,
    /// The same for people.
    pub(super) message: String,
}

pub(super) fn stage<'a>(ctx: &mut Context<'a>, goal: Option<&RevisionId>) -> Stage<'a> {
    let Some(goal) = goal else {
        return Stage::None;
    };
    if let Some(live) = ctx.live(goal) {
        return Stage::Live(live);
    }
    let mut same = ctx
        .observed
        .engines
        .iter()
        .filter(|one| one.revision == *goal);
    if same.any(|one| !matches!(one.phase, Phase::Exited { .. })) {
        return Stage::Ending;
    }
    let need = ctx.revision(goal).and_then(room::need_of);
    let Some(need) = need else {
        return Stage::None;
    };
    let crashes = ctx.page(goal).map_or(0, |page| page.crashes);
    if let Some(crashed_at) = ctx.memory.crashed_at.get(goal).copied()
        && crashes > 0
        && !ctx.reached(crashed_at + ctx.policy().restart.after(crashes))
    {
        return Stage::Restart(need);
    }
    Stage::Start(need)
}

pub(super) fn drive(
    ctx: &mut Context<'_>,
    outlook: &Outlook,
    stage: Stage<'_>,
    role: Role,
) -> Progress {
    let goal_id = match stage {
        Stage::Live(one) => Some(one.id),
        _ => None,
    };
    let incumbent = ctx.incumbent().filter(|one| Some(one.id) != goal_id);
    let mut displaced = false;
    let mut primary = None;
    let (reason, message) = match stage {
        Stage::None => {
            displaced = true;
            say(Reason::EngineNotReady, "No engine can run now")
        }
        Stage::Ending => say(
            Reason::Draining,
            "An earlier process of the engine is ending",
        ),
        Stage::Restart(_) => say(
            Reason::EngineCrashed,
            "The engine's process ended and is started again",
        ),
        Stage::Start(need) => {
            let waits = start(ctx, outlook.goal.as_ref(), need, incumbent, role);
            displaced = matches!(waits, Start::MakeRoom);
            waits.words()
        }
        Stage::Live(one) => {
            if drive_live(ctx, one) {
                primary = Some(one.id);
            }
            live_words(ctx, one)
        }
    };
    let kept = incumbent.filter(|_| !displaced && primary.is_none());
    // While the goal is being promoted the old one serves on until the gateway has moved over.
    let promoted = goal_id.is_some() && ctx.primary() == goal_id;
    let spared = incumbent.filter(|_| !displaced && !promoted);
    stop_unwanted(ctx, goal_id, spared.map(|one| one.id), displaced);
    Progress {
        primary: primary.or_else(|| kept.map(|one| one.id)),
        reason,
        message,
    }
}

/// What became of a start.
enum Start {
    Ordered,
    FallbackFirst,
    MakeRoom,
    NoStandIn,
    NoMemory,
}

impl Start {
    fn words(&self) -> (Reason, String) {
        match self {
            Self::Ordered => say(Reason::StartingEngine, "The engine is being started"),
            Self::FallbackFirst => say(
                Reason::FallbackStarting,
                "The fallback comes up first, then the engine is started",
            ),
            Self::MakeRoom => say(
                Reason::Draining,
                "The engine that runs ends to make room for the new one",
            ),
            Self::NoStandIn => (
                Reason::FallbackUnavailable,
                "The engine that serves is not stopped for the new one as long as the fallback \
                 cannot answer meanwhile. Check that Ollama is installed and answers."
                    .to_owned(),
            ),
            Self::NoMemory => (
                Reason::InsufficientMemory,
                "The engine waits for memory that is in use. Nothing to do but wait.".to_owned(),
            ),
        }
    }
}

fn start(
    ctx: &mut Context<'_>,
    goal: Option<&RevisionId>,
    need: Need,
    incumbent: Option<&Instance>,
    role: Role,
) -> Start {
    let Some(goal) = goal else {
        return Start::NoMemory;
    };
    let ended = |one: &Instance| matches!(one.phase, Phase::Exited { .. });
    let alone = ctx.observed.engines.iter().all(ended);
    let beside = alone || ctx.policy().strategy != RolloutStrategy::StopStart;
    if beside && room::fits_now(ctx, need, role == Role::Up) {
        if incumbent.is_none() && waits_for_answer(ctx, role) {
            return Start::FallbackFirst;
        }
        order_start(ctx, goal, need);
        return Start::Ordered;
    }
    if incumbent.is_none() {
        return Start::NoMemory;
    }
    match ctx.observed.fallback {
        _ if role != Role::Up => Start::MakeRoom,
        Service::Ready { .. } => Start::MakeRoom,
        // It could come up beside the engine that serves: no need to go dark.
        _ if services::may_raise(ctx) => Start::NoStandIn,
        _ => Start::MakeRoom,
    }
}

/// Before anything has ever served, the fallback gets a little time to answer first.
fn waits_for_answer(ctx: &mut Context<'_>, role: Role) -> bool {
    if role != Role::Up || ctx.durable.active.is_some() {
        return false;
    }
    match ctx.observed.fallback {
        Service::Unknown | Service::Absent | Service::Parked | Service::Stopping => true,
        Service::Starting { since } => !ctx.reached(since + ctx.policy().answer_grace),
        Service::Ready { .. } | Service::Failed { .. } => false,
    }
}

fn order_start(ctx: &mut Context<'_>, goal: &RevisionId, need: Need) {
    let instance = InstanceId(ctx.durable.next_instance);
    ctx.durable.next_instance = ctx.durable.next_instance.saturating_add(1);
    let attempt = ledger::count_start(ctx, goal);
    ctx.act(Action::StartEngine {
        instance,
        revision: goal.clone(),
        attempt,
        memory_bytes: need.memory_bytes,
        exclusive: need.exclusive,
    });
}

/// Proves and watches; says whether the engine may serve.
fn drive_live(ctx: &mut Context<'_>, one: &Instance) -> bool {
    if one.phase != Phase::Ready {
        return false;
    }
    let serves = ctx.primary() == Some(one.id);
    let good = ctx.durable.last_good.as_ref() == Some(&one.revision);
    let wait = ctx.policy().proof_deadline;
    let prove = match &one.proof {
        Proof::None => !(serves && good),
        Proof::Running { since } => ctx.reached(*since + wait),
        Proof::Done {
            at,
            smoke,
            objectives,
            ..
        } => {
            let open = |verdict: &Verdict| matches!(verdict, Verdict::Inconclusive(_));
            let settled = good || one.revision != *ctx.desired();
            let again = (open(smoke) && !serves) || (!settled && (open(smoke) || open(objectives)));
            again && ctx.reached(*at + wait)
        }
    };
    if prove {
        ctx.act(Action::Prove { instance: one.id });
    }
    let proven = serves || one.is_proven();
    let interval = ctx.policy().probe_interval;
    if proven && one.health.is_none_or(|health| health.interval != interval) {
        ctx.act(Action::Watch {
            instance: one.id,
            interval,
        });
    }
    proven
}

fn live_words(ctx: &Context<'_>, one: &Instance) -> (Reason, String) {
    if one.phase != Phase::Ready {
        return say(Reason::StartingEngine, "The engine is loading");
    }
    let open = match &one.proof {
        Proof::Done {
            smoke: Verdict::Inconclusive(why),
            ..
        }
        | Proof::Done {
            objectives: Verdict::Inconclusive(why),
            ..
        } => Some(why),
        _ => None,
    };
    let serves = ctx.primary() == Some(one.id);
    let good = ctx.durable.last_good.as_ref() == Some(&one.revision);
    match open {
        Some(why) if !good => (
            Reason::ProofInconclusive,
            format!("{} It is measured again.", why.trim_end()),
        ),
        _ if serves && good => say(Reason::EngineServing, "The engine serves"),
        _ if serves => say(
            Reason::Soaking,
            "The engine serves, and is watched before it counts as good",
        ),
        _ if one.is_proven() => say(Reason::Promoting, "The gateway moves new requests over"),
        _ => say(Reason::Proving, "The engine runs and is being measured"),
    }
}

fn stop_unwanted(
    ctx: &mut Context<'_>,
    goal: Option<InstanceId>,
    spared: Option<InstanceId>,
    displaced: bool,
) {
    // Also one that is ending: it drains.
    let gateway = !matches!(
        ctx.observed.gateway,
        Service::Absent | Service::Failed { .. }
    );
    for one in &ctx.observed.engines {
        if one.phase == Phase::Stopping || Some(one.id) == spared {
            continue;
        }
        let why = if ctx.is_settled(one.id) {
            StopReason::Failed
        } else if Some(one.id) == goal {
            continue;
        } else if displaced {
            // Its requests go elsewhere first.
            if gateway && ctx.primary() == Some(one.id) {
                continue;
            }
            StopReason::MakeRoom
        } else {
            StopReason::Superseded
        };
        stop(ctx, one, why);
    }
}

/// Ends an engine; an end that we wanted is no unfinished start.
pub(super) fn stop(ctx: &mut Context<'_>, one: &Instance, why: StopReason) {
    if why != StopReason::Failed {
        ledger::conclude_start(ctx, &one.revision);
    }
    ctx.act(Action::StopEngine {
        instance: one.id,
        why,
    });
}

fn say(reason: Reason, text: &str) -> (Reason, String) {
    (reason, format!("{text}. Nothing to do but wait."))
}
