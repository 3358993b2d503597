//! Fetch, build, verify: the next piece of work for a revision, with retries and deadlines.
//!
//! Transfers are tried again for ever, with backoff: a bad link is not the revision's fault. What
//! is wrong with the revision itself is handed back as a failure, to be held against it.

use super::context::Context;
use super::room::{self, Need};
use super::types::{
    Action, BuildNeed, EnginePolicy, Failure, Reason, Revision, RevisionId, Step, Work,
};

/// How far the artefacts of a revision are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Preparation {
    /// All there and verified.
    Verified,
    /// Under way, or waiting for a retry.
    Working { reason: Reason, message: String },
    /// A build is next, and there is no room for it beside what runs.
    NeedsRoom(Need),
    /// It cannot be had under this policy or on this node, whatever is tried.
    Refused { reason: Reason, message: String },
    /// Tried and failed, through the revision's own fault.
    Failed(Failure),
}

/// What one step came to.
enum Progress {
    Done,
    Busy,
    Retrying(Failure),
    Failed(Failure),
}

/// The next piece of work of the desired revision.
pub(super) fn prepare(ctx: &mut Context<'_>, revision: &Revision) -> Preparation {
    let model = advance(
        ctx,
        &revision.id,
        Work::FetchModel,
        &revision.artefact.model,
    );
    if let Err(preparation) = done(Work::FetchModel, model) {
        return preparation;
    }
    if let Err(preparation) = bundle(ctx, revision) {
        return preparation;
    }
    verify(ctx, revision)
}

/// Verification alone, for a revision that was complete before and is not fetched again.
pub(super) fn reverify(ctx: &mut Context<'_>, revision: &Revision) -> Preparation {
    let artefact = &revision.artefact;
    let complete = artefact.model == Step::Done
        && (revision.build == BuildNeed::None
            || artefact.bundle == Step::Done
            || artefact.build == Step::Done);
    if !complete {
        return Preparation::Refused {
            reason: Reason::ModelNotFound,
            message: "What it was made of is not stored any more.".to_owned(),
        };
    }
    verify(ctx, revision)
}

fn verify(ctx: &mut Context<'_>, revision: &Revision) -> Preparation {
    let verified = advance(ctx, &revision.id, Work::Verify, &revision.artefact.verify);
    match done(Work::Verify, verified) {
        Ok(()) => Preparation::Verified,
        Err(preparation) => preparation,
    }
}

/// Cancels work that nobody waits for any more.
pub(super) fn cancel_unwanted(ctx: &mut Context<'_>, wanted: impl Fn(&RevisionId) -> bool) {
    for revision in &ctx.observed.revisions {
        if wanted(&revision.id) {
            continue;
        }
        for (work, step) in steps(revision) {
            if matches!(step, Step::Running { .. }) {
                ctx.act(Action::Cancel {
                    revision: revision.id.clone(),
                    work,
                    stalled: false,
                });
            }
        }
    }
}

/// All steps of a revision with their names.
pub(super) const fn steps(revision: &Revision) -> [(Work, &Step); 4] {
    let artefact = &revision.artefact;
    [
        (Work::FetchModel, &artefact.model),
        (Work::FetchBundle, &artefact.bundle),
        (Work::BuildBundle, &artefact.build),
        (Work::Verify, &artefact.verify),
    ]
}

fn bundle(ctx: &mut Context<'_>, revision: &Revision) -> Result<(), Preparation> {
    let artefact = &revision.artefact;
    let there = artefact.bundle == Step::Done || artefact.build == Step::Done;
    if revision.build == BuildNeed::None || there {
        return Ok(());
    }
    match ctx.policy().bundle {
        EnginePolicy::Never => Err(Preparation::Refused {
            reason: Reason::EngineDisabled,
            message: "engine.policy: Never wants no engine, so only the fallback can serve. Write \
                      engine.policy: Auto for one."
                .to_owned(),
        }),
        EnginePolicy::FetchOnly => {
            let fetched = advance(ctx, &revision.id, Work::FetchBundle, &artefact.bundle);
            done(Work::FetchBundle, fetched)
        }
        EnginePolicy::BuildOnly => build(ctx, revision),
        EnginePolicy::Auto => {
            // Whatever keeps the registry from giving it, it can be built.
            if matches!(artefact.bundle, Step::Failed { .. }) {
                return build(ctx, revision);
            }
            let fetched = advance(ctx, &revision.id, Work::FetchBundle, &artefact.bundle);
            done(Work::FetchBundle, fetched)
        }
    }
}

