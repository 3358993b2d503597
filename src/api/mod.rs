//! The custom resources: types, defaults, bounds, validation. Pure: no client, no clock.
//!
//! [`InferenceEngine`] and [`EdgeNode`] say what can be written; [`all_crds`] is what the API server
//! is told about it; [`parse`] reads a file and says everything that is wrong with it at once;
//! [`ValidatedEngine`] is what every other layer works with.

pub mod conditions;
mod crd;
mod edge_node;
pub mod inference_engine;
mod names;
mod parse;
mod problem;
mod rules;
mod size;
mod source;
mod span;
mod validated;

pub use conditions::{Condition, ConditionStatus, ConditionType, Reason};
pub use crd::{CrdError, all_crds, file_name, to_yaml};
pub use edge_node::{
    CachedBundle, EdgeNode, EdgeNodeFields, EdgeNodeStatus, GpuStatus, ModuleStatus, SoftwareStatus,
};
pub use inference_engine::{
    ActiveBackend, EnginePolicy, FallbackBackend, InferenceEngine, InferenceEngineSpec,
    InferenceEngineStatus, Precision, Residency, RolloutStrategy,
};
pub use names::{MAX_NAME, Name, RevisionId, Sha256Hex};
pub use parse::{MAX_FILE_BYTES, parse, validate};
pub use problem::Problem;
pub use size::ByteSize;
pub use source::{FilePath, ModelSource, SourceError};
pub use span::{Span, SpanError, format_span, parse_span};
pub use validated::{
    Engine, Fallback, Health, Model, Objectives, Ollama, Placement, Registry, Rollout, Runtime,
    RuntimeImage, RuntimeServer, Trust, ValidatedEngine, Wave,
};
