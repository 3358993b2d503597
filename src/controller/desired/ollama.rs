//! The managed fallback.

use super::{Desired, orders};
use crate::api::{Ollama, Residency};
use crate::controller::names::{self, Component, ORDER};
use crate::controller::notes::Notes;
use crate::controller::observe::routes_wanted;
use crate::controller::view::View;
use crate::controller::workloads::{self, Imported, Kind, Order};
use crate::controller::world::annotation;
use crate::planner::{Action, Lifecycle, Plan};

pub(super) fn ollama(view: &View<'_>, notes: &Notes, plan: &Plan, desired: &mut Desired) {
    let name = names::ollama(&view.owner.name);
    let live = view.world.deployment(&name);
    if orders(plan, |action| *action == Action::StopFallback) {
        desired.doom(view, Kind::Deployment, &name);
        desired.doom(view, Kind::Service, &name);
        return;
    }
    let going = live.is_some_and(|one| one.metadata.deletion_timestamp.is_some());
    let ensure = orders(plan, |action| *action == Action::EnsureFallback) || notes.fallback_ordered;
    if going || !(ensure || live.is_some()) || view.lifecycle() != Lifecycle::Run {
        return;
    }
    let Some(Ollama::Managed { model, import, .. }) = &view.engine.fallback.ollama else {
        return;
    };
    let (Some(node), Some(claim)) = (view.node, view.claim_name()) else {
        return;
    };
    let Ok(image) = view.ollama_image() else {
        return;
    };
    let revision = view.fallback_revision();
    let imported = match (import, &revision) {
        (true, Some((id, stored))) => Some(Imported {
            revision: id.clone(),
            sha256: stored.sha256.clone(),
        }),
        // It comes up when its model is here; what runs with an older one goes on.
        (true, None) => return,
        (false, _) => None,
    };
    let order = order(view, plan, live.map(|one| &one.metadata));
    let residency = view.engine.fallback.residency;
    // What it serves is proven, and stays as it is while something else is tried.
    let (context_tokens, parallel) = revision.map_or_else(
        || {
            (
                view.engine.engine.context_tokens(),
                view.engine.engine.slots,
            )
        },
        |(_, stored)| (stored.served.context_tokens(), stored.served.slots),
    );
    desired.objects.push(workloads::cache(
        view.owner,
        &view.engine.placement,
        &node.name,
    ));
    desired.objects.extend(workloads::ollama(
        view.owner,
        view.site,
        &workloads::Ollama {
            image,
            model,
            imported,
            context_tokens,
            // The engine takes most processors: two that spin against each other are both slow.
            threads: (node.hardware.cpu.cores / 2).max(1),
            parallel,
            residency,
            up: !(residency == Residency::Cold && order == Order::Park),
            order,
            memory_bytes: view.fallback_bytes(),
            placement: &view.engine.placement,
            hostname: &node.hostname,
            claim: &claim,
            runtime_class: node.runtime_class.as_deref(),
        },
    ));
    for pod in view.world.pods_of(Component::Ollama) {
        desired.tell(pod, ORDER, order.as_str());
    }
}

/// What the companion shall do: what is ordered now, else what it was last told.
fn order(
    view: &View<'_>,
    plan: &Plan,
    live: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
) -> Order {
    if orders(plan, |action| *action == Action::ParkFallback) {
        return Order::Park;
    }
    let before = live.and_then(|meta| annotation(meta, ORDER).and_then(Order::parse));
    match before {
        Some(order) if order != Order::Park => order,
        Some(order) if !orders(plan, |action| *action == Action::EnsureFallback) => order,
        _ => {
            let engine_serves =
                routes_wanted(view).is_some_and(|(route, _)| route.primary.is_some());
            if view.engine.fallback.residency == Residency::Standby && engine_serves {
                Order::Standby
            } else {
                Order::Load
            }
        }
    }
}
