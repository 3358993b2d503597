//! The cache and the Jobs that work on it.

use std::collections::BTreeSet;

use super::Desired;
use crate::controller::names::{COMPONENT, Component, REVISION};
use crate::controller::notes::Notes;
use crate::controller::observe::{newest, outcome, wrote_here};
use crate::controller::view::View;
use crate::controller::workloads::{self, Build, Collect, Fetch, Kind};
use crate::controller::world::label;
use crate::engine::Format;
use crate::planner::{Action, Garbage, Plan, RevisionId, Work};

pub(super) fn work(view: &View<'_>, notes: &Notes, plan: &Plan, desired: &mut Desired) {
    let begun: BTreeSet<&RevisionId> = of(plan, Work::FetchModel, false);
    let cancelled: BTreeSet<&RevisionId> = of(plan, Work::FetchModel, true);
    let builds = of(plan, Work::BuildBundle, false);
    let stopped = of(plan, Work::BuildBundle, true);
    let has_claim = view
        .claim_name()
        .is_some_and(|name| view.world.claim(&name).is_some());
    if let Some(node) = view.node
        && (has_claim || !begun.is_empty())
    {
        desired.objects.push(workloads::cache(
            view.owner,
            &view.engine.placement,
            &node.name,
        ));
    }
    for job in &view.world.jobs {
        let name = job.metadata.name.clone().unwrap_or_default();
        let component = label(&job.metadata, COMPONENT);
        let revision = label(&job.metadata, REVISION).map(RevisionId::new);
        let over = match (component, &revision) {
            (Some("fetch"), Some(id)) => {
                // What succeeded was taken over; what failed stays until it is tried again.
                let settled = view.stored(id).is_some() || !wrote_here(view, job);
                settled || cancelled.contains(id) || begun.contains(id)
            }
            (Some("build"), Some(id)) => {
                let built = view.stored(id).is_none_or(|one| one.bundle.is_some());
                let settled = built || !wrote_here(view, job);
                settled || stopped.contains(id) || builds.contains(id)
            }
            (Some("collect"), _) => {
                outcome(view, job).is_some() && notes.garbage != Garbage::Running
            }
            _ => false,
        };
        if over {
            desired.doom(view, Kind::Job, &name);
        }
    }
    for revision in begun {
        begin(view, revision, desired);
    }
    for revision in builds {
        build(view, revision, desired);
    }
    if let Some(keep) = plan.actions.iter().find_map(|action| match action {
        Action::CollectGarbage { keep } => Some(keep),
        _ => None,
    }) {
        collect(view, keep, desired);
    }
}

fn of(plan: &Plan, wanted: Work, cancelled: bool) -> BTreeSet<&RevisionId> {
    plan.actions
        .iter()
        .filter_map(|action| match action {
            Action::Begin { revision, work } if !cancelled && *work == wanted => Some(revision),
            Action::Cancel { revision, work, .. } if cancelled && *work == wanted => Some(revision),
            _ => None,
        })
        .collect()
}

fn begin(view: &View<'_>, revision: &RevisionId, desired: &mut Desired) {
    // Only the desired revision is ever fetched: of an older one nobody knows any more what it was.
    let (Some(node), Some(claim)) = (view.node, view.claim_name()) else {
        return;
    };
    if *revision != view.engine.revision() {
        return;
    }
    let attempt = next_attempt(view, Component::Fetch, revision);
    desired.objects.push(workloads::fetch(
        view.owner,
        view.site,
        &Fetch {
            revision,
            attempt,
            model: &view.engine.model,
            served: &view.served(),
            placement: &view.engine.placement,
            hostname: &node.hostname,
            claim: &claim,
            deadline: view.engine.engine.progress_deadline,
        },
    ));
}

fn next_attempt(view: &View<'_>, kind: Component, revision: &RevisionId) -> u32 {
    newest(view, kind, revision).map_or(1, |(attempt, _)| attempt.saturating_add(1))
}

fn build(view: &View<'_>, revision: &RevisionId, desired: &mut Desired) {
    let (Some(node), Some(claim), Some(tensorrt), Some(stored)) = (
        view.node,
        view.claim_name(),
        view.tensorrt(),
        view.stored(revision),
    ) else {
        return;
    };
    let Some(fit) = view.fit(revision, stored) else {
        return;
    };
    let Some(precision) = fit.chosen.and_then(precision) else {
        return;
    };
    desired.objects.push(workloads::build(
        view.owner,
        view.site,
        &Build {
            revision,
            attempt: next_attempt(view, Component::Build, revision),
            image: tensorrt.image,
            runtime_class: tensorrt.runtime_class,
            sm: tensorrt.sm,
            precision,
            served: &stored.served,
            memory_bytes: fit.build.map_or(0, |build| build.need.bytes.0),
            placement: &view.engine.placement,
            hostname: &node.hostname,
            claim: &claim,
            deadline: view.engine.engine.progress_deadline,
        },
    ));
}

/// The word for a format that `engine build` makes.
const fn precision(format: Format) -> Option<&'static str> {
    match format {
        Format::Fp16 => Some("Fp16"),
        Format::Int8 => Some("Int8"),
        Format::Int4 => Some("Int4"),
        Format::Fp8 | Format::Nvfp4 | Format::AsInFile => None,
    }
}

fn collect(view: &View<'_>, keep: &BTreeSet<RevisionId>, desired: &mut Desired) {
    let (Some(node), Some(claim)) = (view.node, view.claim_name()) else {
        return;
    };
    desired.objects.push(workloads::collect(
        view.owner,
        view.site,
        &Collect {
            keep: keep.iter().map(RevisionId::as_str).collect(),
            placement: &view.engine.placement,
            hostname: &node.hostname,
            claim: &claim,
        },
    ));
}

/// Jobs that collect, with how they ended.
pub(crate) fn collections(view: &View<'_>) -> Vec<(String, Option<bool>)> {
    view.world
        .jobs
        .iter()
        .filter(|job| label(&job.metadata, COMPONENT) == Some(Component::Collect.as_str()))
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .map(|job| {
            let conditions = job.status.as_ref().and_then(|it| it.conditions.as_ref());
            let holds = |kind: &str| {
                conditions.is_some_and(|all| {
                    all.iter()
                        .any(|one| one.type_ == kind && one.status == "True")
                })
            };
            let ended = if holds("Complete") {
                Some(true)
            } else if holds("Failed") {
                Some(false)
            } else {
                None
            };
            (job.metadata.name.clone().unwrap_or_default(), ended)
        })
        .collect()
}
