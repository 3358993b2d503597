//! A model's weights: GGUF files and folders of safetensors behind one
//! [`WeightSource`], and what becomes of them in an engine.
//!
//! Decides where each tensor of the network lies, how its bytes are decoded, and how it is rounded to
//! the number format of an engine. It reads files, a piece at a time into reused buffers, and never
//! holds a whole model; it knows no device and no engine.

use std::ops::Range;
use std::path::Path;

mod decode;
mod digest;
mod encode;
mod error;
mod files;
mod gguf;
mod loss;
mod quantise;
mod report;
mod rounded;
mod safetensors;
mod tensors;

pub use decode::Encoding;
pub use digest::Digests;
pub use encode::{EncodeError, EncodeOptions, Sink, encode, encode_into};
pub use error::OpenError;
pub use loss::Loss;
pub use quantise::Rounding;
pub use report::{OutputError, Perplexity, RoundingReport, WeightReport};
pub use rounded::Rounded;
pub use safetensors::{Companions, Config, SafetensorsError};

use self::files::SourceFile;
use self::tensors::Tensors;
use crate::model::ModelFacts;
use crate::network::{TensorMeta, WeightError, WeightSource};

/// Form of a model's files.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// One GGUF file.
    Gguf,
    /// A folder of safetensors.
    Safetensors {
        /// What its `config.json` says.
        config: Config,
        /// Tokenizer and chat template beside it.
        companions: Companions,
    },
}

/// The weights of one model, opened and checked.
#[derive(Debug)]
pub struct Weights {
    facts: ModelFacts,
    form: Form,
    tensors: Tensors,
    /// `config.json` of safetensors: part of what the model is.
    configuration: Option<SourceFile>,
}

impl Weights {
    /// Opens a GGUF file, or a folder with safetensors and `config.json`.
    ///
    /// # Errors
    /// When something cannot be read, contradicts itself or its length, or is no model that this
    /// program runs.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let metadata = std::fs::metadata(path).map_err(|source| OpenError::Read {
            path: path.to_owned(),
            source,
        })?;
        if metadata.is_dir() {
            let folder = safetensors::open(path)?;
            return Ok(Self {
                facts: folder.config.facts.clone(),
                form: Form::Safetensors {
                    config: folder.config,
                    companions: folder.companions,
                },
                tensors: folder.tensors,
                configuration: Some(SourceFile::open(&path.join("config.json"))?),
            });
        }
        let (facts, tensors) = gguf::open(path)?;
        Ok(Self {
            facts,
            form: Form::Gguf,
            tensors,
            configuration: None,
        })
    }

    /// What the model is.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// In which form it lies on the disk.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Names of all tensors, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.by_name.keys().map(String::as_str)
    }

    /// Digests of the model and of each tensor, in one pass over all files; `progress` gets the bytes
    /// so far and may stop it with `false`.
    ///
    /// # Errors
    /// When a file cannot be read or was changed; [`std::io::ErrorKind::Interrupted`] when stopped.
    pub fn digest(&self, progress: &mut dyn FnMut(u64) -> bool) -> std::io::Result<Digests> {
        let Tensors { files, by_name, .. } = &self.tensors;
        digest::digests(files, by_name, self.configuration.as_ref(), progress)
    }

    /// From now on every tensor that is read from its first row to its last is compared with its
    /// digest while it streams by: reading the last row fails when they differ. Bytes that are read a
    /// second time are not compared a second time.
    pub fn expect(&mut self, digests: &Digests) {
        self.tensors.watch = Some(digest::Watch::new(digests));
    }

    /// Tensors of [`Weights::expect`] that were not, or not wholly, read and compared.
    pub fn unread(&self) -> Vec<String> {
        let Tensors { by_name, watch, .. } = &self.tensors;
        watch
            .as_ref()
            .map_or_else(Vec::new, |watch| watch.unread(by_name))
    }

    /// Checks that no file was changed since it was opened.
    ///
    /// # Errors
    /// When one was, or cannot be looked at.
    pub fn check_unchanged(&self) -> std::io::Result<()> {
        self.tensors
            .files
            .iter()
            .try_for_each(SourceFile::check_unchanged)
    }
}

impl WeightSource for Weights {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        self.tensors.by_name.get(name).map(tensors::Tensor::meta)
    }

    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        self.tensors.read(name, rows, into)
    }
}

#[cfg(test)]
pub(crate) mod tests;
