//! What an engine is started with: the part of a spec that a revision remembers.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::api::{Ollama, Precision, ValidatedEngine};

/// What an engine is started with. Stored with the revision, so that it can be started when the
/// spec has moved on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// What clients write as `model`.
    pub served_name: String,
    /// Number format.
    pub precision: Precision,
    /// Concurrent sequences.
    pub slots: u32,
    /// Longest prompt.
    pub max_input_tokens: u32,
    /// Longest answer.
    pub max_output_tokens: u32,
}

impl Served {
    /// Of a checked resource.
    pub fn of(engine: &ValidatedEngine) -> Self {
        Self {
            served_name: engine.served_name.clone(),
            precision: engine.engine.precision,
            slots: engine.engine.slots,
            max_input_tokens: engine.engine.max_input_tokens,
            max_output_tokens: engine.engine.max_output_tokens,
        }
    }

    /// Tokens of one sequence.
    pub fn context_tokens(&self) -> u32 {
        self.max_input_tokens.saturating_add(self.max_output_tokens)
    }

    /// The question whether it fits on a machine, beside a fallback kept as `engine` says.
    pub fn request(&self, engine: &ValidatedEngine) -> Request {
        self.request_for(engine, false)
    }

    /// The same for a TensorRT engine, or for the CPU back end.
    pub fn request_for(&self, engine: &ValidatedEngine, tensorrt: bool) -> Request {
        Request {
            tensorrt,
            precision: self.precision,
            slots: self.slots,
            max_input_tokens: self.max_input_tokens,
            max_output_tokens: self.max_output_tokens,
            fallback: matches!(engine.fallback.ollama, Some(Ollama::Managed { .. }))
                .then_some(engine.fallback.residency),
            // Whether it is fast enough is measured, not reckoned.
            tokens_per_second: None,
        }
    }
}
