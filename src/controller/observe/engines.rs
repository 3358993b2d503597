//! Engines: each is a Deployment and its pods, told apart by the number in their labels.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use super::pods::{Standing, standing};
use crate::api::Reason;
use crate::controller::names::{COMPONENT, Component, INSTANCE, LAUNCH, REVISION};
use crate::controller::notes::Notes;
use crate::controller::view::View;
use crate::controller::workloads::Launch;
use crate::controller::world::{annotation, label};
use crate::planner::{Failure, Instance, InstanceId, Phase, RevisionId, Timestamp, transient};

#[derive(Default)]
struct Parts<'a> {
    deployment: Option<&'a Deployment>,
    pods: Vec<&'a Pod>,
}

/// All engines that are there in whatever form.
pub(super) fn engines(
    view: &View<'_>,
    notes: &mut Notes,
    primary: Option<InstanceId>,
    now: Timestamp,
) -> Vec<Instance> {
    let mut parts: BTreeMap<InstanceId, Parts<'_>> = BTreeMap::new();
    for deployment in &view.world.deployments {
        if label(&deployment.metadata, COMPONENT) == Some(Component::Engine.as_str())
            && let Some(id) = number(label(&deployment.metadata, INSTANCE))
        {
            parts.entry(id).or_default().deployment = Some(deployment);
        }
    }
    for pod in view.world.pods_of(Component::Engine) {
        if let Some(id) = number(label(&pod.metadata, INSTANCE)) {
            parts.entry(id).or_default().pods.push(pod);
        }
    }
    parts
        .into_iter()
        .map(|(id, parts)| instance(view, id, &parts, notes, primary, now))
        .collect()
}

fn number(text: Option<&str>) -> Option<InstanceId> {
    text?.parse().ok().map(InstanceId)
}

/// What an engine's Deployment was made from.
pub(crate) fn launch(deployment: &Deployment) -> Option<Launch> {
    serde_json::from_str(annotation(&deployment.metadata, LAUNCH)?).ok()
}

fn instance(
    view: &View<'_>,
    id: InstanceId,
    parts: &Parts<'_>,
    notes: &mut Notes,
    primary: Option<InstanceId>,
    now: Timestamp,
) -> Instance {
    let launch = parts.deployment.and_then(launch);
    let here = launch
        .as_ref()
        .is_some_and(|launch| view.node.is_none_or(|node| node.name == launch.node));
    let phase = phase(view, id, parts, here, notes, now);
    let revision = launch.as_ref().map_or_else(
        || {
            let meta = parts.pods.first().map(|pod| &pod.metadata);
            let named = meta.and_then(|meta| label(meta, REVISION));
            RevisionId::new(named.unwrap_or("unknown"))
        },
        |launch| launch.revision.clone(),
    );
    let findings = notes.engines.entry(id).or_default();
    let serves = primary == Some(id) && phase == Phase::Ready;
    findings.serving_since = serves.then(|| findings.serving_since.unwrap_or(now));
    Instance {
        id,
        revision,
        phase,
        memory_bytes: launch.as_ref().map_or(0, |launch| launch.memory_bytes),
        exclusive: launch.as_ref().is_some_and(|launch| launch.exclusive),
        proof: findings.proof.clone(),
        serving_since: findings.serving_since,
        health: findings.health,
    }
}

fn phase(
    view: &View<'_>,
    id: InstanceId,
    parts: &Parts<'_>,
    here: bool,
    notes: &mut Notes,
    now: Timestamp,
) -> Phase {
    let starting = notes.since(format!("engine-{id}"), now);
    let Some(deployment) = parts.deployment else {
        return Phase::Stopping;
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Phase::Stopping;
    }
    let exited = |notes: &mut Notes, failure: Failure| Phase::Exited {
        at: notes.since(format!("engine-{id}-exited"), now),
        failure,
    };
    if !here {
        // Another node serves now, or nobody can say any more what it was made from.
        let text = "The engine is not where it shall be and is made anew.";
        let failure = transient(Reason::EnvironmentError, text);
        return exited(notes, failure);
    }
    // The newest pod speaks: an older one was drained or evicted.
    let newest = parts
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    match newest.map(|pod| standing(pod, "engine")) {
        Some(Standing::Ended(failure)) => exited(notes, failure),
        Some(Standing::Stuck(failure)) if !failure.transient => exited(notes, failure),
        // What stood in the way all the time is the reason, not that time ran out.
        Some(Standing::Stuck(failure))
            if now >= starting + view.engine.runtime.startup_deadline =>
        {
            let failure = Failure {
                transient: false,
                ..failure
            };
            exited(notes, failure)
        }
        Some(Standing::Started) => Phase::Ready,
        Some(Standing::Coming | Standing::Stuck(_)) | None => Phase::Starting { since: starting },
    }
}
