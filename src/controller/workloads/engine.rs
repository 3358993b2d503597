//! An engine: one Deployment and one Service for each start, never changed afterwards. What it was
//! made from is written on it, so that it can be put back when somebody edits it, also after the
//! spec has moved on.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, LocalObjectReference, PodSpec, PodTemplateSpec, Service, ServicePort,
    ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::common::{
    container, gpu, linger, meta, model_path, mount, pinned, pod, pod_labels, probe, resources,
    scratch, seconds, security, select, tolerations,
};
use super::{Kind, Object, Owner, Site, cache};
use crate::api::RevisionId;
use crate::api::inference_engine::Toleration;
use crate::controller::names::{self, Component, INSTANCE, LAUNCH, REVISION};
use crate::engine::Served;
use crate::planner::InstanceId;

/// Port of our own server.
pub const ENGINE_PORT: u16 = 8000;
/// Between the order to end and the end of new requests, in seconds.
const LINGER: i64 = 2;
const MIB: u64 = 1 << 20;

/// Everything an engine's objects are made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    /// Its number.
    pub instance: InstanceId,
    /// What it runs.
    pub revision: RevisionId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Memory it was admitted with.
    pub memory_bytes: u64,
    /// Whether it needs the GPU for itself.
    pub exclusive: bool,
    /// Whose server.
    pub server: Server,
    /// Its arguments.
    pub served: Served,
    /// Digest of the model, checked before it is loaded.
    pub sha256: String,
    /// Name of the node.
    pub node: String,
    /// The node's hostname label.
    pub hostname: String,
    /// The claim of the cache.
    pub claim: String,
    /// Folder of the engine's bundle below the cache; absent: the processor runs the model itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Runtime class of the GPU; absent on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// For running answers to end, in seconds.
    pub drain: u64,
    /// From start to readiness, in seconds.
    pub startup: u64,
    /// Threads that may be kept busy; absent: the server decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

/// Whose server runs the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Server {
    /// Our own.
    #[serde(rename_all = "camelCase")]
    Native {
        /// Image of this program.
        image: String,
    },
    /// A container that serves the OpenAI API.
    #[serde(rename_all = "camelCase")]
    Image {
        /// The image.
        image: String,
        /// Entry point; empty: the image's own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        command: Vec<String>,
        /// Arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
        /// Environment.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        env: Vec<(String, String)>,
        /// Port of the API.
        port: u16,
        /// Path that answers 200.
        health_path: String,
        /// What it calls the model.
        model_name: String,
        /// A Secret to pull with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pull_secret: Option<String>,
    },
}

impl Launch {
    /// Where the server listens.
    pub fn port(&self) -> u16 {
        match &self.server {
            Server::Native { .. } => ENGINE_PORT,
            Server::Image { port, .. } => *port,
        }
    }

    /// What the server calls the model.
    pub fn model_name(&self) -> &str {
        match &self.server {
            Server::Native { .. } => &self.served.served_name,
            Server::Image { model_name, .. } => model_name,
        }
    }
}

