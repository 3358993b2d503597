//! What is there: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What kind of model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDetails {
    /// Always empty here.
    #[serde(default)]
    pub parent_model: String,
    /// `gguf`.
    #[serde(default)]
    pub format: String,
    /// The architecture, such as `llama`.
    #[serde(default)]
    pub family: String,
    /// The same, as a list.
    #[serde(default)]
    pub families: Option<Vec<String>>,
    /// Such as `134.52M`.
    #[serde(default)]
    pub parameter_size: String,
    /// Such as `Q4_1`.
    #[serde(default)]
    pub quantization_level: String,
}

/// Answer of `/api/tags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagsResponse {
    /// The models.
    pub models: Vec<TaggedModel>,
}

/// A model that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedModel {
    /// The served name.
    pub name: String,
    /// The same.
    #[serde(default)]
    pub model: String,
    /// RFC 3339.
    #[serde(default)]
    pub modified_at: String,
    /// Bytes of the file.
    #[serde(default)]
    pub size: u64,
    /// Hexadecimal; empty when not known.
    #[serde(default)]
    pub digest: String,
    /// What kind.
    #[serde(default)]
    pub details: ModelDetails,
}

/// Answer of `/api/ps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PsResponse {
    /// The models in memory.
    pub models: Vec<RunningModel>,
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningModel {
    /// The served name.
    pub name: String,
    /// The same.
    #[serde(default)]
    pub model: String,
    /// Bytes in memory.
    #[serde(default)]
    pub size: u64,
    /// Hexadecimal; empty when not known.
    #[serde(default)]
    pub digest: String,
    /// What kind.
    #[serde(default)]
    pub details: ModelDetails,
    /// RFC 3339; far away: the model stays.
    #[serde(default)]
    pub expires_at: String,
    /// Bytes in the GPU's memory.
    #[serde(default)]
    pub size_vram: u64,
    /// Tokens of context.
    #[serde(default)]
    pub context_length: u32,
}

/// Body of `/api/show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowRequest {
    /// The served name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The same, under its older key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Answer of `/api/show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowResponse {
    /// A comment: there is no Modelfile.
    #[serde(default)]
    pub modelfile: String,
    /// Default parameters, one a line.
    #[serde(default)]
    pub parameters: String,
    /// The chat template.
    #[serde(default)]
    pub template: String,
    /// What kind.
    #[serde(default)]
    pub details: ModelDetails,
    /// The file's metadata without long lists.
    #[serde(default)]
    pub model_info: Map<String, Value>,
    /// Such as `completion`, `tools`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// RFC 3339.
    #[serde(default)]
    pub modified_at: String,
}

/// Answer of `/api/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Such as `0.12.6`.
    pub version: String,
}
