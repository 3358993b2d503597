//! `EdgeNode`: what one node is and has. Written by the agent on that node only; read by the
//! operator and by people (`kubectl get edgenodes` is the fleet at a glance).

// One attribute may say `type_ = "string"` for one column each.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Condition;

/// An `EdgeNode` has nothing to specify: its name is the node's, and the rest is observed.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "enginewright.dev",
    version = "v1alpha1",
    kind = "EdgeNode",
    no_spec,
    status = "EdgeNodeStatus",
    shortname = "en",
    category = "enginewright",
    derive = "PartialEq",
    doc = "What one node is and has, as its agent found it. The name is the node's.",
    printcolumn(name = "Module", type_ = "string", json_path = ".status.module.name"),
    printcolumn(name = "SM", type_ = "string", json_path = ".status.gpu.sm"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.memory"),
    printcolumn(name = "Power", type_ = "string", json_path = ".status.powerMode"),
    printcolumn(name = "L4T", type_ = "string", json_path = ".status.software.l4t"),
    printcolumn(
        name = "TensorRT",
        type_ = "string",
        json_path = ".status.software.tensorrt"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "JetPack",
        type_ = "string",
        json_path = ".status.software.jetpack",
        priority = 1
    ),
    printcolumn(
        name = "CUDA",
        type_ = "string",
        json_path = ".status.software.cuda",
        priority = 1
    ),
    printcolumn(
        name = "Disk-free",
        type_ = "string",
        json_path = ".status.freeDisk",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct EdgeNodeFields {}

/// What the agent found on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeStatus {
    /// Version of the agent that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,

    /// The board; absent where it is not a Jetson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleStatus>,

    /// The GPU; absent where there is none, or none that the agent can see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuStatus>,

    /// System memory in whole `Gi`, rounded down, for example `15Gi`. On a Jetson the GPU uses the
    /// same memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub memory: Option<String>,

    /// System memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,

    /// Power mode as `nvpmodel` names it, for example `MAXN_SUPER` or `25W`. Measurements of
    /// different modes cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub power_mode: Option<String>,

    /// Versions that an engine depends on.
    #[serde(default)]
    pub software: SoftwareStatus,

    /// Name of the container runtime class for the GPU that was found; absent: none, and no
    /// container can use the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class: Option<String>,

    /// Free disk of the engine cache in whole `Gi`, rounded down, for example `112Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub free_disk: Option<String>,

    /// Engine bundles in the node's cache, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["digest".into()]))]
    pub bundles: Vec<CachedBundle>,

    /// `Ready`: the agent runs and the node can serve. Its message says what is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A Jetson module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModuleStatus {
    /// Name, for example `Jetson Orin NX 16GB`.
    #[schemars(length(max = 128))]
    pub name: String,

    /// Part number, for example `p3767-0000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub part_number: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// Name, for example `Orin (nvgpu)`.
    #[schemars(length(max = 128))]
    pub name: String,

    /// Compute capability, for example `8.7`.
    #[schemars(length(max = 8))]
    pub sm: String,

    /// Memory of its own in bytes; absent where it shares the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Versions that an engine depends on; absent: not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SoftwareStatus {
    /// Linux for Tegra, for example `36.4.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub l4t: Option<String>,

    /// `JetPack`, for example `6.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub jetpack: Option<String>,

    /// CUDA, for example `12.6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cuda: Option<String>,

    /// TensorRT to the build number, for example `10.3.0.30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tensorrt: Option<String>,

    /// NVIDIA driver, where it has a version of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub driver: Option<String>,
}

/// An engine bundle in a node's cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedBundle {
    /// Engine key.
    #[schemars(length(max = 64))]
    pub key: String,

    /// Digest of the bundle, `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub digest: String,

    /// Size in bytes.
    pub size_bytes: u64,
}
