//! The gateway and its route table.

use core::net::{IpAddr, SocketAddr};

use super::{Desired, orders};
use crate::api::{ActiveBackend, Ollama};
use crate::controller::names::{self, Component, ROUTES_WANTED};
use crate::controller::notes::Notes;
use crate::controller::observe::{launch, routes_wanted, was_told};
use crate::controller::view::View;
use crate::controller::workloads::{self, GATEWAY_PORT, Gateway, Kind, Mounted, OLLAMA_PORT};
use crate::gateway::routes::{BreakerSettings, RouteTable, Timeouts, Upstream, UpstreamKind};
use crate::planner::{Action, InstanceId, Plan, Route};

/// Longest time between two questions to an upstream that does not answer, in milliseconds.
const BREAKER_OPEN: u64 = 1_000;

pub(super) fn gateway(view: &View<'_>, notes: &Notes, plan: &Plan, desired: &mut Desired) {
    let name = names::gateway(&view.owner.name);
    let live = view.world.deployment(&name);
    let going = live.is_some_and(|one| one.metadata.deletion_timestamp.is_some());
    let ordered = orders(plan, |action| *action == Action::EnsureGateway);
    if orders(plan, |action| *action == Action::StopGateway) {
        // Its Service goes with it: nobody shall be sent to where nobody listens.
        for (kind, name) in [
            (Kind::Deployment, name.clone()),
            (Kind::Service, names::endpoint(&view.owner.name)),
            (Kind::PodDisruptionBudget, name.clone()),
            (Kind::ConfigMap, names::routes(&view.owner.name)),
        ] {
            desired.doom(view, kind, &name);
        }
        return;
    }
    if going || !(ordered || live.is_some()) {
        return;
    }
    let pulls = matches!(
        view.engine.fallback.ollama,
        Some(Ollama::Managed { import: false, .. })
    );
    let engine_port = view
        .server()
        .map_or(workloads::ENGINE_PORT, |server| match server {
            workloads::Server::Native { .. } => workloads::ENGINE_PORT,
            workloads::Server::Image { port, .. } => port,
        });
    desired.objects.extend(workloads::policies(
        view.owner,
        view.site,
        engine_port,
        pulls,
    ));
    let (route, table) = table(view, plan);
    let generation = table.generation;
    desired
        .objects
        .push(workloads::routes(view.owner, route, &table));
    let model = view
        .fallback_revision()
        .and(view.node)
        .zip(view.claim_name())
        .map(|(node, claim)| Mounted {
            hostname: node.hostname.clone(),
            claim,
        });
    desired.objects.extend(workloads::gateway(
        view.owner,
        view.site,
        &Gateway {
            placement: &view.engine.placement,
            drain: view.engine.rollout.drain_timeout,
            model,
        },
    ));
    // A kubelet that was told before it knew of the table is told again.
    let version = match notes.nudges {
        0 => generation.to_string(),
        nudges => format!("{generation}.{nudges}"),
    };
    for pod in view.world.pods_of(Component::Gateway) {
        if notes.nudges > 0 || !was_told(pod, generation) {
            desired.tell(pod, ROUTES_WANTED, &version);
        }
    }
}

/// The route table: the one ordered now, else the last one with what it names as it is now. A table
/// that says the same keeps its generation.
fn table(view: &View<'_>, plan: &Plan) -> (Route, RouteTable) {
    let before = routes_wanted(view);
    let ordered = plan.actions.iter().rev().find_map(|action| match action {
        Action::Route(route) => Some(*route),
        _ => None,
    });
    let route = ordered
        .or_else(|| before.map(|(route, _)| route))
        .unwrap_or_default();
    let generation = before.map_or(0, |(_, generation)| generation);
    let mut table = build(view, route);
    table.generation = generation;
    let same = before.is_some_and(|(old, _)| old == route) && written(view) == Some(table.clone());
    if !same {
        table.generation = generation + 1;
    }
    (route, table)
}

fn written(view: &View<'_>) -> Option<RouteTable> {
    let map = view.world.map(&names::routes(&view.owner.name))?;
    let text = map.data.as_ref()?.get("routes.json")?;
    RouteTable::parse(text.as_bytes()).ok()
}

