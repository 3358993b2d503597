//! What can be wrong with a model's weights.

use std::path::PathBuf;

use super::safetensors::SafetensorsError;
use crate::model::ModelError;
use crate::model::gguf::GgufError;

/// Why a model's weights cannot be opened. What goes wrong later, while rows are read, is a
/// [`crate::network::WeightError`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path names neither a GGUF file nor a folder with safetensors.
    #[error(
        "{} {problem}: give a GGUF file, or the folder that holds config.json and the safetensors",
        path.display()
    )]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// The header of a GGUF file is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A safetensors model is wrong.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The file is sound, but it is no model that this program runs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tensor's encoding is not read.
    #[error(
        "tensor `{name}` is {found}; supported are {supported}: convert the model to one of them"
    )]
    Encoding {
        /// The tensor.
        name: String,
        /// Its encoding.
        found: String,
        /// The encodings that are read.
        supported: String,
    },
}
