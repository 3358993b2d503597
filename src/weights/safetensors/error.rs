//! What can be wrong with a folder of safetensors.

use std::path::PathBuf;

/// Why a folder is no model in safetensors.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// A file of the model is not there, too large to be what its name says, or unreadable.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A header contradicts the format or the length of its file.
    #[error("the header of {} {problem}: the file is truncated or damaged, fetch it again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// One tensor contradicts the format or the length of its file.
    #[error("tensor `{name}` in {} {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// `model.safetensors.index.json` contradicts the files.
    #[error("the index {} {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}
