//! What the agent writes: from what was seen of the node and of its objects to the writes that are
//! missing. Pure: no client, no clock; a second look at what was just written gives no write.

mod labels;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    Condition, ConditionStatus, ConditionType, EdgeNode, EdgeNodeStatus, GpuStatus, ModuleStatus,
    Reason, SoftwareStatus,
};
use crate::hardware::{Bytes, Hardware};

pub use labels::{KEYS, labels};

/// Field manager of everything the agent writes.
pub const MANAGER: &str = "enginewright-agent";
/// Name of the `RuntimeClass` that gives a container the GPU, as k3s and the NVIDIA toolkit name it.
pub const RUNTIME_CLASS: &str = "nvidia";

const GIB: u64 = 1 << 30;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The machine.
    pub host: Host,
    /// Its `Node`.
    pub node: NodeSeen,
    /// Its `EdgeNode`, if there is one.
    pub edge_node: Option<EdgeNode>,
    /// Whether the cluster has the `RuntimeClass` [`RUNTIME_CLASS`].
    pub runtime_class: bool,
    /// The present, RFC 3339.
    pub now: String,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// What the probe found.
    pub hardware: Hardware,
    /// Free space of the file system with the engine caches.
    pub free_disk: Option<Bytes>,
}

/// A `Node`, as far as the agent cares.
#[derive(Clone, Debug, Default)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its identity: a node that was deleted and came back has another.
    pub uid: String,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// Keys of the labels that the agent wrote.
    pub ours: BTreeSet<String>,
}

/// One write that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The `EdgeNode` itself, owned by the `Node` with this uid, so that it goes with it.
    Object {
        /// The owner's uid.
        owner: String,
    },
    /// Its status.
    Status(Box<EdgeNodeStatus>),
    /// All labels of the agent on the `Node`; those that it wrote before and are not here go.
    Labels(BTreeMap<String, String>),
}

/// What a write is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteKind {
    /// The `EdgeNode`.
    EdgeNode,
    /// Its status.
    Status,
    /// The labels of the `Node`.
    Labels,
}

impl WriteKind {
    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdgeNode => "EdgeNode",
            Self::Status => "Status",
            Self::Labels => "Labels",
        }
    }
}

impl Write {
    /// What it is of.
    pub const fn kind(&self) -> WriteKind {
        match self {
            Self::Object { .. } => WriteKind::EdgeNode,
            Self::Status(_) => WriteKind::Status,
            Self::Labels(_) => WriteKind::Labels,
        }
    }
}

/// The writes that are missing, in their order: the object before its status, and the labels last,
/// so that a node with labels has described itself.
pub fn decide(seen: &Seen) -> Vec<Write> {
    let mut writes = Vec::new();
    if !is_owned(seen) {
        writes.push(Write::Object {
            owner: seen.node.uid.clone(),
        });
    }
    let before = seen
        .edge_node
        .as_ref()
        .and_then(|edge_node| edge_node.status.as_ref());
    let status = status(seen, before);
    let wanted = labels(&status);
    if before != Some(&status) {
        writes.push(Write::Status(Box::new(status)));
    }
    let there = wanted
        .iter()
        .all(|(key, value)| seen.node.labels.get(key) == Some(value));
    // A label that somebody else wrote under one of our keys is not ours to remove.
    let stale = seen.node.ours.iter().any(|key| !wanted.contains_key(key));
    if !there || stale {
        writes.push(Write::Labels(wanted));
    }
    writes
}

fn is_owned(seen: &Seen) -> bool {
    let Some(edge_node) = &seen.edge_node else {
        return false;
    };
    let mut owners = edge_node.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.uid == seen.node.uid)
}

