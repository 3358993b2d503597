//! The engine key: which machines and requests one built engine serves.
//!
//! Two engines with the same key are interchangeable; one with another key must be refused before
//! TensorRT reads a byte of it, because an engine is native code. The key covers what the TensorRT
//! documentation demands to be equal (version to the build number, GPU architecture, platform) and
//! what makes it this engine (model, precision, shapes, builder).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Format;
use crate::hardware::{Platform, Sm};

/// Version of the network as this program describes it to TensorRT. Raised when the same model
/// would become another network (other layers, another layout of the weights), so that engines built
/// before are not taken for new ones. A form of attention that is not its TensorRT's own is added to it.
pub const BUILDER_VERSION: &str = "1";

/// Tokens of a prompt that one step of an engine takes at most.
pub const CHUNK: u32 = 512;

/// What an engine is built from and for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyInputs {
    /// SHA-256 of the model file, hexadecimal.
    pub model_digest: String,
    /// Version of the builder: another one may describe another network.
    pub builder_version: String,
    /// Number format of the weights.
    pub format: Format,
    /// Weights that share a scale; 0 where the format has no groups.
    pub group: u64,
    /// Concurrent sequences.
    pub slots: u32,
    /// Longest prompt.
    pub max_input_tokens: u32,
    /// Longest answer.
    pub max_output_tokens: u32,
    /// Tokens of a prompt that one step takes at most.
    pub chunk: u32,
    /// TensorRT to the build number, for example `10.3.0.30`.
    pub tensorrt: String,
    /// Compute capability.
    pub sm: Sm,
    /// Operating system and architecture.
    pub platform: Platform,
}

/// Name of an engine: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineKey(String);

impl EngineKey {
    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for EngineKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl KeyInputs {
    /// The key. Every input is written with its name and length, so that no two different inputs
    /// give the same text.
    pub fn key(&self) -> EngineKey {
        let Self {
            model_digest,
            builder_version,
            format,
            group,
            slots,
            max_input_tokens,
            max_output_tokens,
            chunk,
            tensorrt,
            sm,
            platform,
        } = self;
        let platform = match platform {
            Platform::L4t => "l4t-aarch64",
            Platform::X86 => "linux-x86_64",
        };
        let mut hash = Sha256::new();
        hash.update(b"enginewright engine key v2\n");
        for (name, value) in [
            ("model", model_digest.to_lowercase()),
            ("builder", builder_version.clone()),
            ("format", format.name().to_owned()),
            ("group", group.to_string()),
            ("slots", slots.to_string()),
            ("input", max_input_tokens.to_string()),
            ("output", max_output_tokens.to_string()),
            ("chunk", chunk.to_string()),
            ("tensorrt", tensorrt.clone()),
            ("sm", sm.to_string()),
            ("platform", platform.to_owned()),
        ] {
            hash.update(format!("{name}:{}:{value}\n", value.len()));
        }
        EngineKey(hex::encode(hash.finalize()))
    }
}

/// Groups of weights that share a scale in `format`, as far as the key is concerned.
pub fn group_in_key(facts: &crate::model::ModelFacts, format: Format) -> u64 {
    match format {
        Format::Int4 => super::need::group(facts).unwrap_or(0),
        Format::Nvfp4 => 16,
        Format::Fp16 | Format::Fp8 | Format::Int8 | Format::AsInFile => 0,
    }
}
