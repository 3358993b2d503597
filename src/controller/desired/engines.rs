//! Engines: those that are there and not to be ended, and those to be started.

use super::Desired;
use crate::controller::names;
use crate::controller::observe::launch;
use crate::controller::view::View;
use crate::controller::workloads::{self, Kind, Launch};
use crate::planner::{Action, InstanceId, Plan, RevisionId};

pub(super) fn engines(view: &View<'_>, plan: &Plan, desired: &mut Desired) {
    let ended = |id: InstanceId| {
        plan.actions
            .iter()
            .any(|action| matches!(action, Action::StopEngine { instance, .. } if *instance == id))
    };
    for deployment in &view.world.deployments {
        let meta = &deployment.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let number = crate::controller::world::label(meta, names::INSTANCE)
            .and_then(|text| text.parse().ok().map(InstanceId));
        let Some(id) = number else { continue };
        if ended(id) {
            desired.doom(view, Kind::Deployment, &name);
            desired.doom(view, Kind::Service, &name);
            continue;
        }
        if meta.deletion_timestamp.is_none()
            && let Some(launch) = launch(deployment)
        {
            desired
                .objects
                .extend(workloads::engine(view.owner, view.site, &launch));
        }
    }
    // A Service outlives its Deployment where the operator ended between the two.
    for service in &view.world.services {
        let name = service.metadata.name.clone().unwrap_or_default();
        let engine = crate::controller::world::label(&service.metadata, names::INSTANCE).is_some();
        if engine && view.world.deployment(&name).is_none() {
            desired.doom(view, Kind::Service, &name);
        }
    }
    for action in &plan.actions {
        if let Action::StartEngine {
            instance,
            revision,
            attempt,
            memory_bytes,
            exclusive,
        } = action
            && let Some(launch) = start(
                view,
                *instance,
                revision,
                *attempt,
                *memory_bytes,
                *exclusive,
            )
        {
            desired
                .objects
                .extend(workloads::engine(view.owner, view.site, &launch));
        }
    }
}

fn start(
    view: &View<'_>,
    instance: InstanceId,
    revision: &RevisionId,
    attempt: u32,
    memory_bytes: u64,
    exclusive: bool,
) -> Option<Launch> {
    let stored = view.stored(revision)?;
    let node = view.node?;
    // Our own server is started from the present release, another one as it was.
    let tensorrt = view.tensorrt().filter(|_| view.on_gpu(revision));
    let gpu = tensorrt.zip(stored.bundle.as_ref());
    let server = match &stored.server {
        workloads::Server::Native { .. } => workloads::Server::Native {
            image: gpu
                .map_or(view.site.image.as_str(), |(it, _)| it.image)
                .to_owned(),
        },
        other @ workloads::Server::Image { .. } => other.clone(),
    };
    Some(Launch {
        instance,
        revision: revision.clone(),
        attempt,
        memory_bytes,
        exclusive,
        runtime_class: match &server {
            workloads::Server::Native { .. } => gpu.map(|(it, _)| it.runtime_class.to_owned()),
            workloads::Server::Image { .. } => node.runtime_class.clone(),
        },
        bundle: gpu.map(|(_, bundle)| workloads::bundle_path(revision, bundle)),
        server,
        served: stored.served.clone(),
        sha256: stored.sha256.clone(),
        node: node.name.clone(),
        hostname: node.hostname.clone(),
        claim: view.claim_name()?,
        tolerations: view.engine.placement.tolerations.clone(),
        drain: view.engine.rollout.drain_timeout.as_secs(),
        startup: view.engine.runtime.startup_deadline.as_secs(),
        // Its threads wait for each other by spinning: with one processor less than there are, they
        // do not also wait for the gateway, the fallback and the kubelet.
        threads: Some(node.hardware.cpu.cores.saturating_sub(1).max(1)),
    })
}
