//! Which node serves a resource. One node each; several nodes, their waves and the roll-up of their
//! plans are a layer above: it would call [`choose`] for each wave and plan each node by itself.
//!
//! Pure: the same nodes give the same choice, and a node that serves is kept as long as it matches.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::api::inference_engine::{TaintEffect, Toleration, TolerationOperator};
use crate::api::{EdgeNode, ModuleStatus, Placement};
use crate::hardware::{Bytes, Cpu, Gpu, Hardware, Jetson, Memory, Module, Software};

/// Label by which pods are pinned.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Taints that are always tolerated, and those that a cordon sets.
const TOLERATED: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// The node that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its hostname label.
    pub hostname: String,
    /// What it has.
    pub hardware: Hardware,
    /// Runtime class for its GPU, where it has one that containers can use.
    pub runtime_class: Option<String>,
    /// Whether it is heard of.
    pub reachable: bool,
}

/// Chooses: the node that serves already, if it still matches; else the first by name among those that
/// are ready and not cordoned, else among the others.
pub fn choose(
    placement: &Placement,
    nodes: &[Arc<Node>],
    described: &[Arc<EdgeNode>],
    before: Option<&str>,
) -> Option<Chosen> {
    let mut matching: Vec<&Node> = nodes
        .iter()
        .map(AsRef::as_ref)
        .filter(|node| has_labels(node, &placement.node_selector))
        .filter(|node| is_tolerated(node, &placement.tolerations))
        .collect();
    matching.sort_by_key(|node| {
        let name = name(node);
        (
            Some(name) != before,
            is_cordoned(node),
            !is_ready(node),
            name,
        )
    });
    let node = matching
        .into_iter()
        .find(|node| Some(name(node)) == before || !is_cordoned(node))?;
    let edge = described
        .iter()
        .find(|edge| edge.metadata.name.as_deref() == Some(name(node)));
    Some(describe(node, edge.map(AsRef::as_ref)))
}

/// What of a node matters here: while it stays the same, its changes are nobody's business.
pub fn fingerprint(node: &Node) -> String {
    let spec = node.spec.as_ref();
    let taints = spec
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let taints: Vec<String> = taints
        .iter()
        .map(|taint| format!("{}={:?}:{}", taint.key, taint.value, taint.effect))
        .collect();
    let hardware = describe(node, None).hardware;
    format!(
        "{:?}{:?}{taints:?}{}{}{:?}{:?}",
        node.metadata.uid,
        node.metadata.labels,
        is_cordoned(node),
        is_ready(node),
        hardware.memory,
        hardware.cpu,
    )
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn has_labels(node: &Node, wanted: &BTreeMap<String, String>) -> bool {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
    })
}

fn is_tolerated(node: &Node, tolerations: &[Toleration]) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_none_or(|taints| {
        taints.iter().all(|taint| {
            taint.effect == "PreferNoSchedule"
                || taint.key == "node.kubernetes.io/unschedulable"
                || TOLERATED.contains(&taint.key.as_str())
                || tolerations.iter().any(|one| tolerates(one, taint))
        })
    })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = match toleration.effect {
        None => true,
        Some(TaintEffect::NoSchedule) => taint.effect == "NoSchedule",
        Some(TaintEffect::PreferNoSchedule) => taint.effect == "PreferNoSchedule",
        Some(TaintEffect::NoExecute) => taint.effect == "NoExecute",
    };
    let key = toleration.key.as_ref().is_none_or(|key| *key == taint.key);
    let value = match toleration.operator {
        TolerationOperator::Exists => true,
        TolerationOperator::Equal => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
    };
    effect && key && value
}

fn describe(node: &Node, edge: Option<&EdgeNode>) -> Chosen {
    let labels = node.metadata.labels.as_ref();
    let hostname = labels
        .and_then(|labels| labels.get(HOSTNAME))
        .map_or_else(|| name(node).to_owned(), Clone::clone);
    let status = node.status.as_ref();
    let info = status.and_then(|status| status.node_info.as_ref());
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let amount = |what: &str| {
        let quantity = allocatable.and_then(|all| all.get(what));
        quantity.and_then(|quantity| parse_quantity(&quantity.0))
    };
    let seen = edge.and_then(|edge| edge.status.as_ref());
    let total = seen
        .and_then(|seen| seen.memory_bytes)
        .or_else(|| amount("memory"))
        .unwrap_or(0);
    let millicores = amount("cpu").map_or(0, |cores| cores.saturating_mul(1000));
    let hardware = Hardware {
        machine: name(node).to_owned(),
        cpu: Cpu {
            model: String::new(),
            architecture: info.map_or_else(String::new, |info| info.architecture.clone()),
            cores: u32::try_from(millicores / 1000).unwrap_or(u32::MAX),
        },
        memory: Memory {
            total: Bytes(total),
            available: None,
            swap: Bytes(0),
        },
        gpu: seen.and_then(|seen| seen.gpu.as_ref()).map(|gpu| Gpu {
            name: gpu.name.clone(),
            sm: gpu.sm.parse().ok(),
            memory: gpu.memory_bytes.map(Bytes),
            free: None,
        }),
        jetson: seen.and_then(|seen| seen.module.as_ref()).map(jetson),
        software: Software {
            cuda: seen.and_then(|seen| seen.software.cuda.clone()),
            tensorrt: seen.and_then(|seen| seen.software.tensorrt.clone()),
            k3s: info.map(|info| info.kubelet_version.contains("+k3s")),
            ..Software::default()
        },
        ..Hardware::default()
    };
    Chosen {
        name: name(node).to_owned(),
        hostname,
        hardware,
        runtime_class: seen
            .filter(|seen| seen.gpu.is_some())
            .and_then(|seen| seen.runtime_class.clone()),
        reachable: is_ready(node),
    }
}

