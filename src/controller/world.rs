//! What was read from the API server about one resource, in one moment.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;

use super::names::{COMPONENT, Component};
use super::workloads::Kind;
use crate::api::EdgeNode;

/// Everything of one resource, but itself. Only objects that the resource controls, and the pods of
/// its Deployments and Jobs.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Gateway, fallback, engines.
    pub deployments: Vec<Deployment>,
    /// Their pods and those of Jobs.
    pub pods: Vec<Pod>,
    /// Fetches and collections.
    pub jobs: Vec<Job>,
    /// Caches.
    pub claims: Vec<PersistentVolumeClaim>,
    /// State and routes.
    pub maps: Vec<ConfigMap>,
    /// Of the endpoint, the engines, the fallback.
    pub services: Vec<Service>,
    /// Who may talk to whom.
    pub policies: Vec<NetworkPolicy>,
    /// Of the gateway.
    pub budgets: Vec<PodDisruptionBudget>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// What their agents say.
    pub described: Vec<Arc<EdgeNode>>,
}

impl World {
    /// An object of ours as it is now.
    pub fn live(&self, kind: Kind, name: &str) -> Option<Live> {
        match kind {
            Kind::ConfigMap => find(&self.maps, name),
            Kind::PersistentVolumeClaim => find(&self.claims, name),
            Kind::Service => find(&self.services, name),
            Kind::NetworkPolicy => find(&self.policies, name),
            Kind::PodDisruptionBudget => find(&self.budgets, name),
            Kind::Deployment => find(&self.deployments, name),
            Kind::Job => find(&self.jobs, name),
        }
    }

    /// A Deployment of ours.
    pub fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|one| named(*one, name))
    }

    /// A Service of ours.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|one| named(*one, name))
    }

    /// A map of ours.
    pub fn map(&self, name: &str) -> Option<&ConfigMap> {
        self.maps.iter().find(|one| named(*one, name))
    }

    /// A claim of ours that is not being deleted.
    pub fn claim(&self, name: &str) -> Option<&PersistentVolumeClaim> {
        self.claims
            .iter()
            .find(|one| named(*one, name) && one.metadata.deletion_timestamp.is_none())
    }

    /// Pods of a component that have not come to their end.
    pub fn pods_of(&self, component: Component) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| {
            label(&pod.metadata, COMPONENT) == Some(component.as_str()) && !is_over(pod)
        })
    }
}

/// An object of ours as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that was read.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// All of it.
    pub value: Value,
}

fn find<K>(all: &[K], name: &str) -> Option<Live>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let object = all.iter().find(|one| named(*one, name))?;
    let meta = object.meta();
    let kind = match K::kind(&()).as_ref() {
        "ConfigMap" => Kind::ConfigMap,
        "PersistentVolumeClaim" => Kind::PersistentVolumeClaim,
        "Service" => Kind::Service,
        "NetworkPolicy" => Kind::NetworkPolicy,
        "PodDisruptionBudget" => Kind::PodDisruptionBudget,
        "Deployment" => Kind::Deployment,
        _ => Kind::Job,
    };
    Some(Live {
        kind,
        name: name.to_owned(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        value: serde_json::to_value(object).unwrap_or_default(),
    })
}

fn named<K: Resource>(object: &K, name: &str) -> bool {
    object.meta().name.as_deref() == Some(name)
}

/// A label's value.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation's value.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a resource is the controller of an object.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Whether a pod has ended and only its record is left (evicted, or its node was shut down).
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|conditions| {
            conditions
                .iter()
                .any(|one| one.type_ == "Ready" && one.status == "True")
        })
}

/// A pod's address.
pub fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
