//! GGUF headers: metadata and the directory of tensors.
//!
//! The reader treats every file as hostile: each count, length, dimension and offset is checked
//! against the length of the file and against fixed limits before memory is asked for, and what
//! is wrong is named with its field and its position in the file. It reads versions 2 and 3,
//! little-endian. Tensor data is never read here.
//!
//! Source of the format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; the checks
//! follow llama.cpp's `gguf.cpp`, so that what is accepted here is refused there by an error at
//! worst, never by an abort.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

mod reader;
mod tensor_type;
mod value;
pub mod writer;

pub use tensor_type::TensorType;
pub use value::{GgufArray, GgufValue, StringList};

/// Most bytes a header may take: metadata and tensor directory together. The largest seen in the
/// wild, with vocabularies of 262,144 tokens, is below 20 MB.
pub const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Most bytes of one string: a chat template, a license, a token.
pub const MAX_STRING_BYTES: u64 = 8 << 20;
/// Most bytes of a metadata key (the format's own limit).
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Most metadata entries.
pub const MAX_ENTRIES: u64 = 65_536;
/// Most tensors.
pub const MAX_TENSORS: u64 = 65_536;
/// Most elements of one metadata array.
pub const MAX_ARRAY_ELEMENTS: u64 = 8 << 20;
/// Most bytes of a tensor's name (ggml's own limit).
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;
/// Most dimensions of a tensor (ggml's own limit).
pub const MAX_DIMENSIONS: u32 = 4;

/// Why a file is not a GGUF file that can be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be opened or read.
    #[error("cannot read the model file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The path names a directory, a pipe or a device.
    #[error("{} is not a regular file: give the path of a GGUF file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Reading failed in the middle.
    #[error("reading {field} at byte {offset} failed: {source}")]
    Io {
        /// What was being read.
        field: String,
        /// Where.
        offset: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not a GGUF file at all.
    #[error(
        "this is not a GGUF file: it starts with {found}, a GGUF file with \"GGUF\"; convert the \
         model with llama.cpp's convert_hf_to_gguf.py, or point at the right file"
    )]
    NotGguf {
        /// The first bytes, printable.
        found: String,
    },
    /// A version of the format that is not read.
    #[error("GGUF version {found} is not supported, only 2 and 3, little-endian: {hint}")]
    Version {
        /// The version found.
        found: u32,
        /// What the number suggests.
        hint: &'static str,
    },
    /// The header says that there is more than the file holds.
    #[error(
        "{field} at byte {offset} needs {needed} bytes, but only {remaining} are left in the file: \
         it is truncated or damaged, fetch it again"
    )]
    Truncated {
        /// What was being read.
        field: String,
        /// Where.
        offset: u64,
        /// Bytes that the field needs.
        needed: u64,
        /// Bytes from `offset` to the end of the file.
        remaining: u64,
    },
    /// A number beyond what any real model has.
    #[error(
        "{field} at byte {offset} is {found}, the limit is {limit}: the file is damaged or hostile"
    )]
    Limit {
        /// What was being read.
        field: String,
        /// Where.
        offset: u64,
        /// The number found.
        found: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A field that contradicts the format.
    #[error("{field} at byte {offset} {problem}")]
    Malformed {
        /// What was being read.
        field: String,
        /// Where.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// How much of the metadata is kept in memory. Everything is checked in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Arrays with more elements become [`GgufArray::Skipped`].
    pub keep_arrays_up_to: u64,
}

impl ReadOptions {
    /// Keeps everything: what a server needs, whose tokenizer is in the arrays.
    pub const ALL: Self = Self {
        keep_arrays_up_to: MAX_ARRAY_ELEMENTS,
    };
    /// Drops vocabularies: what a gateway or a plan needs.
    pub const WITHOUT_VOCABULARY: Self = Self {
        keep_arrays_up_to: 4096,
    };
}

/// One entry of the tensor directory, checked against the file's length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique name, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// Elements along each dimension, fastest first; one to four, none zero.
    pub dimensions: Vec<u64>,
    /// Encoding of the elements.
    pub kind: TensorType,
    /// Position of the data in the file, in bytes from its start.
    pub offset: u64,
    /// Length of the data in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // Checked by the reader: the product fits.
        self.dimensions.iter().product()
    }
}

/// The header of a GGUF file: all of its metadata and the directory of its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufFile {
    version: u32,
    alignment: u64,
    data_offset: u64,
    file_len: u64,
    metadata: BTreeMap<String, GgufValue>,
    tensors: Vec<TensorInfo>,
}

impl GgufFile {
    /// Reads the header of the file at `path`, keeping all metadata.
    ///
    /// # Errors
    /// When the file cannot be read or is not a consistent GGUF file.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        Self::open_with(path, ReadOptions::ALL)
    }

    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn open_with(path: &Path, options: ReadOptions) -> Result<Self, GgufError> {
        let failed = |source| GgufError::Open {
            path: path.to_owned(),
            source,
        };
        // Before opening: opening a named pipe would wait for its writer.
        let before = std::fs::metadata(path).map_err(failed)?;
        if !before.is_file() {
            return Err(GgufError::NotAFile {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Self::parse_with(BufReader::with_capacity(1 << 16, file), length, options)
    }

    /// Reads a header from `reader`, whose whole length is `file_len` bytes.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn parse(reader: impl Read, file_len: u64) -> Result<Self, GgufError> {
        Self::parse_with(reader, file_len, ReadOptions::ALL)
    }

    /// Reads a header from `reader`, whose whole length is `file_len` bytes.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn parse_with(
        reader: impl Read,
        file_len: u64,
        options: ReadOptions,
    ) -> Result<Self, GgufError> {
        reader::read(reader, file_len, options)
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes, a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensor data starts, in bytes from the start of the file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Length of the whole file in bytes.
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// The tensor directory, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// The string under `key`; `None` when absent or of another type.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The integer under `key`, of whatever width, when it fits.
    pub fn u32(&self, key: &str) -> Option<u32> {
        u32::try_from(self.get(key)?.as_u64()?).ok()
    }

    /// The integer under `key`, of whatever width, when it is not negative.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The floating-point number under `key`; an `f64` is rounded.
    pub fn f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.as_f32()
    }

    /// The boolean under `key`.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The array of strings under `key`; `None` when absent, of another type, or skipped.
    pub fn strings(&self, key: &str) -> Option<&StringList> {
        match self.get(key)? {
            GgufValue::Array(GgufArray::Strings(list)) => Some(list),
            _ => None,
        }
    }

    /// The array of 32-bit integers under `key`, for example the token types.
    pub fn i32s(&self, key: &str) -> Option<&[i32]> {
        match self.get(key)? {
            GgufValue::Array(GgufArray::I32(list)) => Some(list),
            _ => None,
        }
    }

    /// The array of 32-bit floating-point numbers under `key`, for example the token scores.
    pub fn f32s(&self, key: &str) -> Option<&[f32]> {
        match self.get(key)? {
            GgufValue::Array(GgufArray::F32(list)) => Some(list),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
