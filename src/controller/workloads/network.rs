//! Who may talk to whom. Engines are reached by their gateway and by the operator, which proves them
//! by real generation; the fallback by its gateway alone; neither is ever reached from outside.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::common::{meta, select};
use super::ollama::OLLAMA_PORT;
use super::{COMPANION_PORT, Kind, Object, Owner, Site};
use crate::controller::names::{self, COMPONENT, Component};

/// The policies of a resource whose engines listen on `engine_port`. `pulls`: the fallback fetches
/// its model itself.
pub fn policies(owner: &Owner, site: &Site, engine_port: u16, pulls: bool) -> [Object; 2] {
    let engines = policy(
        owner,
        Component::Engine,
        names::engines(&owner.name),
        vec![rule(vec![gateways(owner), operator(site)], engine_port)],
        true,
    );
    let ollama = policy(
        owner,
        Component::Ollama,
        names::ollama(&owner.name),
        vec![
            rule(vec![gateways(owner)], OLLAMA_PORT),
            rule(vec![operator(site)], COMPANION_PORT),
        ],
        !pulls,
    );
    [engines, ollama]
}

fn policy(
    owner: &Owner,
    component: Component,
    name: String,
    ingress: Vec<NetworkPolicyIngressRule>,
    silent: bool,
) -> Object {
    let mut types = vec!["Ingress".to_owned()];
    if silent {
        // Without a rule for it: it may answer, never ask.
        types.push("Egress".to_owned());
    }
    let policy = NetworkPolicy {
        metadata: meta(owner, component, name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(select(owner, component, &[])),
            ingress: Some(ingress),
            policy_types: Some(types),
            egress: None,
        }),
    };
    Object::of(Kind::NetworkPolicy, &policy)
}

fn rule(from: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port))),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        }]),
    }
}

fn gateways(owner: &Owner) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(select(owner, Component::Gateway, &[])),
        ..NetworkPolicyPeer::default()
    }
}

fn operator(site: &Site) -> NetworkPolicyPeer {
    let labels = |pairs: &[(&str, &str)]| LabelSelector {
        match_labels: Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
        ),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(labels(&[("kubernetes.io/metadata.name", &site.namespace)])),
        pod_selector: Some(labels(&[
            ("app.kubernetes.io/name", "enginewright"),
            (COMPONENT, "operator"),
        ])),
        ip_block: None,
    }
}
