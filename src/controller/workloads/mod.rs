//! The objects of an `InferenceEngine`, one file for each kind of work: values in, typed objects out.
//!
//! It decides what an object looks like, never whether there shall be one. Everything passes Pod
//! Security's *restricted* level and has no token for the API server.

mod build;
mod cache;
mod common;
mod engine;
mod fetch;
mod gateway;
mod network;
mod ollama;

#[cfg(test)]
mod tests;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

pub use build::{Build, build, bundle_path};
pub use cache::cache;
pub(super) use common::state_map;
pub use engine::{ENGINE_PORT, Launch, Server, engine};
pub use fetch::{Collect, Fetch, MODEL_FILE, collect, fetch};
pub use gateway::{GATEWAY_PORT, Gateway, Mounted, gateway, routes};
pub use network::policies;
pub use ollama::{COMPANION_PORT, Imported, OLLAMA_PORT, Ollama, Order, ollama};

use crate::api::Name;

/// What the operator was told about its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Image of this program.
    pub image: String,
    /// Image of this program with the shim for the TensorRT of the GPU nodes; `None`: the processor
    /// serves everywhere.
    pub tensorrt_image: Option<String>,
    /// Image of the managed fallback, where a resource names none.
    pub ollama_image: String,
    /// `Always`, `IfNotPresent` or `Never`; `None`: the cluster's default.
    pub pull_policy: Option<String>,
    /// Repositories (or prefixes that end with `/`) from which a resource may name images.
    pub allowed_images: Vec<String>,
    /// Namespace of the operator, which may ask engines.
    pub namespace: String,
    /// Prefix of the `PriorityClass`es that the installation brought; `None`: no priorities.
    pub priority_prefix: Option<String>,
    /// Pods of each gateway.
    pub gateways: i32,
}

/// Whose the objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the `InferenceEngine`.
    pub name: Name,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

/// Kinds that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`
    ConfigMap,
    /// `v1`
    PersistentVolumeClaim,
    /// `v1`
    Service,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    /// `policy/v1`
    PodDisruptionBudget,
    /// `apps/v1`
    Deployment,
    /// `batch/v1`
    Job,
}

impl Kind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
        }
    }
}

/// An object as it shall be, ready to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it that is ours, with `apiVersion` and `kind`.
    pub value: Value,
}

impl Object {
    /// Of a typed object.
    pub(super) fn of<K>(kind: Kind, object: &K) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize,
    {
        Self {
            kind,
            name: object.meta().name.clone().unwrap_or_default(),
            // A Kubernetes type always serialises.
            value: serde_json::to_value(object).unwrap_or_default(),
        }
    }
}

/// Whether an image may run here: its repository is one of `allowed`, or lies below one that ends
/// with `/`.
pub fn is_allowed(image: &str, allowed: &[String]) -> bool {
    let repository = image.split('@').next().unwrap_or(image);
    let slash = repository.rfind('/').unwrap_or(0);
    let repository = match repository[slash..].find(':') {
        Some(colon) => &repository[..slash + colon],
        None => repository,
    };
    allowed.iter().any(|entry| {
        if entry.ends_with('/') {
            repository.starts_with(entry.as_str())
        } else {
            repository == entry
        }
    })
}
