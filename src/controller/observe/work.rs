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
use crate::planner::{Failure, Step, Timestamp, transient};

/// The newest fetch of a revision, with its number.
pub(crate) fn newest_fetch<'a>(view: &'a View<'_>, id: &RevisionId) -> Option<(u32, &'a Job)> {
    view.world
        .jobs
        .iter()
        .filter(|job| label(&job.metadata, COMPONENT) == Some(Component::Fetch.as_str()))
        .filter(|job| label(&job.metadata, REVISION) == Some(id.as_str()))
        .filter_map(|job| Some((label(&job.metadata, ATTEMPT)?.parse().ok()?, job)))
        .max_by_key(|(attempt, _)| *attempt)
}

/// The same, if it wrote into the claim that is there now: a Job that is older than the claim wrote
/// into another one under its name.
pub(crate) fn present_fetch<'a>(view: &'a View<'_>, id: &RevisionId) -> Option<(u32, &'a Job)> {
    newest_fetch(view, id).filter(|(_, job)| wrote_here(view, job))
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
    let Some((attempt, job)) = present_fetch(view, id) else {
        return Step::Todo;
    };
    if job.metadata.deletion_timestamp.is_some() {
        return Step::Todo;
    }
    let name = job.metadata.name.clone().unwrap_or_default();
    if let Some(result) = outcome(view, job) {
        return match result {
            // Taken over before the next observation; see `taken_over`.
            Ok(_) => Step::Running { progress_at: now },
            Err(failure) => Step::Failed {
                at: notes.since(format!("fetch-{id}-{attempt}-failed"), now),
                failure,
            },
        };
    }
    let pod = pod_of(view, &name);
    let runs = pod.is_some_and(|pod| {
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        phase == Some("Running")
    });
    let waiting = notes.since(format!("fetch-{id}-{attempt}"), now);
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
        _ => Err(pod_of(view, name).map_or_else(
            || lost("Its pod is gone."),
            |pod| match standing(pod, "fetch") {
                Standing::Ended(failure) => Failure {
                    transient: true,
                    reason: Reason::ModelUnreachable,
                    ..failure
                },
                _ => lost("It left no report."),
            },
        )),
    })
}

fn lost(why: &str) -> Failure {
    transient(
        Reason::EnvironmentError,
        &format!("The fetch of the model ended without a result. {why}"),
    )
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
