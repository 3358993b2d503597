//! `status` of an `InferenceEngine`: for people and for machines.
//!
//! No value here changes by itself: times, rates and temperatures are metrics.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::conditions::{Condition, Reason};

/// Most entries of `status.failedRevisions`.
pub const MAX_FAILED_REVISIONS: usize = 8;

/// What is served, whether it is what the spec asks for, and what to do if not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceEngineStatus {
    /// `metadata.generation` that this status speaks of. It never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What answers requests now: `TensorRT` (the engine asked for), `LastGood` (the last engine that
    /// was proven), `Ollama` (the fallback), `Cpu` (our own server on the CPU), `Image` (the container of
    /// `runtime.type: Image`) or `None`.
    #[serde(default)]
    pub active_backend: ActiveBackend,

    /// Base URL of the endpoint, for example `http://hermes3.default.svc:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,

    /// The TensorRT engine that is served, or would be if it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineStatus>,

    /// Revision that the spec asks for: ten hexadecimal digits over what changes what is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub desired_revision: Option<String>,

    /// Revision whose engine serves. Absent while the fallback does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub active_revision: Option<String>,

    /// Revision that was last proven, promoted and soaked: what is fallen back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub last_good_revision: Option<String>,

    /// Revisions that failed here, newest first, at most 8. They are not started until the spec or
    /// `rollout.retryToken` changes or the backoff allows one more try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_revisions: Vec<FailedRevision>,

    /// `rollout.retryToken` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_retry_token: Option<String>,

    /// Memory arithmetic of the node with the least left over, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,

    /// What the engine reached when it was last proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredStatus>,

    /// How many nodes are in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesStatus>,

    /// Conditions as kstatus expects them: `Ready` always; `Reconciling` and `Stalled` only while
    /// true; `HardwareMatched`, `ModelFetched`, `EngineReady`, `Available`, `FallbackActive`. Each
    /// message ends with what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What answers requests.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ActiveBackend {
    /// The TensorRT engine that the spec asks for.
    TensorRT,
    /// The last engine that was proven and soaked.
    LastGood,
    /// The fallback.
    Ollama,
    /// Our own server on the CPU.
    Cpu,
    /// The container of `runtime.type: Image`: what it runs on is its own affair.
    Image,
    /// Nothing.
    #[default]
    None,
}

impl ActiveBackend {
    /// All, in the order of preference.
    pub const ALL: [Self; 6] = [
        Self::TensorRT,
        Self::LastGood,
        Self::Ollama,
        Self::Cpu,
        Self::Image,
        Self::None,
    ];

    /// The name in the status, in headers and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TensorRT => "TensorRT",
            Self::LastGood => "LastGood",
            Self::Ollama => "Ollama",
            Self::Cpu => "Cpu",
            Self::Image => "Image",
            Self::None => "None",
        }
    }
}

impl std::fmt::Display for ActiveBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A TensorRT engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// First twelve hexadecimal digits of the engine key: model, builder, precision, shapes,
    /// TensorRT build, SM and platform.
    #[schemars(length(max = 64))]
    pub key: String,

    /// Digest of the bundle, `sha256:` and 64 hexadecimal digits; absent until it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,

    /// Precision of the weights: what `Auto` chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub precision: Option<String>,

    /// TensorRT that it was built with, to the build number, for example `10.3.0.30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tensorrt_version: Option<String>,

    /// Compute capability that it was built for, for example `8.7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub sm: Option<String>,

    /// Linux for Tegra that it was built on, for example `36.4.3`; absent on other platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub l4t: Option<String>,

    /// Where it came from: `Built` on this node, `Fetched` from a registry, or `Cached` here before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<EngineSource>,

    /// The node that built it or the repository it was fetched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub from: Option<String>,
}

/// Where an engine came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EngineSource {
    /// Built on this node.
    Built,
    /// Fetched from a registry.
    Fetched,
    /// In the cache before.
    Cached,
}

/// A revision that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedRevision {
    /// The revision.
    #[schemars(length(max = 16))]
    pub revision: String,

    /// The node it failed on; absent with `enginewright run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,

    /// Digest of the bundle or model that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,

    /// Why, as a stable word.
    pub reason: Reason,

    /// Why, in a sentence that ends with what to do.
    #[schemars(length(max = 1024))]
    pub message: String,

    /// Exit code of the server, where it exited; 128 and the signal's number where it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// How often it was tried.
    pub attempts: u32,
}

/// Memory arithmetic in bytes: what the node has, and who needs how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// Memory of the node that the GPU can use.
    pub total_bytes: u64,
    /// What is left of it for an engine, after the system and the reserve.
    pub available_bytes: u64,
    /// The weights.
    pub weights_bytes: u64,
    /// The KV cache: slots × (`maxInputTokens` + `maxOutputTokens`).
    pub kv_cache_bytes: u64,
    /// The server itself: context, libraries, activations.
    pub runtime_bytes: u64,
    /// The fallback while the engine serves.
    pub fallback_bytes: u64,
    /// The sum that must fit into `availableBytes`.
    pub required_bytes: u64,
}

/// What the engine reached when it was last proven. Medians.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredStatus {
    /// Revision that was measured.
    #[schemars(length(max = 16))]
    pub revision: String,

    /// Time to the first token, for example `312ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28))]
    pub first_token: Option<String>,

    /// Time of a whole answer, for example `1s840ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28))]
    pub completion: Option<String>,

    /// Tokens a second of one stream after its first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,

    /// Share of right tool calls, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_accuracy: Option<f64>,
}

/// How many nodes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesStatus {
    /// Nodes that `placement` selects.
    pub selected: u32,
    /// Nodes among them whose hardware fits.
    pub matched: u32,
    /// Nodes that serve the desired revision.
    pub ready: u32,
    /// Nodes on which it failed.
    pub failed: u32,
    /// Nodes that have not been heard of.
    pub unreachable: u32,
}
