//! What a bundle says about itself, and when that is believed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::FILES;
use super::error::ManifestProblem;
use crate::engine::{EngineKey, KeyInputs};

/// Schema that this program writes and the newest that it reads.
pub const SCHEMA: u64 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u64,
    /// Name of the engine: the hash of `inputs`.
    pub key: EngineKey,
    /// What the engine was built from and for.
    pub inputs: KeyInputs,
    /// Every file but the manifest and its signature.
    pub files: BTreeMap<String, FileFacts>,
    /// Who built it, with what.
    pub built: Built,
    /// What the engine is.
    pub engine: EngineFacts,
    /// Its speed, where it was measured on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// SHA-256 of the manifest with this field empty: a changed manifest is noticed without a
    /// signature. It names the bundle's content.
    pub digest: String,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// Who built it, with what, at what cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Built {
    /// `enginewright 0.1.0`.
    pub by: String,
    /// `TensorRT-RTX 1.6.1.120`.
    pub tensorrt: String,
    /// The machine, in one line.
    pub machine: String,
    /// Whether a GPU was there.
    pub on_gpu: bool,
    /// How long TensorRT built.
    pub seconds: f64,
    /// Most memory that the process held while it built, bytes: all of it, files mapped included.
    pub peak_memory: u64,
    /// Seconds since 1970.
    pub at: u64,
}

/// What the engine is, for people; the engine itself decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineFacts {
    /// The model's name for itself.
    pub model: String,
    /// `native` or `split`.
    pub attention: String,
    /// Bytes of weights as given to TensorRT.
    pub weight_bytes: u64,
    /// Operations of the network by kind.
    pub operations: BTreeMap<String, u32>,
    /// Layers that TensorRT was given.
    pub layers: u32,
    /// Inputs, then outputs, in order.
    pub ports: Vec<Port>,
    /// In order.
    pub profiles: Vec<ProfileFacts>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its sizes; words are sizes that differ from run to run.
    pub shape: String,
    /// An input, else an output.
    pub is_input: bool,
}

/// An optimisation profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileFacts {
    /// Its name.
    pub name: String,
    /// Bounds by the name of the size.
    pub bounds: BTreeMap<String, SizeBounds>,
}

/// Least, best and most of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeBounds {
    /// The least.
    pub min: i64,
    /// What it is tuned for.
    pub opt: i64,
    /// The most.
    pub max: i64,
}

/// What was measured with this engine, on the device it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Measured {
    /// Tokens a second of one sequence.
    pub decode_tokens_per_second: f64,
    /// Prompt tokens a second.
    pub prefill_tokens_per_second: f64,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u64,
}

impl Manifest {
    /// The bytes of the file, with its digest.
    ///
    /// # Errors
    /// When it cannot be written as JSON (a number that is none).
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut sealed = self.clone();
        sealed.digest = self.own_digest()?;
        let mut bytes = serde_json::to_vec_pretty(&sealed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn own_digest(&self) -> serde_json::Result<String> {
        let mut open = self.clone();
        open.digest = String::new();
        let bytes = serde_json::to_vec(&open)?;
        Ok(hex::encode(Sha256::digest(bytes)))
    }

    /// Reads a manifest and believes it when every byte is as this program would write it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ManifestProblem> {
        let damaged = |problem: String| ManifestProblem::Damaged(problem);
        let no_json = |error: serde_json::Error| damaged(format!("is no manifest: {error}"));
        // The schema first: a newer manifest may have anything else.
        let SchemaOnly { schema } = serde_json::from_slice(bytes).map_err(no_json)?;
        if schema > SCHEMA {
            return Err(ManifestProblem::Newer(schema));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(no_json)?;
        let written = manifest.to_bytes().map_err(no_json)?;
        if written != bytes {
            return Err(damaged("was changed: its own digest is another".to_owned()));
        }
        if manifest.inputs.key() != manifest.key {
            return Err(damaged(
                "has a key that is not the hash of its inputs".to_owned(),
            ));
        }
        let listed: BTreeSet<&str> = manifest.files.keys().map(String::as_str).collect();
        if listed != FILES.into_iter().collect() {
            return Err(damaged(format!("lists {listed:?}, not {FILES:?}")));
        }
        Ok(manifest)
    }
}
