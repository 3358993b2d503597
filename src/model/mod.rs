//! Model files. Reads and checks GGUF headers; runs nothing and never maps tensor data.
//!
//! What other layers may rely on: a [`gguf::GgufFile`] that was returned is consistent with the
//! length of its file; a model for which [`check`] returned facts has every tensor that its
//! architecture needs, in the right shape, and a vocabulary that llama.cpp can load. That matters
//! because llama.cpp ends the whole process on some of the contradictions refused here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod catalogue;
pub(crate) mod directory;
mod entries;
pub mod gguf;
pub mod modelfile;
pub mod ollama_store;
mod structure;
mod vocabulary;

use gguf::GgufFile;

/// Families of networks that this program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Llama 2 and 3, Hermes 3, `SmolLM2`, Mistral.
    Llama,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: normalised queries and keys.
    Qwen3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// The name in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// How positions are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rope {
    /// Base of the frequencies.
    pub base: f32,
    /// Rotated dimensions of each head.
    pub dimensions: u32,
    /// Whether the model carries its own frequency factors (Llama 3.1 and later): the tensor
    /// `rope_freqs.weight`, by whose elements the frequencies are divided.
    pub has_factors: bool,
    /// How positions beyond the trained context are mapped into it.
    pub scaling: RopeScaling,
}

/// How positions beyond the trained context are mapped into it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RopeScaling {
    /// Not at all, or by frequency factors.
    None,
    /// Every position is divided by the factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// `YaRN`: llama.cpp computes it, our engines do not.
    Yarn,
}

/// What must be known of a model to say where it fits and how fast it can be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelFacts {
    /// Name that the model gives itself.
    pub name: String,
    /// Family of the network.
    pub architecture: Architecture,
    /// Transformer layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Length of one head.
    pub head_length: u32,
    /// Length of the hidden state.
    pub hidden: u32,
    /// Length of the feed-forward network's hidden state.
    pub feed_forward: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Tokens that the model was trained to attend to.
    pub context: u32,
    /// Whether the output layer is the embedding.
    pub tied_embeddings: bool,
    /// How positions are encoded.
    pub rope: Rope,
    /// What is added to the mean square in every norm.
    pub rms_epsilon: f32,
    /// Whether queries, keys and values have biases: Qwen 2, few of the Llama family.
    pub attention_biases: bool,
    /// Bytes of tensor data in the file, by encoding; empty when there is no file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bytes_by_type: BTreeMap<String, u64>,
}

impl ModelFacts {
    /// Reads the facts from a checked header; vocabulary arrays may have been skipped.
    ///
    /// # Errors
    /// When the architecture is not supported, an entry is missing or absurd, or a tensor is
    /// missing, unknown or of the wrong shape.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, ModelError> {
        structure::facts(file)
    }

    /// Weights of one layer that are multiplied with activations: the ones that are quantised.
    pub fn linear_parameters_per_layer(&self) -> u64 {
        let hidden = u64::from(self.hidden);
        let queries = u64::from(self.heads) * u64::from(self.head_length);
        let keys = u64::from(self.kv_heads) * u64::from(self.head_length);
        hidden * queries * 2 + hidden * keys * 2 + hidden * u64::from(self.feed_forward) * 3
    }

    /// Weights of all layers that are multiplied with activations.
    pub fn linear_parameters(&self) -> u64 {
        self.linear_parameters_per_layer() * u64::from(self.layers)
    }

    /// Weights of the embedding table.
    pub fn embedding_parameters(&self) -> u64 {
        u64::from(self.vocabulary) * u64::from(self.hidden)
    }

    /// Weights of norms and biases: small, never quantised.
    pub fn norm_parameters(&self) -> u64 {
        let hidden = u64::from(self.hidden);
        let head = u64::from(self.head_length);
        let biases = head * (u64::from(self.heads) + 2 * u64::from(self.kv_heads));
        let of_heads = match self.architecture {
            Architecture::Qwen3 => 2 * head,
            Architecture::Llama | Architecture::Qwen2 => 0,
        };
        let per_layer = 2 * hidden + of_heads + if self.attention_biases { biases } else { 0 };
        per_layer * u64::from(self.layers) + hidden
    }

    /// All parameters; a tied output layer counts once.
    pub fn parameters(&self) -> u64 {
        let tables = if self.tied_embeddings { 1 } else { 2 };
        self.linear_parameters() + self.embedding_parameters() * tables + self.norm_parameters()
    }

    /// Bytes of tensor data in the file; 0 when there is no file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes_by_type.values().sum()
    }

    /// Bytes of keys and values that one token takes in 16-bit precision.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * 2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head_length)
    }
}

/// Checks everything that is known to make llama.cpp end the process: structure and vocabulary.
/// To be called, with the whole header, before a file is given to it.
///
/// # Errors
/// As [`ModelFacts::from_gguf`], and when the vocabulary is inconsistent or was skipped.
pub fn check(file: &GgufFile) -> Result<ModelFacts, ModelError> {
    let facts = structure::facts(file)?;
    vocabulary::check(file, facts.vocabulary)?;
    Ok(facts)
}

/// SHA-256 of the file at `path`, hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(path: &std::path::Path) -> std::io::Result<String> {
    use sha2::Digest;

    let mut hash = sha2::Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

/// Why a GGUF file is not a model that this program can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Another family of networks.
    #[error(
        "the architecture `{found}` is not supported: use a model of one of llama (Llama, Hermes, \
         Mistral, SmolLM), qwen2, qwen3"
    )]
    Architecture {
        /// Value of `general.architecture`.
        found: String,
    },
    /// A metadata entry is missing, of the wrong type, or out of bounds.
    #[error("the model's metadata `{key}` {problem}")]
    Entry {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor is missing, unknown, or of the wrong shape or type.
    #[error("the model's tensor `{name}` {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