/// The engine's objects.
pub fn engine(owner: &Owner, site: &Site, launch: &Launch) -> [Object; 2] {
    let id = launch.instance.to_string();
    let part = [(INSTANCE, id.as_str())];
    let name = names::instance(&owner.name, &launch.revision, launch.instance);
    let service = Service {
        metadata: meta_of(owner, launch, name.clone()),
        spec: Some(ServiceSpec {
            selector: select(owner, Component::Engine, &part).match_labels,
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(launch.port()),
                target_port: Some(IntOrString::Int(i32::from(launch.port()))),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let mut metadata = meta_of(owner, launch, name);
    metadata.annotations = Some(BTreeMap::from([(
        LAUNCH.to_owned(),
        // A struct of strings and numbers always serialises.
        serde_json::to_string(launch).unwrap_or_default(),
    )]));
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(0),
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            selector: select(owner, Component::Engine, &part),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(
                        owner,
                        Component::Engine,
                        &[
                            (INSTANCE, id.as_str()),
                            (REVISION, launch.revision.as_str()),
                        ],
                    )),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(site, launch)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    [
        Object::of(Kind::Service, &service),
        Object::of(Kind::Deployment, &deployment),
    ]
}

fn meta_of(owner: &Owner, launch: &Launch, name: String) -> ObjectMeta {
    let mut meta = meta(owner, Component::Engine, name);
    let labels = meta.labels.get_or_insert_default();
    labels.insert(INSTANCE.to_owned(), launch.instance.to_string());
    labels.insert(REVISION.to_owned(), launch.revision.to_string());
    meta
}

fn pod_spec(site: &Site, launch: &Launch) -> PodSpec {
    let (tmp, tmp_mount) = scratch();
    let model = model_path(&launch.revision);
    let mounts = vec![mount("cache", "/cache", true), tmp_mount];
    // Engines are native code or feed it: the very bytes that will be loaded are checked.
    let check = Container {
        volume_mounts: Some(mounts.clone()),
        resources: Some(resources(100, 32 * MIB, 256 * MIB)),
        ..container(site, &site.image, "check", check(launch, &model))
    };
    let mut server = match &launch.server {
        Server::Native { image } => native(site, image, launch, &model),
        Server::Image { .. } => foreign(site, launch, &model),
    };
    server.volume_mounts = Some(mounts);
    let limit = launch.memory_bytes + launch.memory_bytes / 4 + 64 * MIB;
    server.resources = Some(resources(250, launch.memory_bytes, limit));
    let pull_secret = match &launch.server {
        Server::Image { pull_secret, .. } => pull_secret.clone(),
        Server::Native { .. } => None,
    };
    PodSpec {
        init_containers: Some(vec![check]),
        containers: vec![server],
        volumes: Some(vec![cache::volume("cache", &launch.claim, true), tmp]),
        node_selector: Some(pinned(&launch.hostname)),
        tolerations: Some(tolerations(&launch.tolerations)),
        runtime_class_name: launch.runtime_class.clone(),
        image_pull_secrets: pull_secret.map(|name| vec![LocalObjectReference { name }]),
        termination_grace_period_seconds: Some(LINGER + grace(launch) + 5),
        ..pod(site, "engine")
    }
}

fn check(launch: &Launch, model: &str) -> Vec<String> {
    match &launch.bundle {
        // Whether it is for this machine is seen by the server, which has the GPU.
        Some(bundle) => ["engine", "verify", "--files-only", bundle]
            .map(str::to_owned)
            .into(),
        None => vec![
            "check".to_owned(),
            format!("--model={model}"),
            format!("--sha256={}", launch.sha256),
        ],
    }
}

fn grace(launch: &Launch) -> i64 {
    seconds(Duration::from_secs(launch.drain))
}

fn native(site: &Site, image: &str, launch: &Launch, model: &str) -> Container {
    let served = &launch.served;
    let mut args = vec![
        "serve".to_owned(),
        format!("--listen=0.0.0.0:{ENGINE_PORT}"),
        format!("--served-name={}", served.served_name),
        format!("--grace={}", grace(launch)),
        "--log-format=json".to_owned(),
    ];
    if let Some(bundle) = &launch.bundle {
        // Slots and context are those it was built for.
        args.push(format!("--engine={bundle}"));
    } else {
        args.push(format!("--model={model}"));
        args.push(format!("--slots={}", served.slots));
        args.push(format!("--context={}", served.context_tokens()));
        args.extend(launch.threads.map(|threads| format!("--threads={threads}")));
    }
    let server = Container {
        env: launch.bundle.as_ref().map(|_| gpu()),
        ..container(site, image, "engine", args)
    };
    probed(server, launch, "/readyz", "/healthz")
}

fn foreign(site: &Site, launch: &Launch, model: &str) -> Container {
    let Server::Image {
        image,
        command,
        args,
        env,
        port,
        health_path,
        ..
    } = &launch.server
    else {
        return Container::default();
    };
    let variable = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    // Kubernetes itself puts $(MODEL) and $(PORT) into the arguments.
    let mut variables = vec![
        variable("MODEL", model.to_owned()),
        variable("PORT", port.to_string()),
        variable("HOME", "/tmp".to_owned()),
    ];
    variables.extend(
        env.iter()
            .map(|(name, value)| variable(name, value.clone())),
    );
    let server = Container {
        command: (!command.is_empty()).then(|| command.clone()),
        args: (!args.is_empty()).then(|| args.clone()),
        env: Some(variables),
        security_context: Some(security(false)),
        ..container(site, image, "engine", Vec::new())
    };
    probed(server, launch, health_path, health_path)
}

/// The planner ends what does not get ready; the kubelet's own limit comes after that.
fn probed(server: Container, launch: &Launch, ready: &str, alive: &str) -> Container {
    let port = launch.port();
    let patience = i32::try_from(launch.startup.saturating_add(60)).unwrap_or(i32::MAX);
    Container {
        startup_probe: Some(probe(ready, port, 1, patience)),
        readiness_probe: Some(probe(ready, port, 2, 1)),
        liveness_probe: Some(probe(alive, port, 10, 6)),
        lifecycle: Some(linger(LINGER)),
        ..server
    }
}
