//! A cluster as a value, for tests: objects that are applied are there, and a kubelet that does what
//! a test wants of it. No client and no time but the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::{Decision, decide};
use super::desired::{Desired, desired};
use super::diff::agrees;
use super::names::{self, COMPONENT, Component, INSTANCE, REVISION};
use super::node::{Chosen, choose};
use super::notes::{Companion, InForce, Notes};
use super::observe::{launch, routes_wanted};
use super::state::Saved;
use super::status::status;
use super::view::View;
use super::workloads::{Kind, Object, Order, Owner, Site};
use super::world::{World, annotation, label};
use super::write::Applied;
use crate::api::{InferenceEngineStatus, RevisionId, ValidatedEngine};
use crate::cache::Report;
use crate::planner::{Action, Failure, Health, Measured, Plan, Proof, Reason, Timestamp, Verdict};

/// What becomes of the engines of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They serve.
    Good,
    /// They end with an exit code as soon as they are started.
    Exits(i32),
    /// They never get ready.
    Hangs,
    /// They are ready and generate nothing.
    Mute,
}

/// See the module.
pub struct Simulation {
    pub site: Site,
    pub owner: Owner,
    pub engine: ValidatedEngine,
    pub deleting: bool,
    pub world: World,
    pub saved: Saved,
    pub notes: Notes,
    pub status: InferenceEngineStatus,
    pub now: Timestamp,
    pub fates: BTreeMap<RevisionId, Fate>,
    /// What the next fetches come to; good ones after these.
    pub fetches: Vec<Failure>,
    /// What the next builds come to; good ones after these.
    pub builds: Vec<Failure>,
    /// Whether builds go on and on.
    pub builds_go_on: bool,
    pub writes: usize,
    uids: u64,
}

/// A resource as YAML.
pub fn parse(spec: &str) -> ValidatedEngine {
    let yaml = format!(
        "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\n\
         metadata: {{ name: smol, namespace: models }}\nspec: {spec}\n"
    );
    crate::api::parse(&yaml).unwrap()
}

/// The smallest resource of the tests.
pub const SMALL: &str = "{ model: { source: \"pvc://models/m.gguf\" }, engine: { policy: Never, \
     maxInputTokens: 512, maxOutputTokens: 128, slots: 2 }, health: { soak: 5s, probeInterval: 1s } }";

/// What the operator is told.
pub fn site() -> Site {
    Site {
        image: "registry.example/enginewright@sha256:00".to_owned(),
        tensorrt_image: None,
        ollama_image: "docker.io/ollama/ollama:0.12.6".to_owned(),
        pull_policy: None,
        allowed_images: vec!["registry.example/engines/".to_owned()],
        namespace: "enginewright-system".to_owned(),
        priority_prefix: Some("enginewright-".to_owned()),
        gateways: 2,
    }
}

