//! `spec.fallback`: what answers while the engine does not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What answers while the engine does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSpec {
    /// What is tried, first to last. Default: `[LastGood, Ollama]`: the last engine that was proven
    /// and soaked, if it still fits, then Ollama. An empty list means no fallback: the endpoint is
    /// down while the engine is.
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub order: Vec<FallbackBackend>,

    /// How ready Ollama is kept while the engine serves. `Standby` (default): running, model not
    /// loaded, so it takes no memory and answers after one load. `Warm`: model loaded, answers at
    /// once, where memory allows. `Cold`: not running, started when needed.
    pub residency: Residency,

    /// The Ollama that is fallen back to.
    pub ollama: OllamaSpec,
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self {
            order: vec![FallbackBackend::LastGood, FallbackBackend::Ollama],
            residency: Residency::Standby,
            ollama: OllamaSpec::default(),
        }
    }
}

/// What can be fallen back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FallbackBackend {
    /// The last engine that was proven and soaked.
    LastGood,
    /// Ollama.
    Ollama,
}

/// How ready the fallback is kept while the engine serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Residency {
    /// Running, model not loaded.
    #[default]
    Standby,
    /// Running, model loaded.
    Warm,
    /// Not running.
    Cold,
}

/// The Ollama that is fallen back to: one that is managed, or one at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OllamaSpec {
    /// Address of an Ollama that somebody else runs, for example `http://192.168.1.20:11434`.
    /// Default: none, one is run next to the engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(
            pattern = "^https?://([A-Za-z0-9][A-Za-z0-9.-]*|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?/?$"
        ),
        length(min = 8, max = 253)
    )]
    pub address: Option<String>,

    /// The model's name in Ollama. Default: the same model as `model.source`: by its name where the
    /// source is `ollama://`, else the GGUF is handed to the managed Ollama.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$"),
        length(min = 1, max = 253)
    )]
    pub model: Option<String>,

    /// Image of the managed Ollama, pinned by digest. It must be on the allow-list of the operator of
    /// the cluster. Default: the one the operator was released with. Ignored by `enginewright run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(
            pattern = "^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64}$"
        ),
        length(min = 74, max = 512)
    )]
    pub image: Option<String>,
}
