//! The header of one safetensors file: eight bytes of length, then JSON that names each tensor's
//! type, shape and place.
//!
//! Every file is treated as hostile. The crate `safetensors` is not used: its reader wants the whole
//! file in memory, and its header alone is not held against the file's length; of two tensors of one
//! name it takes either. What is accepted here is accepted there.
//!
//! Source of the format: <https://huggingface.co/docs/safetensors>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::SafetensorsError;
use crate::weights::decode::Encoding;
use crate::weights::files::SourceFile;

/// Most bytes of a header. The largest seen, of models in one file, are below 1 MB.
pub(super) const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Most tensors of one file.
const MAX_TENSORS: usize = 65_536;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;
/// Most bytes of a name.
const MAX_NAME_BYTES: usize = 512;

/// One tensor, checked against the length of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the file has it: `F32`, `BF16`, `I64`.
    pub(super) dtype: String,
    /// Outermost axis first.
    pub(super) shape: Vec<u64>,
    /// Position of the first byte in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) bytes: u64,
}

impl Entry {
    /// The encoding, if it is one of weights.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self.dtype.as_str() {
            "F32" => Some(Encoding::F32),
            "F16" => Some(Encoding::F16),
            "BF16" => Some(Encoding::BF16),
            _ => None,
        }
    }
}

/// Reads and checks the header of `file`.
pub(super) fn read(file: &SourceFile) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let wrong = |problem: String| SafetensorsError::Header {
        path: file.path().to_owned(),
        problem,
    };
    let io = |error: std::io::Error| SafetensorsError::File {
        path: file.path().to_owned(),
        problem: format!("cannot be read: {error}"),
    };
    let Some(room) = file.length().checked_sub(8) else {
        return Err(wrong(format!(
            "needs 8 bytes, the file has {}",
            file.length()
        )));
    };
    let mut length = [0; 8];
    file.read_at(0, &mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > room {
        return Err(wrong(format!("needs {length} bytes, the file has {room}")));
    }
    if length > MAX_HEADER_BYTES {
        return Err(wrong(format!(
            "has {length} bytes, the limit is {MAX_HEADER_BYTES}"
        )));
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_at(8, &mut text).map_err(io)?;
    if text.first() != Some(&b'{') {
        return Err(wrong("is no JSON object".to_owned()));
    }
    let listed: Listed = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    place(file, listed.0, 8 + length)
}

/// Checks each tensor's length, and that together they fill the file without holes or overlaps.
fn place(
    file: &SourceFile,
    listed: Vec<(String, Info)>,
    data: u64,
) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let wrong = |name: &str, problem: String| SafetensorsError::Tensor {
        path: file.path().to_owned(),
        name: name.to_owned(),
        problem,
    };
    let mut listed = listed;
    listed.sort_by_key(|(_, info)| info.data_offsets);
    let room = file.length() - data;
    let mut expected = 0;
    let mut entries = BTreeMap::new();
    for (name, info) in listed {
        let [start, end] = info.data_offsets;
        if start > end || end > room {
            let problem = format!(
                "lies at bytes {start} to {end} of {room}: the file is truncated or damaged, fetch it again"
            );
            return Err(wrong(&name, problem));
        }
        if start != expected {
            let what = if start < expected {
                "overlaps"
            } else {
                "leaves a hole after"
            };
            let problem = format!(
                "starts at byte {start}, which {what} the tensor before, that ends at {expected}"
            );
            return Err(wrong(&name, problem));
        }
        let bits = element_bits(&info.dtype)
            .ok_or_else(|| wrong(&name, format!("has the unknown type {}", info.dtype)))?;
        let needed = info
            .shape
            .0
            .iter()
            .try_fold(bits, |product, &size| product.checked_mul(size))
            .filter(|bits| bits.is_multiple_of(8))
            .map(|bits| bits / 8);
        if needed != Some(end - start) {
            let problem = format!(
                "has {} bytes, its shape {:?} and type {} need another number",
                end - start,
                info.shape.0,
                info.dtype
            );
            return Err(wrong(&name, problem));
        }
        expected = end;
        let entry = Entry {
            dtype: info.dtype,
            shape: info.shape.0,
            offset: data + start,
            bytes: end - start,
        };
        entries.insert(name, entry);
    }
    if expected != room {
        return Err(SafetensorsError::Header {
            path: file.path().to_owned(),
            problem: format!("covers {expected} of {room} bytes of data"),
        });
    }
    Ok(entries)
}

/// Bits of one element.
fn element_bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "BOOL" | "I8" | "U8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F6_E2M3" | "F6_E3M2" => 6,
        "F4" => 4,
        _ => return None,
    })
}

/// A tensor as the header has it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// Sizes, a few: a list of a million ones is no shape.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "at most {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = list.next_element()? {
                    if sizes.len() == MAX_DIMENSIONS {
                        return Err(A::Error::custom(format!(
                            "a shape has more than {MAX_DIMENSIONS} dimensions"
                        )));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// All tensors in the order of the header; a name that stands there twice is refused.
struct Listed(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Listed;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                let mut seen = BTreeSet::new();
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name.len() > MAX_NAME_BYTES || seen.len() > MAX_TENSORS {
                        return Err(A::Error::custom(format!(
                            "more than {MAX_TENSORS} tensors, or a name of {} bytes",
                            name.len()
                        )));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` stands there twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Listed(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