fn node(name: &str) -> Arc<Node> {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"memory": "16Gi", "cpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

impl Simulation {
    pub fn new(spec: &str) -> Self {
        let mut engine = parse(spec);
        engine.generation = Some(1);
        Self {
            site: site(),
            owner: Owner {
                name: engine.name.clone(),
                namespace: engine.namespace.clone(),
                uid: "uid-0".to_owned(),
            },
            engine,
            deleting: false,
            world: World {
                nodes: vec![node("orin")],
                ..World::default()
            },
            saved: Saved::default(),
            notes: Notes::default(),
            status: InferenceEngineStatus::default(),
            now: Timestamp(1_000),
            fates: BTreeMap::new(),
            fetches: Vec::new(),
            builds: Vec::new(),
            builds_go_on: false,
            writes: 0,
            uids: 0,
        }
    }

    /// Another spec under the same name.
    pub fn change(&mut self, spec: &str) {
        let generation = self.engine.generation.map(|old| old + 1);
        self.engine = parse(spec);
        self.engine.generation = generation;
    }

    fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    pub fn node(&self) -> Option<Chosen> {
        choose(
            &self.engine.placement,
            &self.world.nodes,
            &self.world.described,
            self.saved.node.as_deref(),
        )
    }

    /// One reconciliation; what it planned.
    pub fn reconcile(&mut self) -> Plan {
        let node = self.node();
        let saved = self.saved.clone();
        let mut notes = std::mem::take(&mut self.notes);
        let (decision, wanted) = {
            let view = self.view(&saved, node.as_ref());
            let decision = decide(&view, &mut notes, self.now);
            let view = self.view(&decision.saved, node.as_ref());
            let wanted = desired(&view, &notes, &decision.plan);
            (decision, wanted)
        };
        let Decision { saved, plan } = decision;
        self.notes = notes;
        if saved != self.saved {
            self.writes += 1;
            self.saved = saved;
        }
        self.act(&plan);
        self.apply(&wanted);
        let saved = self.saved.clone();
        let view = self.view(&saved, node.as_ref());
        let next = status(&view, &plan, &Applied::default(), &self.status, "now");
        if next != self.status {
            self.writes += 1;
            self.status = next;
        }
        plan
    }

    fn view<'a>(&'a self, saved: &'a Saved, node: Option<&'a Chosen>) -> View<'a> {
        View {
            site: &self.site,
            owner: &self.owner,
            engine: &self.engine,
            deleting: self.deleting,
            world: &self.world,
            saved,
            node,
        }
    }

    fn act(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match action {
                Action::Prove { instance } => {
                    let fate = self
                        .world
                        .deployments
                        .iter()
                        .filter_map(launch)
                        .find(|launch| launch.instance == *instance)
                        .map_or(Fate::Good, |launch| self.fate(&launch.revision));
                    let smoke = if fate == Fate::Mute {
                        Verdict::Bad(failure(Reason::GenerationFailed, false))
                    } else {
                        Verdict::Good
                    };
                    let findings = self.notes.engines.entry(*instance).or_default();
                    findings.proof = Proof::Done {
                        at: self.now,
                        smoke,
                        objectives: Verdict::Good,
                        measured: Some(Measured::default()),
                    };
                }
                Action::Watch { instance, interval } => {
                    let findings = self.notes.engines.entry(*instance).or_default();
                    findings.health = Some(Health {
                        interval: *interval,
                        ..Health::default()
                    });
                }
                _ => {}
            }
        }
    }

    fn fate(&self, revision: &RevisionId) -> Fate {
        self.fates.get(revision).copied().unwrap_or(Fate::Good)
    }

    fn apply(&mut self, wanted: &Desired) {
        for object in &wanted.objects {
            let live = self.world.live(object.kind, &object.name);
            if live
                .as_ref()
                .is_some_and(|live| live.deleting || agrees(&object.value, &live.value))
            {
                continue;
            }
            self.writes += 1;
            self.put(object, live.map(|live| live.uid));
        }
        for told in &wanted.told {
            self.writes += 1;
            for pod in &mut self.world.pods {
                if pod.metadata.uid.as_deref() == Some(told.uid.as_str()) {
                    let annotations = pod.metadata.annotations.get_or_insert_default();
                    annotations.insert(told.key.to_owned(), told.value.clone());
                }
            }
        }
        for live in &wanted.doomed {
            self.writes += 1;
            self.doom(live.kind, &live.name);
        }
    }

    fn put(&mut self, object: &Object, uid: Option<String>) {
        let mut value = object.value.clone();
        let uid = uid.unwrap_or_else(|| self.uid());
        value["metadata"]["uid"] = json!(uid);
        value["metadata"]["resourceVersion"] = json!(self.writes.to_string());
        let world = &mut self.world;
        match object.kind {
            Kind::ConfigMap => replace(&mut world.maps, value),
            Kind::PersistentVolumeClaim => replace(&mut world.claims, value),
            Kind::Service => replace(&mut world.services, value),
            Kind::NetworkPolicy => replace(&mut world.policies, value),
            Kind::PodDisruptionBudget => replace(&mut world.budgets, value),
            Kind::Deployment => replace(&mut world.deployments, value),
            Kind::Job => replace(&mut world.jobs, value),
        }
    }

    fn doom(&mut self, kind: Kind, name: &str) {
        let other = |meta: &ObjectMeta| meta.name.as_deref() != Some(name);
        let world = &mut self.world;
        match kind {
            Kind::Deployment => {
                for one in &mut world.deployments {
                    if !other(&one.metadata) {
                        one.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
                    }
                }
            }
            Kind::ConfigMap => world.maps.retain(|one| other(&one.metadata)),
            Kind::Service => world.services.retain(|one| other(&one.metadata)),
            Kind::PodDisruptionBudget => world.budgets.retain(|one| other(&one.metadata)),
            Kind::Job => world.jobs.retain(|one| other(&one.metadata)),
            Kind::NetworkPolicy => world.policies.retain(|one| other(&one.metadata)),
            Kind::PersistentVolumeClaim => world.claims.retain(|one| other(&one.metadata)),
        }
    }

    /// What the cluster does meanwhile.
    pub fn kubelet(&mut self) {
        let going: BTreeSet<String> = self
            .world
            .deployments
            .iter()
            .filter(|one| one.metadata.deletion_timestamp.is_some())
            .filter_map(|one| one.metadata.name.clone())
            .collect();
        let owner = |pod: &Pod| {
            label(&pod.metadata, "test/owner")
                .unwrap_or_default()
                .to_owned()
        };
        self.world.pods.retain(|pod| !going.contains(&owner(pod)));
        self.world
            .deployments
            .retain(|one| one.metadata.deletion_timestamp.is_none());
        for deployment in self.world.deployments.clone() {
            self.run_pods(&deployment);
        }
        self.run_jobs();
        let saved = self.saved.clone();
        let view = self.view(&saved, None);
        if let Some((route, generation)) = routes_wanted(&view) {
            let pods = self
                .world
                .pods_of(Component::Gateway)
                .filter_map(|pod| pod.metadata.uid.clone())
                .collect();
            self.notes.in_force = Some(InForce {
                generation,
                route,
                pods,
            });
        }
    }

    fn run_pods(&mut self, deployment: &Deployment) {
        let name = deployment.metadata.name.clone().unwrap();
        let spec = deployment.spec.clone().unwrap();
        let replicas = usize::try_from(spec.replicas.unwrap_or(1)).unwrap();
        let mut mine: Vec<Pod> = Vec::new();
        self.world.pods.retain(|pod| {
            let own = label(&pod.metadata, "test/owner") == Some(name.as_str());
            if own {
                mine.push(pod.clone());
            }
            !own
        });
        mine.truncate(replicas);
        while mine.len() < replicas {
            let uid = self.uid();
            let mut meta = spec.template.metadata.clone().unwrap();
            meta.name = Some(format!("{name}-{uid}"));
            meta.uid = Some(uid);
            let labels = meta.labels.get_or_insert_default();
            labels.insert("test/owner".to_owned(), name.clone());
            mine.push(Pod {
                metadata: meta,
                ..Pod::default()
            });
        }
        let component = label(&deployment.metadata, COMPONENT).unwrap().to_owned();
        let revision = label(&deployment.metadata, REVISION).map(RevisionId::new);
        let fate = revision.map_or(Fate::Good, |id| self.fate(&id));
        for pod in &mut mine {
            pod.status = Some(serde_json::from_value(pod_status(&component, fate)).unwrap());
        }
        if component == "ollama" {
            let order = annotation(&deployment.metadata, names::ORDER).and_then(Order::parse);
            if let Some(pod) = mine.first() {
                self.notes.companion = Some(Companion {
                    pod: pod.metadata.uid.clone().unwrap(),
                    order,
                    done: true,
                    problem: None,
                });
            }
        }
        self.world.pods.extend(mine);
    }

    fn run_jobs(&mut self) {
        for job in &mut self.world.jobs {
            if job.status.is_some() {
                continue;
            }
            let name = job.metadata.name.clone().unwrap();
            let kind = label(&job.metadata, COMPONENT).unwrap().to_owned();
            let builds = kind == "build";
            if builds && self.builds_go_on {
                continue;
            }
            let failures = if builds {
                &mut self.builds
            } else {
                &mut self.fetches
            };
            let report = if !failures.is_empty() {
                Report::Failed(failures.remove(0))
            } else if builds {
                Report::Built {
                    bundle: "0b".repeat(32),
                }
            } else {
                Report::Fetched {
                    sha256: "0a".repeat(32),
                    facts: crate::model::catalogue::find("smollm2-135m").unwrap(),
                }
            };
            let ended = match report {
                Report::Fetched { .. } | Report::Built { .. } => "Complete",
                Report::Failed(_) => "Failed",
            };
            let status = json!({"conditions": [{"type": ended, "status": "True"}]});
            job.status = Some(serde_json::from_value(status).unwrap());
            let pod = json!({
                "metadata": {"name": format!("{name}-pod"), "labels": {
                    "batch.kubernetes.io/job-name": name, COMPONENT: kind,
                }},
                "status": {"phase": "Succeeded", "containerStatuses": [{
                    "name": kind, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {
                        "exitCode": 0, "message": serde_json::to_string(&report).unwrap(),
                    }},
                }]},
            });
            self.world.pods.push(serde_json::from_value(pod).unwrap());
        }
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for findings in self.notes.engines.values_mut() {
            if let Some(health) = &mut findings.health {
                health.last_success = Some(self.now);
            }
        }
    }

    /// Until nothing more happens without time passing.
    pub fn settle(&mut self) {
        for _ in 0..60 {
            let before = self.writes;
            let plan = self.reconcile();
            self.kubelet();
            if self.writes == before && plan.actions.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Until nothing more happens in `time`, looked at every second.
    pub fn live(&mut self, time: Duration) {
        self.settle();
        for _ in 0..time.as_secs() {
            self.wait(Duration::from_secs(1));
            self.settle();
        }
    }

    /// Numbers of the engines that are there.
    pub fn engines(&self) -> Vec<String> {
        let engines = self.world.deployments.iter();
        engines
            .filter_map(|one| label(&one.metadata, INSTANCE).map(str::to_owned))
            .collect()
    }
}

fn replace<K: kube::Resource + DeserializeOwned>(all: &mut Vec<K>, value: Value) {
    let mut object: K = serde_json::from_value(value).unwrap();
    let old = all
        .iter()
        .position(|one| one.meta().name == object.meta().name);
    match old {
        Some(at) => {
            object.meta_mut().creation_timestamp = all[at].meta().creation_timestamp.clone();
            all[at] = object;
        }
        None => all.push(object),
    }
}

fn pod_status(component: &str, fate: Fate) -> Value {
    let containers = match component {
        "ollama" => vec!["ollama", "companion"],
        other => vec![other],
    };
    let ready = matches!(fate, Fate::Good | Fate::Mute);
    let state = match fate {
        Fate::Exits(code) => json!({"terminated": {"exitCode": code, "reason": "Error",
            "message": "{\"message\":\"cannot load the model\"}"}}),
        _ => json!({"running": {}}),
    };
    let statuses: Vec<Value> = containers
        .iter()
        .map(|name| {
            json!({"name": name, "image": "", "imageID": "", "ready": ready, "started": ready,
                "restartCount": 0, "state": state})
        })
        .collect();
    json!({
        "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": statuses,
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
    })
}

/// A failure.
pub fn failure(reason: Reason, transient: bool) -> Failure {
    Failure {
        reason,
        message: "It failed.".to_owned(),
        exit_code: None,
        transient,
    }
}
