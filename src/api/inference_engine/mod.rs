//! `InferenceEngine`: one model, served from one stable endpoint.
//!
//! The types say what can be written, with defaults and bounds; what the values mean together is
//! checked by [`crate::api::parse`] into a [`crate::api::ValidatedEngine`]. Unset groups get
//! defaults that are right for a Jetson, so the smallest resource is a name and a model source.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

mod engine;
mod fallback;
mod health;
mod model;
mod placement;
mod rollout;
mod runtime;
mod status;

pub use engine::{BuildSpec, EnginePolicy, EngineSpec, Precision, RegistrySpec, TrustSpec};
pub use fallback::{FallbackBackend, FallbackSpec, OllamaSpec, Residency};
pub use health::{HealthSpec, ObjectivesSpec};
pub use model::{ModelSpec, SecretKeyRef, SecretRef};
pub use placement::{CacheSpec, PlacementSpec, TaintEffect, Toleration, TolerationOperator};
pub use rollout::{BackoffSpec, RolloutSpec, RolloutStrategy, WaveSpec};
pub use runtime::{EnvVar, RuntimeImageSpec, RuntimeSpec, RuntimeType};
pub use status::{
    ActiveBackend, EngineSource, EngineStatus, FailedRevision, InferenceEngineStatus,
    MAX_FAILED_REVISIONS, MeasuredStatus, MemoryStatus, NodesStatus,
};

/// What to serve, how, and what to do when it fails. Only `model.source` must be written; every
/// other field has a default that is right for an NVIDIA Jetson.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "enginewright.dev",
    version = "v1alpha1",
    kind = "InferenceEngine",
    namespaced,
    status = "InferenceEngineStatus",
    shortname = "ie",
    category = "enginewright",
    derive = "PartialEq",
    doc = "One large language model, served from one stable endpoint: at once by the fallback, fast \
           as soon as its TensorRT engine is ready, and still there when that engine fails.",
    printcolumn(
        name = "Backend",
        type_ = "string",
        json_path = ".status.activeBackend",
        description = "What answers now: TensorRT, LastGood, Ollama, Cpu, Image or None"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether what answers is what the spec asks for"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is, or is not"
    ),
    printcolumn(
        name = "Engine",
        type_ = "string",
        json_path = ".status.engine.key",
        description = "Key of the TensorRT engine that is served"
    ),
    printcolumn(
        name = "First-token",
        type_ = "string",
        json_path = ".status.measured.firstToken",
        description = "Time to the first token, as measured when the engine was proven"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name is at most 40 lower-case letters, digits and '-', starts with a letter and does not end with '-'; write for example name: hermes3")
)]
#[x_kube(validation = Rule::new("!has(self.fallback.ollama.address) || !('Ollama' in self.fallback.order) || has(self.fallback.ollama.model) || self.model.source.startsWith('ollama://')")
    .message("with fallback.ollama.address the name of the model there must be known; write fallback.ollama.model, for example hermes3:8b-llama3.1-q4_K_M, or use a model.source of the form ollama://name:tag"))]
#[serde(rename_all = "camelCase")]
pub struct InferenceEngineSpec {
    /// The model to serve.
    pub model: ModelSpec,

    /// How the model is made into a TensorRT engine: precision, lengths, concurrent sequences,
    /// where bundles come from and go to.
    #[serde(default)]
    pub engine: EngineSpec,

    /// The server that runs the model: Enginewright's own (`Native`, the default) or any container
    /// that serves the OpenAI API (`Image`).
    #[serde(default)]
    pub runtime: RuntimeSpec,

    /// The nodes to serve on, and where on them the engine cache lies.
    #[serde(default)]
    pub placement: PlacementSpec,

    /// What the engine must reach to be promoted, and to stay promoted. Nothing is demanded by
    /// default beyond a generation that works.
    #[serde(default)]
    pub objectives: ObjectivesSpec,

    /// How often and how patiently the engine is checked. A check is a real generation.
    #[serde(default)]
    pub health: HealthSpec,

    /// What answers while the engine does not: in what order, and how ready it is kept.
    #[serde(default)]
    pub fallback: FallbackSpec,

    /// How a new revision takes over from the old one, and how often a failed one is tried again.
    #[serde(default)]
    pub rollout: RolloutSpec,

    /// `true` stops everything that belongs to this resource, endpoint included, and keeps the
    /// engine cache. Default: `false`.
    #[serde(default)]
    pub suspend: bool,
}
