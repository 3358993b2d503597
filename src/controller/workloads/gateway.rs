//! The stable endpoint: Service, Deployment, disruption budget and route table.
//!
//! The route table is a `ConfigMap` that the gateway reads as a file: a gateway that starts while the
//! operator is away has the last table, and needs no token for the API server. The kubelet refreshes
//! such files within about a minute by itself, and at once when the pod's annotations change: so the
//! operator changes an annotation after each new table, and asks the gateway (`/readyz`) which table
//! is in force.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, PodSpec, PodTemplateSpec, Service,
    ServicePort, ServiceSpec, Volume,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::common::{
    container, linger, meta, mount, pinned, pod, pod_labels, probe, resources, seconds, select,
    tolerations,
};
use super::{Kind, Object, Owner, Site, cache};
use crate::api::Placement;
use crate::controller::names::{self, Component, ROUTE};
use crate::gateway::routes::RouteTable;
use crate::planner::Route;

/// Port of the endpoint.
pub const GATEWAY_PORT: u16 = 8080;
/// Until no Service sends new connections any more, in seconds.
const LINGER: i64 = 5;
const MIB: u64 = 1 << 20;

/// What a gateway is made from.
#[derive(Clone, Debug)]
pub struct Gateway<'a> {
    /// Taints to tolerate.
    pub placement: &'a Placement,
    /// For running answers to end.
    pub drain: Duration,
    /// The cache with the model's file, once there is one: its chat template lets an answer go on
    /// when the engine dies in the middle of it.
    pub model: Option<Mounted>,
}

/// A cache that can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The node's hostname label.
    pub hostname: String,
    /// The claim.
    pub claim: String,
}

/// The gateway's objects, without its route table.
pub fn gateway(owner: &Owner, site: &Site, gateway: &Gateway<'_>) -> [Object; 3] {
    let component = Component::Gateway;
    let name = names::gateway(&owner.name);
    let service = Service {
        metadata: meta(owner, component, names::endpoint(&owner.name)),
        spec: Some(ServiceSpec {
            selector: select(owner, component, &[]).match_labels,
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: i32::from(GATEWAY_PORT),
                target_port: Some(IntOrString::Int(i32::from(GATEWAY_PORT))),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let budget = PodDisruptionBudget {
        metadata: meta(owner, component, name.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            selector: Some(select(owner, component, &[])),
            max_unavailable: Some(IntOrString::Int(1)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    let deployment = Deployment {
        metadata: meta(owner, component, name),
        spec: Some(DeploymentSpec {
            replicas: Some(site.gateways),
            revision_history_limit: Some(1),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            selector: select(owner, component, &[]),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(owner, component, &[])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(owner, site, gateway)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    [
        Object::of(Kind::Service, &service),
        Object::of(Kind::PodDisruptionBudget, &budget),
        Object::of(Kind::Deployment, &deployment),
    ]
}

fn pod_spec(owner: &Owner, site: &Site, gateway: &Gateway<'_>) -> PodSpec {
    let grace = seconds(gateway.drain);
    let args = vec![
        "gateway".to_owned(),
        format!("--listen=0.0.0.0:{GATEWAY_PORT}"),
        "--routes=/routes/routes.json".to_owned(),
        format!("--grace={grace}"),
        "--log-format=json".to_owned(),
    ];
    let mut volumes = vec![Volume {
        name: "routes".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: names::routes(&owner.name),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }];
    let mut mounts = vec![mount("routes", "/routes", true)];
    if let Some(model) = &gateway.model {
        volumes.push(cache::volume("cache", &model.claim, true));
        mounts.push(mount("cache", "/cache", true));
    }
    let server = Container {
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: i32::from(GATEWAY_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        volume_mounts: Some(mounts),
        // Whether it runs: a gateway without any back end says so itself, with 503 and a sentence.
        readiness_probe: Some(probe("/healthz", GATEWAY_PORT, 1, 3)),
        liveness_probe: Some(probe("/healthz", GATEWAY_PORT, 10, 3)),
        lifecycle: Some(linger(LINGER)),
        // Bodies of waiting requests are at most 64 MiB.
        resources: Some(resources(20, 24 * MIB, 160 * MIB)),
        ..container(site, &site.image, "gateway", args)
    };
    PodSpec {
        containers: vec![server],
        volumes: Some(volumes),
        node_selector: gateway.model.as_ref().map(|model| pinned(&model.hostname)),
        tolerations: Some(tolerations(&gateway.placement.tolerations)),
        termination_grace_period_seconds: Some(LINGER + grace + 5),
        ..pod(site, "gateway")
    }
}

/// The route table.
pub fn routes(owner: &Owner, route: Route, table: &RouteTable) -> Object {
    let mut metadata = meta(owner, Component::Gateway, names::routes(&owner.name));
    let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    metadata.annotations = Some(BTreeMap::from([(
        ROUTE.to_owned(),
        text(serde_json::to_string(&route)),
    )]));
    let routes = ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(
            "routes.json".to_owned(),
            text(serde_json::to_string_pretty(table)),
        )])),
        ..ConfigMap::default()
    };
    Object::of(Kind::ConfigMap, &routes)
}