/// A board as the agent found it.
fn jetson(found: &ModuleStatus) -> Jetson {
    let part = found.part_number.as_deref();
    Jetson {
        module: part.and_then(Module::from_part),
        part: found.part_number.clone(),
        soc: None,
        l4t: None,
        power_mode: None,
    }
}

/// A Kubernetes quantity in whole units, rounded down (`3900m` is 3).
fn parse_quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor: f64 = match unit {
        "" => 1.0,
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    let value = number.parse::<f64>().ok()? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive by its syntax; rounded down on purpose"
    )]
    Some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: bool, more: &serde_json::Value) -> Arc<Node> {
        let mut value = json!({
            "metadata": {"name": name, "labels": {HOSTNAME: name, "kind": "jetson"}},
            "spec": {},
            "status": {
                "allocatable": {"memory": "16Gi", "cpu": "7900m"},
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        });
        if let (Some(spec), Some(more)) = (value["spec"].as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn placement(selector: &[(&str, &str)]) -> Placement {
        let yaml = "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\nmetadata: {name: x}\n\
                    spec: {model: {source: \"pvc://c/m.gguf\"}}";
        let mut placement = crate::api::parse(yaml).unwrap().placement;
        placement.node_selector = selector
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        placement
    }

    fn name_of(
        selector: &[(&str, &str)],
        nodes: &[Arc<Node>],
        before: Option<&str>,
    ) -> Option<String> {
        choose(&placement(selector), nodes, &[], before).map(|chosen| chosen.name)
    }

    #[test]
    fn the_first_ready_node_by_name_serves_and_stays() {
        let nodes = [
            node("c", true, &json!({})),
            node("a", false, &json!({})),
            node("b", true, &json!({})),
        ];
        assert_eq!(name_of(&[], &nodes, None).as_deref(), Some("b"));
        assert_eq!(name_of(&[], &nodes, Some("c")).as_deref(), Some("c"));
        assert_eq!(name_of(&[], &nodes, Some("a")).as_deref(), Some("a"));
        assert_eq!(name_of(&[], &nodes, Some("gone")).as_deref(), Some("b"));
    }

    #[test]
    fn labels_taints_and_cordons_keep_nodes_out() {
        let taint = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
        let tainted = [node("a", true, &taint)];
        assert_eq!(name_of(&[], &tainted, None), None);
        let lost = json!({"taints": [{"key": TOLERATED[1], "effect": "NoExecute"}]});
        assert!(name_of(&[], &[node("a", false, &lost)], None).is_some());
        let cordoned = [node("a", true, &json!({"unschedulable": true}))];
        assert_eq!(name_of(&[], &cordoned, None), None);
        assert!(name_of(&[], &cordoned, Some("a")).is_some());
        let plain = [node("a", true, &json!({}))];
        assert!(name_of(&[("kind", "jetson")], &plain, None).is_some());
        assert_eq!(name_of(&[("kind", "server")], &plain, None), None);
    }

    #[test]
    fn a_node_without_an_agent_has_what_the_kubelet_says() {
        let nodes = [node("a", true, &json!({}))];
        let chosen = choose(&placement(&[]), &nodes, &[], None).unwrap();
        assert_eq!(chosen.hardware.memory.total, Bytes(16 << 30));
        assert_eq!(chosen.hardware.cpu.cores, 7);
        assert_eq!(chosen.runtime_class, None);
    }

    #[test]
    fn what_changes_by_itself_is_not_in_the_fingerprint() {
        let one = node("a", true, &json!({}));
        let mut other = Node::clone(&one);
        other.metadata.resource_version = Some("9".to_owned());
        assert_eq!(fingerprint(&one), fingerprint(&other));
        assert_ne!(
            fingerprint(&one),
            fingerprint(&node("a", false, &json!({})))
        );
    }
}