fn build(view: &View<'_>, route: Route) -> RouteTable {
    let primary = route.primary.and_then(|id| primary(view, id));
    let stored = primary
        .as_ref()
        .and_then(|(_, revision)| Some((revision.clone(), view.stored(revision)?)))
        .or_else(|| view.fallback_revision());
    let served_name = stored.as_ref().map_or_else(
        || view.engine.served_name.clone(),
        |(_, stored)| stored.served.served_name.clone(),
    );
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let health = &view.engine.health;
    RouteTable {
        primary: primary.map(|(upstream, _)| upstream),
        fallback: route.fallback.then(|| fallback(view)).flatten(),
        gguf: stored.map(|(revision, _)| {
            format!("/cache/revisions/{revision}/{}", workloads::MODEL_FILE).into()
        }),
        timeouts: Timeouts {
            first_token_ms: millis(health.first_token_timeout),
            stall_ms: millis(health.stall_timeout),
            ..Timeouts::default()
        },
        // Pods come and go: one that has come shall not wait to be asked.
        breaker: BreakerSettings {
            open_max_ms: BREAKER_OPEN,
            ..BreakerSettings::default()
        },
        ..RouteTable::empty(served_name)
    }
}

/// The engine as the gateway reaches it: by its Service, whose address survives its pod.
fn primary(view: &View<'_>, id: InstanceId) -> Option<(Upstream, crate::api::RevisionId)> {
    let launch = view
        .world
        .deployments
        .iter()
        .filter_map(launch)
        .find(|launch| launch.instance == id)?;
    let name = names::instance(&view.owner.name, &launch.revision, id);
    let (kind, backend) = match &launch.server {
        workloads::Server::Native { .. } => (UpstreamKind::Enginewright, ActiveBackend::Cpu),
        workloads::Server::Image { .. } => (UpstreamKind::OpenAi, ActiveBackend::Image),
    };
    let backend = if launch.revision == view.engine.revision() {
        backend
    } else {
        ActiveBackend::LastGood
    };
    let upstream = Upstream {
        kind,
        url: service_url(view, &name, launch.port())?,
        backend: backend.to_string(),
        model: launch.model_name().to_owned(),
        context_tokens: None,
        api_key_file: None,
    };
    Some((upstream, launch.revision))
}

fn fallback(view: &View<'_>) -> Option<Upstream> {
    let ollama = view.engine.fallback.ollama.as_ref()?;
    let (url, context) = match ollama {
        Ollama::External { url, .. } => (url.clone(), None),
        Ollama::Managed { .. } => {
            let name = names::ollama(&view.owner.name);
            let context = view.fallback_revision().map_or_else(
                || view.engine.engine.context_tokens(),
                |(_, stored)| stored.served.context_tokens(),
            );
            (service_url(view, &name, OLLAMA_PORT)?, Some(context))
        }
    };
    Some(Upstream {
        kind: UpstreamKind::Ollama,
        url,
        backend: ActiveBackend::Ollama.to_string(),
        model: ollama.model().to_owned(),
        context_tokens: context,
        api_key_file: None,
    })
}

/// Where a Service is reached, once there is one: by its address, which lives as long as it does, so
/// that no request waits for the cluster's name server, or fails with it.
fn service_url(view: &View<'_>, name: &str, port: u16) -> Option<String> {
    let spec = view.world.service(name)?.spec.as_ref()?;
    let address = spec
        .cluster_ip
        .as_ref()
        .and_then(|text| text.parse::<IpAddr>().ok());
    Some(match address {
        Some(address) => format!("http://{}", SocketAddr::new(address, port)),
        None => named_url(view, name, port),
    })
}

fn named_url(view: &View<'_>, name: &str, port: u16) -> String {
    format!("http://{name}.{}.svc:{port}", view.owner.namespace)
}

/// The endpoint, as the status names it.
pub(crate) fn endpoint(view: &View<'_>) -> String {
    named_url(view, &names::endpoint(&view.owner.name), GATEWAY_PORT)
}
