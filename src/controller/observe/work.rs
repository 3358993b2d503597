//! Work on artefacts: Jobs, and what they reported before they were tidied away.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{Standing, standing};
use crate::api::{Reason, RevisionId};
use crate::cache::Report;
use crate::controller::names::{ATTEMPT, COMPONENT, Component, REVISION};
use crate::controller::notes::Notes;
use crate::controller::view::View;
use crate::controller::world::label;
use crate::planner::{Failure, Step, Timestamp, failure, transient};

/// Exit code of what the kernel's memory killer ends.
const KILLED: i32 = 128 + 9;

/// The newest Job of a kind for a revision, with its number.
pub(crate) fn newest<'a>(
    view: &'a View<'_>,
    kind: Component,
    id: &RevisionId,
) -> Option<(u32, &'a Job)> {
    view.world
        .jobs
        .iter()
        .filter(|job| label(&job.metadata, COMPONENT) == Some(kind.as_str()))
        .filter(|job| label(&job.metadata, REVISION) == Some(id.as_str()))
        .filter_map(|job| Some((label(&job.metadata, ATTEMPT)?.parse().ok()?, job)))
        .max_by_key(|(attempt, _)| *attempt)
}

/// The same, if it wrote into the claim that is there now: a Job that is older than the claim wrote
/// into another one under its name.
pub(crate) fn present<'a>(
    view: &'a View<'_>,
    kind: Component,
    id: &RevisionId,
) -> Option<(u32, &'a Job)> {
    newest(view, kind, id).filter(|(_, job)| wrote_here(view, job))
}

/// Whether a Job works on the claim that is there now.
pub(crate) fn wrote_here(view: &View<'_>, job: &Job) -> bool {
    let claim = view.claim_name().and_then(|name| view.world.claim(&name));
    let begun = &job.metadata.creation_timestamp;
    claim.is_some_and(|claim| claim.metadata.creation_timestamp <= *begun)
}

/// How far the model of a revision is.
pub(super) fn model(view: &View<'_>, id: &RevisionId, notes: &mut Notes, now: Timestamp) -> Step {
    if view.stored(id).is_some() {
        return Step::Done;
    }
    step(view, Component::Fetch, id, notes, now)
}

/// How far the build of its engine is.
pub(super) fn build(view: &View<'_>, id: &RevisionId, notes: &mut Notes, now: Timestamp) -> Step {
    if view.stored(id).is_some_and(|one| one.bundle.is_some()) {
        return Step::Done;
    }
    step(view, Component::Build, id, notes, now)
}

fn step(
    view: &View<'_>,
    kind: Component,
    id: &RevisionId,
    notes: &mut Notes,
    now: Timestamp,
) -> Step {
    let Some((attempt, job)) = present(view, kind, id) else {
        return Step::Todo;
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Step::Todo;
    }
    let word = kind.as_str();
    let name = job.metadata.name.clone().unwrap_or_default();
    if let Some(result) = outcome(view, job) {
        return match result {
            // Taken over before the next observation; see `decide::remember`.
            Ok(_) => Step::Running { progress_at: now },
            Err(failure) => Step::Failed {
                at: notes.since(format!("{word}-{id}-{attempt}-failed"), now),
                failure,
            },
        };
    }
    let pod = pod_of(view, &name);
    let runs = pod.is_some_and(|pod| {
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        phase == Some("Running")
    });
    let waiting = notes.since(format!("{word}-{id}-{attempt}"), now);
    Step::Running {
        // One that runs watches its own progress and ends when there is none.
        progress_at: if runs { now } else { waiting },
    }
}

/// How a Job ended, if it has.
pub(crate) fn outcome(view: &View<'_>, job: &Job) -> Option<Result<Report, Failure>> {
    let conditions = job.status.as_ref().and_then(|it| it.conditions.as_ref())?;
    let holds = |kind: &str| {
        conditions
            .iter()
            .any(|one| one.type_ == kind && one.status == "True")
    };
    if !holds("Complete") && !holds("Failed") {
        return None;
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let said = pod_of(view, name).and_then(last_words);
    let report = said.and_then(|said| serde_json::from_str::<Report>(said).ok());
    Some(match report {
        Some(Report::Failed(failure)) => Err(failure),
        Some(report) if holds("Complete") => Ok(report),
        _ => Err(unreported(view, job)),
    })
}

/// Why a Job ended that could not say so itself.
fn unreported(view: &View<'_>, job: &Job) -> Failure {
    let builds = label(&job.metadata, COMPONENT) == Some(Component::Build.as_str());
    let (container, what, reason) = if builds {
        ("build", "The build of the engine", Reason::EnvironmentError)
    } else {
        ("fetch", "The fetch of the model", Reason::ModelUnreachable)
    };
    let lost =
        |reason, why: &str| transient(reason, &format!("{what} ended without a result. {why}"));
    let Some(pod) = pod_of(view, job.metadata.name.as_deref().unwrap_or_default()) else {
        return lost(Reason::EnvironmentError, "Its pod is gone.");
    };
    match standing(pod, container) {
        // The machine's memory is the same at the next try.
        Standing::Ended(ended) if builds && ended.exit_code == Some(KILLED) => Failure {
            exit_code: Some(KILLED),
            ..failure(
                Reason::BuildOutOfMemory,
                "The build was killed for its memory.",
            )
        },
        Standing::Ended(ended) => Failure {
            transient: true,
            reason,
            ..ended
        },
        _ => lost(Reason::EnvironmentError, "It left no report."),
    }
}

fn pod_of<'a>(view: &'a View<'_>, job: &str) -> Option<&'a Pod> {
    view.world
        .pods
        .iter()
        .filter(|pod| label(&pod.metadata, "batch.kubernetes.io/job-name") == Some(job))
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone())
}

fn last_words(pod: &Pod) -> Option<&str> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.first()?.state.as_ref()?.terminated.as_ref()?;
    ended.message.as_deref()
}
