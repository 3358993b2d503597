//! Who is asked beside a reconciliation: engines, gateways, companions, and when a first plan has to
//! wait for their answers. The asking itself is in [`super::tasks`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::{self, Component};
use super::observe::{launch, routes_wanted};
use super::reconcile::Subject;
use super::tasks::{Key, Target};
use super::view::View;
use super::workloads::Order;
use super::world::{address, annotation, is_ready, label};
use crate::api::Ollama;
use crate::planner::{InstanceId, Lifecycle};

/// How long a first plan waits for those who are asked.
const INTRODUCTION: Duration = Duration::from_secs(5);

impl Subject<'_> {
    /// After a start of the operator those who know are asked first, for a moment: else the first plan
    /// would say that nothing serves, only because nobody has answered yet.
    pub(super) fn is_introduced(&self) -> bool {
        let now = self.ctx.clock.now();
        let view = self.view(&self.saved);
        let first = *self.known.notes().first.get_or_insert(now);
        if now.since(first) >= INTRODUCTION || view.lifecycle() != Lifecycle::Run {
            return true;
        }
        self.ask(&view);
        let notes = self.known.notes();
        let serves = view.world.pods_of(Component::Gateway).any(is_ready);
        let routes = notes.in_force.is_some() || routes_wanted(&view).is_none() || !serves;
        let name = names::ollama(&self.owner.name);
        let parked = view.world.deployment(&name).is_some_and(|one| {
            annotation(&one.metadata, names::ORDER) == Some(Order::Park.as_str())
        });
        let pods = view.world.pods_of(Component::Ollama).any(is_ready);
        let companion = notes.companion.is_some() || !parked || !pods;
        let external = matches!(self.engine.fallback.ollama, Some(Ollama::External { .. }));
        routes && companion && (notes.external.is_some() || !external)
    }

    pub(super) fn target(&self, view: &View<'_>, id: InstanceId) -> Option<Target> {
        let launch = view
            .world
            .deployments
            .iter()
            .filter_map(launch)
            .find(|launch| launch.instance == id)?;
        let number = id.to_string();
        let pod = view
            .world
            .pods_of(Component::Engine)
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .find(|pod| label(&pod.metadata, names::INSTANCE) == Some(number.as_str()))?;
        Some(Target {
            id,
            origin: format!("http://{}:{}", address(pod)?, launch.port()),
            model: launch.model_name().to_owned(),
            objectives: self.engine.objectives,
            limit: self.engine.health.probe_timeout,
        })
    }

    /// Has those asked from whom something is expected.
    pub(super) fn ask(&self, view: &View<'_>) {
        let present = |id: &InstanceId| {
            let number = id.to_string();
            view.world.deployments.iter().any(|one| {
                label(&one.metadata, names::INSTANCE) == Some(number.as_str())
                    && one.metadata.deletion_timestamp.is_none()
            })
        };
        let external = match &self.engine.fallback.ollama {
            Some(Ollama::External { url, model }) if view.lifecycle() == Lifecycle::Run => {
                let interval = self
                    .engine
                    .health
                    .probe_interval
                    .max(Duration::from_secs(2));
                self.asker
                    .watch_external(url.clone(), model.clone(), interval);
                true
            }
            _ => false,
        };
        self.known.keep(|key| match key {
            Key::Proof(id) | Key::Watch(id) => present(id),
            Key::External => external,
            Key::Routes | Key::Companion => view.lifecycle() == Lifecycle::Run,
        });
        self.follow_engines(view);
        self.ask_gateways(view);
        self.ask_companion(view);
    }

    /// A watched engine whose pod moved is watched where it is now.
    fn follow_engines(&self, view: &View<'_>) {
        let watched: Vec<(InstanceId, Duration)> = {
            let notes = self.known.notes();
            let findings = notes.engines.iter();
            findings
                .filter_map(|(id, findings)| Some((*id, findings.health?.interval)))
                .collect()
        };
        for (id, interval) in watched {
            if let Some(target) = self.target(view, id) {
                self.asker.watch(target, interval);
            }
        }
    }

    fn ask_gateways(&self, view: &View<'_>) {
        let Some((route, generation)) = routes_wanted(view) else {
            return;
        };
        let gateways: BTreeMap<String, String> = view
            .world
            .pods_of(Component::Gateway)
            .filter(|pod| is_ready(pod))
            .filter_map(|pod| Some((pod.metadata.uid.clone()?, address(pod)?.to_owned())))
            .collect();
        let known = self
            .known
            .notes()
            .in_force
            .as_ref()
            .is_some_and(|in_force| {
                in_force.generation == generation
                    && gateways.keys().all(|uid| in_force.pods.contains(uid))
            });
        if !known && !gateways.is_empty() {
            self.asker.confirm(generation, route, gateways);
        }
    }

    fn ask_companion(&self, view: &View<'_>) {
        let name = names::ollama(&view.owner.name);
        let Some(deployment) = view.world.deployment(&name) else {
            return;
        };
        let order = annotation(&deployment.metadata, names::ORDER).and_then(Order::parse);
        let pod = view
            .world
            .pods_of(Component::Ollama)
            .find(|pod| pod.metadata.deletion_timestamp.is_none());
        let (Some(order), Some(pod)) = (order, pod) else {
            return;
        };
        let (Some(uid), Some(at)) = (pod.metadata.uid.clone(), address(pod)) else {
            return;
        };
        let settled = self.known.notes().companion.as_ref().is_some_and(|said| {
            said.pod == uid && said.done && said.order == Some(order) && said.problem.is_none()
        });
        if !settled || !is_ready(pod) {
            self.asker.ask_companion(uid, at, order);
        }
    }
}