fn build(ctx: &mut Context<'_>, revision: &Revision) -> Result<(), Preparation> {
    let need = room::build_need(revision);
    let running = matches!(revision.artefact.build, Step::Running { .. });
    if !running {
        if !room::fits_with_fallback(ctx, need) {
            return Err(Preparation::Refused {
                reason: Reason::InsufficientMemory,
                message: format!(
                    "The build needs {} MiB beside the fallback's {} MiB, the node has {} MiB. \
                     Build on a bigger node and share through engine.registry.",
                    mib(need.memory_bytes),
                    mib(room::fallback_bytes(ctx)),
                    mib(room::node_bytes(ctx)),
                ),
            });
        }
        // Nobody makes room for a build that waits for its next try: what was stopped for it would
        // be started again, and stopped again.
        let step = &revision.artefact.build;
        if let Some(failure) = waits(ctx, &revision.id, Work::BuildBundle, step) {
            return done(Work::BuildBundle, Progress::Retrying(failure));
        }
        if !room::fits_now(ctx, need, true) {
            return Err(Preparation::NeedsRoom(need));
        }
    }
    let built = advance(
        ctx,
        &revision.id,
        Work::BuildBundle,
        &revision.artefact.build,
    );
    done(Work::BuildBundle, built)
}

/// Orders a step when its time has come.
fn advance(ctx: &mut Context<'_>, id: &RevisionId, work: Work, step: &Step) -> Progress {
    let key = (id.clone(), work);
    match step {
        Step::Unknown => Progress::Busy,
        Step::Done => {
            ctx.memory.begun.remove(&key);
            ctx.memory.retries.remove(&retry_name(id, work));
            Progress::Done
        }
        Step::Todo => {
            begin(ctx, key);
            Progress::Busy
        }
        Step::Running { progress_at } => {
            ctx.memory.begun.insert(key);
            if ctx.reached(*progress_at + ctx.policy().progress_deadline) {
                ctx.act(Action::Cancel {
                    revision: id.clone(),
                    work,
                    stalled: true,
                });
            }
            Progress::Busy
        }
        Step::Failed { failure, .. } if failure.transient => {
            if let Some(failure) = waits(ctx, id, work, step) {
                return Progress::Retrying(failure);
            }
            let name = retry_name(id, work);
            let retries = ctx.retries(&name).saturating_add(1);
            ctx.memory.retries.insert(name, retries);
            begin(ctx, key);
            Progress::Busy
        }
        Step::Failed { failure, .. } => {
            // Held against the revision once: afterwards (and after a restart, when nobody knows
            // which account it belongs to) what is left of it is only a reason to try again.
            if ctx.memory.begun.remove(&key) {
                return Progress::Failed(failure.clone());
            }
            begin(ctx, key);
            Progress::Busy
        }
    }
}

/// Why a step that failed through the world's fault is not tried again yet.
fn waits(ctx: &mut Context<'_>, id: &RevisionId, work: Work, step: &Step) -> Option<Failure> {
    let Step::Failed { at, failure } = step else {
        return None;
    };
    let retries = ctx.retries(&retry_name(id, work)).saturating_add(1);
    let until = *at + ctx.policy().backoff.after(retries);
    (failure.transient && !ctx.reached(until)).then(|| failure.clone())
}

fn begin(ctx: &mut Context<'_>, (revision, work): (RevisionId, Work)) {
    ctx.memory.begun.insert((revision.clone(), work));
    ctx.act(Action::Begin { revision, work });
}

fn retry_name(id: &RevisionId, work: Work) -> String {
    format!("{id}/{work:?}")
}

fn done(work: Work, progress: Progress) -> Result<(), Preparation> {
    let (reason, doing) = match work {
        Work::FetchModel => (Reason::FetchingModel, "The model is being fetched"),
        Work::FetchBundle => (Reason::FetchingEngine, "The engine is being fetched"),
        Work::BuildBundle => (Reason::BuildingEngine, "The engine is being built"),
        Work::Verify => (
            Reason::VerifyingEngine,
            "Digest and signature are being checked",
        ),
    };
    match progress {
        Progress::Done => Ok(()),
        Progress::Busy => Err(Preparation::Working {
            reason,
            message: format!("{doing}. Nothing to do but wait."),
        }),
        Progress::Retrying(failure) => Err(Preparation::Working {
            reason: failure.reason,
            message: failure.message,
        }),
        Progress::Failed(failure) => Err(Preparation::Failed(failure)),
    }
}

/// Bytes as whole MiB, for messages.
pub(super) const fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
