//! The gateway, the fallback, and which routes are in force.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::pods::{Standing, standing};
use crate::api::{Ollama, Reason};
use crate::controller::names::{self, Component, ORDER, ROUTE, ROUTES_WANTED};
use crate::controller::notes::Notes;
use crate::controller::view::View;
use crate::controller::workloads::Order;
use crate::controller::world::{annotation, is_ready};
use crate::gateway::routes::RouteTable;
use crate::planner::{Route, Service, Timestamp, transient};

pub(super) fn gateway(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Service {
    service(
        view,
        notes,
        Component::Gateway,
        &names::gateway(&view.owner.name),
        "gateway",
        now,
    )
}

/// A Deployment of which one ready pod is enough.
fn service(
    view: &View<'_>,
    notes: &mut Notes,
    component: Component,
    name: &str,
    container: &str,
    now: Timestamp,
) -> Service {
    let pods: Vec<&Pod> = view.world.pods_of(component).collect();
    let deployment = view
        .world
        .deployment(name)
        .filter(|one| one.metadata.deletion_timestamp.is_none());
    let Some(_) = deployment else {
        let leftover = view.world.deployment(name).is_some() || !pods.is_empty();
        return if leftover {
            Service::Stopping
        } else {
            Service::Absent
        };
    };
    if pods.iter().any(|pod| is_ready(pod)) {
        let since = notes.since(format!("{name}-ready"), now);
        return Service::Ready { since };
    }
    let since = notes.since(format!("{name}-starting"), now);
    let newest = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    match newest.map(|pod| standing(pod, container)) {
        Some(Standing::Ended(failure) | Standing::Stuck(failure)) => Service::Failed {
            at: notes.since(format!("{name}-failed"), now),
            failure: crate::planner::Failure {
                reason: match component {
                    Component::Gateway => Reason::GatewayUnavailable,
                    _ => Reason::FallbackUnavailable,
                },
                ..failure
            },
        },
        Some(Standing::Coming | Standing::Started) | None => Service::Starting { since },
    }
}

pub(super) fn fallback(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Service {
    match &view.engine.fallback.ollama {
        Some(Ollama::External { url, .. }) => external(url, notes, now),
        Some(Ollama::Managed { .. }) | None => managed(view, notes, now),
    }
}

fn external(url: &str, notes: &mut Notes, now: Timestamp) -> Service {
    match notes.external.clone() {
        None => Service::Starting {
            since: notes.since("external-starting", now),
        },
        Some(Ok(())) => Service::Ready {
            since: notes.since("external-ready", now),
        },
        Some(Err(problem)) => Service::Failed {
            at: notes.since("external-failed", now),
            failure: transient(
                Reason::FallbackUnavailable,
                &format!("The Ollama at {url} cannot serve: {problem}."),
            ),
        },
    }
}

fn managed(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Service {
    let name = names::ollama(&view.owner.name);
    let live = view
        .world
        .deployment(&name)
        .filter(|one| one.metadata.deletion_timestamp.is_none());
    let Some(deployment) = live else {
        if notes.fallback_ordered && view.world.deployment(&name).is_none() {
            if let Err((_, message)) = view.ollama_image() {
                return Service::Failed {
                    at: notes.since("ollama-refused", now),
                    failure: crate::planner::Failure {
                        reason: Reason::FallbackUnavailable,
                        message,
                        exit_code: None,
                        transient: false,
                    },
                };
            }
            // It waits for its model.
            return Service::Starting {
                since: notes.since("ollama-ordered", now),
            };
        }
        return service(view, notes, Component::Ollama, &name, "ollama", now);
    };
    let pods: Vec<&Pod> = view.world.pods_of(Component::Ollama).collect();
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    if replicas == Some(0) {
        return if pods.is_empty() {
            Service::Parked
        } else {
            Service::Stopping
        };
    }
    let order = annotation(&deployment.metadata, ORDER).and_then(Order::parse);
    let said = notes.companion.clone().filter(|said| {
        pods.iter()
            .any(|pod| pod.metadata.uid.as_deref() == Some(said.pod.as_str()))
    });
    if order == Some(Order::Park) {
        let parked = said.is_some_and(|said| said.order == order && said.done);
        return if parked || pods.is_empty() {
            Service::Parked
        } else {
            Service::Stopping
        };
    }
    let state = service(view, notes, Component::Ollama, &name, "ollama", now);
    match (state, said) {
        (Service::Starting { .. }, Some(said)) if said.problem.is_some() => Service::Failed {
            at: notes.since("ollama-problem", now),
            failure: said.problem.unwrap_or_else(|| {
                transient(Reason::FallbackUnavailable, "The fallback has a problem.")
            }),
        },
        (state, _) => state,
    }
}

/// The planner's route behind the table that was last written, and the table's generation.
pub fn routes_wanted(view: &View<'_>) -> Option<(Route, u64)> {
    let map = view.world.map(&names::routes(&view.owner.name))?;
    if map.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let route = serde_json::from_str(annotation(&map.metadata, ROUTE)?).ok()?;
    Some((route, routes_generation(map)))
}

/// The generation of a written table; 0 where none can be read.
fn routes_generation(map: &k8s_openapi::api::core::v1::ConfigMap) -> u64 {
    let text = map.data.as_ref().and_then(|data| data.get("routes.json"));
    text.and_then(|text| RouteTable::parse(text.as_bytes()).ok())
        .map_or(0, |table| table.generation)
}

/// The route in force: the newest once all gateways have taken it over, and until then the one before,
/// so that nothing that is still asked is ended, or taken for gone.
pub(super) fn routed(view: &View<'_>, notes: &Notes) -> Option<Route> {
    routes_wanted(view)?;
    let in_force = notes.in_force.as_ref()?;
    let serves = gateways(view).iter().any(|pod| in_force.pods.contains(pod));
    serves.then_some(in_force.route)
}

/// UIDs of the gateways that serve now.
fn gateways(view: &View<'_>) -> BTreeSet<String> {
    view.world
        .pods_of(Component::Gateway)
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect()
}

/// Whether a gateway's pod was told of a table, once or again.
pub(crate) fn was_told(pod: &Pod, generation: u64) -> bool {
    let told = annotation(&pod.metadata, ROUTES_WANTED).unwrap_or_default();
    told.split('.').next() == Some(generation.to_string().as_str())
}
