//! The managed fallback: Ollama, and beside it a companion of ours that keeps the right model in it
//! and says how far that is. Ollama itself is reached by the gateway alone.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, ObjectFieldSelector,
    PodSpec, PodTemplateSpec, Service, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use super::common::{
    container, linger, meta, model_path, mount, pinned, pod, pod_labels, probe, resources, scratch,
    security, select, tolerations,
};
use super::{Kind, Object, Owner, Site, cache};
use crate::api::{Placement, Residency, RevisionId};
use crate::controller::names::{self, Component, ORDER};

/// Port of Ollama.
pub const OLLAMA_PORT: u16 = 11_434;
/// Port of the companion.
pub const COMPANION_PORT: u16 = 8081;
const MIB: u64 = 1 << 20;
/// Until the gateway's route table has moved on, in seconds.
const LINGER: i64 = 2;
/// For running answers to end, in seconds.
const GRACE: i64 = 60;

/// What the companion shall do with the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Keep it there, and load it.
    Load,
    /// Keep it there; a request loads it.
    Standby,
    /// Give its memory back.
    Park,
}

impl Order {
    /// The word in the annotation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Standby => "standby",
            Self::Park => "park",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Load, Self::Standby, Self::Park]
            .into_iter()
            .find(|order| order.as_str() == text)
    }
}

/// A model that is handed to Ollama as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Whose file.
    pub revision: RevisionId,
    /// Its digest.
    pub sha256: String,
}

/// What a managed fallback is made from.
#[derive(Clone, Debug)]
pub struct Ollama<'a> {
    /// The image.
    pub image: String,
    /// The model's name in it.
    pub model: &'a str,
    /// The file to hand over; `None`: one of Ollama's own models.
    pub imported: Option<Imported>,
    /// Context the gateway asks for, in tokens.
    pub context_tokens: u32,
    /// Threads it may keep busy.
    pub threads: u32,
    /// Requests at the same time.
    pub parallel: u32,
    /// How ready it is kept.
    pub residency: Residency,
    /// Whether it runs.
    pub up: bool,
    /// What the companion shall do.
    pub order: Order,
    /// Memory with the model loaded, where it is known.
    pub memory_bytes: u64,
    /// Taints to tolerate.
    pub placement: &'a Placement,
    /// The node's hostname label.
    pub hostname: &'a str,
    /// The claim of the cache.
    pub claim: &'a str,
    /// Runtime class of the GPU; `None` on the CPU.
    pub runtime_class: Option<&'a str>,
}

/// The fallback's objects.
pub fn ollama(owner: &Owner, site: &Site, ollama: &Ollama<'_>) -> [Object; 2] {
    let component = Component::Ollama;
    let name = names::ollama(&owner.name);
    let service = Service {
        metadata: meta(owner, component, name.clone()),
        spec: Some(ServiceSpec {
            selector: select(owner, component, &[]).match_labels,
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(OLLAMA_PORT),
                target_port: Some(IntOrString::Int(i32::from(OLLAMA_PORT))),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let mut metadata = meta(owner, component, name);
    metadata.annotations = Some(BTreeMap::from([(
        ORDER.to_owned(),
        ollama.order.as_str().to_owned(),
    )]));
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(i32::from(ollama.up)),
            revision_history_limit: Some(0),
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            selector: select(owner, component, &[]),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(owner, component, &[])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(site, ollama)),
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

fn pod_spec(site: &Site, ollama: &Ollama<'_>) -> PodSpec {
    let (tmp, tmp_mount) = scratch();
    PodSpec {
        containers: vec![
            server(site, ollama, tmp_mount.clone()),
            companion(site, ollama, tmp_mount),
        ],
        volumes: Some(vec![
            cache::volume("cache", ollama.claim, false),
            orders(),
            tmp,
        ]),
        node_selector: Some(pinned(ollama.hostname)),
        tolerations: Some(tolerations(&ollama.placement.tolerations)),
        runtime_class_name: ollama.runtime_class.map(str::to_owned),
        termination_grace_period_seconds: Some(LINGER + GRACE),
        ..pod(site, "fallback")
    }
}

/// The pod's annotations as a file: a change of them is seen at once.
fn orders() -> Volume {
    Volume {
        name: "orders".to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "order".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: format!("metadata.annotations['{ORDER}']"),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn server(site: &Site, ollama: &Ollama<'_>, tmp: VolumeMount) -> Container {
    let keep_alive = match ollama.residency {
        Residency::Warm => "-1",
        Residency::Standby | Residency::Cold => "5m",
    };
    let env = [
        ("OLLAMA_HOST", format!("0.0.0.0:{OLLAMA_PORT}")),
        ("OLLAMA_MODELS", "/ollama/models".to_owned()),
        ("HOME", "/ollama".to_owned()),
        ("OLLAMA_KEEP_ALIVE", keep_alive.to_owned()),
        ("OLLAMA_NUM_PARALLEL", ollama.parallel.to_string()),
        ("OLLAMA_MAX_LOADED_MODELS", "1".to_owned()),
        ("OLLAMA_NOPRUNE", "1".to_owned()),
    ];
    let mut store = mount("cache", "/ollama", false);
    store.sub_path = Some("ollama".to_owned());
    let memory = ollama.memory_bytes.max(128 * MIB);
    Container {
        command: Some(vec!["ollama".to_owned(), "serve".to_owned()]),
        args: None,
        env: Some(
            env.into_iter()
                .map(|(name, value)| EnvVar {
                    name: name.to_owned(),
                    value: Some(value),
                    value_from: None,
                })
                .collect(),
        ),
        volume_mounts: Some(vec![store, tmp]),
        liveness_probe: Some(probe("/api/version", OLLAMA_PORT, 10, 6)),
        lifecycle: Some(linger(LINGER)),
        // While it is parked nothing of it is used: what is requested is what it needs then.
        resources: Some(resources(100, 128 * MIB, memory + memory / 4 + 512 * MIB)),
        security_context: Some(security(true)),
        ..container(site, &ollama.image, "ollama", Vec::new())
    }
}

fn companion(site: &Site, ollama: &Ollama<'_>, tmp: VolumeMount) -> Container {
    let mut args = vec![
        "companion".to_owned(),
        format!("--ollama=http://127.0.0.1:{OLLAMA_PORT}"),
        format!("--model={}", ollama.model),
        format!("--context={}", ollama.context_tokens),
        format!("--threads={}", ollama.threads),
        "--order=/orders/order".to_owned(),
        format!("--listen=0.0.0.0:{COMPANION_PORT}"),
        "--log-format=json".to_owned(),
    ];
    if let Some(imported) = &ollama.imported {
        args.push(format!("--gguf={}", model_path(&imported.revision)));
        args.push(format!("--sha256={}", imported.sha256));
        args.push("--store=/cache/ollama/models".to_owned());
    }
    Container {
        volume_mounts: Some(vec![
            mount("cache", "/cache", false),
            mount("orders", "/orders", true),
            tmp,
        ]),
        startup_probe: Some(probe("/healthz", COMPANION_PORT, 1, 60)),
        readiness_probe: Some(probe("/readyz", COMPANION_PORT, 1, 3)),
        liveness_probe: Some(probe("/healthz", COMPANION_PORT, 10, 6)),
        resources: Some(resources(20, 24 * MIB, 256 * MIB)),
        ..container(site, &site.image, "companion", args)
    }
}