fn status(seen: &Seen, before: Option<&EdgeNodeStatus>) -> EdgeNodeStatus {
    let Host {
        hardware,
        free_disk,
    } = &seen.host;
    let jetson = hardware.jetson.as_ref();
    let module = jetson.map(|jetson| ModuleStatus {
        name: cut(
            &jetson.module.map_or_else(
                || hardware.machine.clone(),
                |module| format!("Jetson {}", module.spec().name),
            ),
            128,
        ),
        part_number: jetson.part.as_deref().map(|part| cut(part, 64)),
    });
    let gpu = hardware.gpu.as_ref().and_then(|gpu| {
        Some(GpuStatus {
            name: cut(&gpu.name, 128),
            sm: hardware.sm()?.to_string(),
            memory_bytes: gpu.memory.map(|memory| memory.0),
        })
    });
    let version = |text: &Option<String>| text.as_deref().map(|text| cut(text, 32));
    let software = &hardware.software;
    let l4t = jetson.and_then(|jetson| jetson.l4t);
    let jetpack =
        l4t.and_then(|l4t| Some(l4t.jetpack()?.trim_start_matches("JetPack ").to_owned()));
    let runtime = seen.runtime_class && software.container_runtime == Some(true);
    EdgeNodeStatus {
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        module,
        gpu,
        memory: Some(format!("{}Gi", hardware.memory.total.0 / GIB)),
        memory_bytes: Some(hardware.memory.total.0),
        power_mode: jetson
            .and_then(|jetson| jetson.power_mode.as_ref())
            .map(|mode| cut(&mode.name, 64)),
        software: SoftwareStatus {
            l4t: l4t.map(|l4t| l4t.to_string()),
            jetpack,
            cuda: version(&software.cuda),
            tensorrt: version(&software.tensorrt),
            driver: version(&software.driver),
        },
        runtime_class: runtime.then(|| RUNTIME_CLASS.to_owned()),
        free_disk: free_disk
            .map(|free| disk(free, before.and_then(|before| before.free_disk.as_deref()))),
        bundles: Vec::new(),
        conditions: vec![ready(seen, runtime, before)],
    }
}

/// Free disk in whole Gi. What was published stays while it is right to a sixteenth (at least 1 Gi):
/// a log that grows must not make a write each minute.
fn disk(free: Bytes, before: Option<&str>) -> String {
    let now = free.0 / GIB;
    let published = before
        .and_then(|text| text.strip_suffix("Gi")?.parse::<u64>().ok())
        .filter(|&before| now.abs_diff(before) <= (before / 16).max(1));
    format!("{}Gi", published.unwrap_or(now))
}

fn ready(seen: &Seen, runtime: bool, before: Option<&EdgeNodeStatus>) -> Condition {
    let hardware = &seen.host.hardware;
    let (status, reason, mut message) = if hardware.gpu.is_none() {
        let remedy = Reason::GpuNotFound.remedy().unwrap_or_default();
        let message =
            format!("No NVIDIA GPU was found: the CPU back end and Ollama can serve. {remedy}");
        (ConditionStatus::True, Reason::GpuNotFound, message)
    } else if !runtime {
        let missing = match hardware.software.container_runtime {
            Some(true) => format!("The cluster has no RuntimeClass {RUNTIME_CLASS}."),
            _ => "nvidia-container-runtime was not found on the node.".to_owned(),
        };
        let remedy = Reason::RuntimeClassMissing.remedy().unwrap_or_default();
        let message = format!("{missing} No container can use the GPU. {remedy}");
        (ConditionStatus::False, Reason::RuntimeClassMissing, message)
    } else {
        let message = "The node has described itself and a container can use its GPU.";
        (
            ConditionStatus::True,
            Reason::HardwareFound,
            message.to_owned(),
        )
    };
    for note in &hardware.notes {
        message.push(' ');
        message.push_str(note);
        message.push('.');
    }
    let since = before
        .and_then(|before| {
            let mut conditions = before.conditions.iter();
            conditions.find(|one| one.kind == ConditionType::Ready && one.status == status)
        })
        .map_or_else(|| seen.now.clone(), |one| one.last_transition_time.clone());
    Condition {
        kind: ConditionType::Ready,
        status,
        observed_generation: None,
        last_transition_time: since,
        reason,
        message: cut(&message, 4096),
    }
}

/// At most `most` characters: what a machine says of itself may be longer than the definition allows.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}
