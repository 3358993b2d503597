//! Verdicts: which engines have failed since the last plan, and what that does to their revision's
//! account. Each instance is judged at most once; what then serves is decided elsewhere.

use super::context::Context;
use super::ledger;
use super::types::{Failure, Instance, Phase, Proof, Reason, RevisionId, Verdict};

/// What is found against (or for) an instance.
enum Finding {
    /// Nothing yet.
    None,
    /// It is measured to generate.
    Generates,
    /// The process of an engine that had been promoted ended.
    Crash(Failure),
    /// The attempt has failed.
    Failed(Failure),
}

/// Enters everything new into the ledger.
pub(super) fn settle(ctx: &mut Context<'_>) {
    for instance in &ctx.observed.engines {
        if ctx.is_settled(instance.id) {
            continue;
        }
        match judge(ctx, instance) {
            // A good revision is not what takes the machine down; any other has to serve its soak
            // time first (`good`).
            Finding::Generates if ctx.durable.last_good.as_ref() == Some(&instance.revision) => {
                ledger::conclude_start(ctx, &instance.revision);
            }
            Finding::None | Finding::Generates => {}
            Finding::Failed(failure) => {
                ledger::fail_attempt(ctx, &instance.revision, Some(instance.id), &failure);
            }
            Finding::Crash(failure) => crashed(ctx, instance, &failure),
        }
    }
    interrupted(ctx);
}

fn judge(ctx: &mut Context<'_>, instance: &Instance) -> Finding {
    match &instance.phase {
        Phase::Stopping => Finding::None,
        Phase::Exited { failure, .. } => {
            if was_promoted(ctx, &instance.revision) {
                Finding::Crash(failure.clone())
            } else {
                Finding::Failed(failure.clone())
            }
        }
        Phase::Starting { since } => {
            if ctx.reached(*since + ctx.policy().startup_deadline) {
                Finding::Failed(start_timeout())
            } else {
                Finding::None
            }
        }
        Phase::Ready => judge_ready(ctx, instance),
    }
}

/// A revision that has served is given the benefit of the doubt when its process ends; one that
/// never has is not.
fn was_promoted(ctx: &Context<'_>, revision: &RevisionId) -> bool {
    let known = [&ctx.durable.active, &ctx.durable.last_good];
    known.iter().any(|one| one.as_ref() == Some(revision))
}

fn judge_ready(ctx: &Context<'_>, instance: &Instance) -> Finding {
    // Objectives are the desired revision's: the last good one was proven against its own, and a
    // slow engine is still better than none.
    let held_to_objectives = instance.revision == *ctx.desired();
    let mut finding = Finding::None;
    if let Proof::Done {
        smoke, objectives, ..
    } = &instance.proof
    {
        match (smoke, objectives) {
            (Verdict::Bad(failure), _) => return Finding::Failed(failure.clone()),
            (_, Verdict::Bad(failure)) if held_to_objectives => {
                return Finding::Failed(failure.clone());
            }
            (Verdict::Good, _) => finding = Finding::Generates,
            (Verdict::Inconclusive(_), _) => {}
        }
    }
    let Some(health) = instance.health else {
        return finding;
    };
    let threshold = ctx.policy().failure_threshold.max(1);
    if health.consecutive_failures >= threshold {
        return Finding::Failed(generation_dead());
    }
    if held_to_objectives && ctx.policy().has_objectives && health.consecutive_slow >= threshold {
        return Finding::Failed(too_slow());
    }
    finding
}

fn crashed(ctx: &mut Context<'_>, instance: &Instance, failure: &Failure) {
    let crashes = ledger::crash(ctx, &instance.revision, instance.id, failure);
    if crashes >= ctx.policy().crash_limit.max(1) {
        let failure = crash_loop(failure);
        // The instance is settled already.
        ledger::fail_attempt(ctx, &instance.revision, None, &failure);
    }
}

/// Starts that vanished without a verdict: power cuts are not crashes, but a revision whose every
/// start takes the machine (or the shell) down must not be started for ever.
fn interrupted(ctx: &mut Context<'_>) {
    let limit = ctx.policy().start_limit.max(1);
    let suspects: Vec<RevisionId> = ctx
        .durable
        .ledger
        .iter()
        .filter(|entry| entry.starts >= limit)
        .map(|entry| entry.revision.clone())
        .collect();
    for revision in suspects {
        let engines = &ctx.observed.engines;
        let present = engines.iter().any(|one| one.revision == revision);
        if !present && ctx.page(&revision).is_some() {
            ledger::fail_attempt(ctx, &revision, None, &start_interrupted());
        }
    }
}

fn failure(reason: Reason, message: &str) -> Failure {
    Failure {
        reason,
        message: message.to_owned(),
        exit_code: None,
        transient: false,
    }
}

fn start_timeout() -> Failure {
    failure(
        Reason::StartTimedOut,
        "The engine made no progress while loading and was stopped. Look at its log; a larger \
         device or a smaller model may be needed.",
    )
}

fn start_interrupted() -> Failure {
    failure(
        Reason::StartInterrupted,
        "Every start of this engine was cut off before it could be judged (power, or the whole \
         machine went down). Check power and memory, then change rollout.retryToken.",
    )
}

fn generation_dead() -> Failure {
    failure(
        Reason::GenerationFailed,
        "The engine's process lives, but real generations failed one after the other. Look at its \
         log; it is tried again after the backoff.",
    )
}

fn too_slow() -> Failure {
    failure(
        Reason::ObjectiveMissed,
        "The engine answers, but outside spec.objectives, while the device was not throttled. \
         Relax the objectives or choose a smaller model or precision.",
    )
}

fn crash_loop(last: &Failure) -> Failure {
    Failure {
        reason: Reason::EngineCrashed,
        message: format!(
            "The engine's process ended again and again: {}",
            last.message
        ),
        exit_code: last.exit_code,
        transient: false,
    }
}
