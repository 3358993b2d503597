//! Reads and checks a GGUF header. Nothing is allocated before it is known to be in the file.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{ErrorKind, Read};

use super::{
    GgufArray, GgufError, GgufFile, GgufValue, MAX_ARRAY_ELEMENTS, MAX_DIMENSIONS, MAX_ENTRIES,
    MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_STRING_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS,
    ReadOptions, StringList, TensorInfo, TensorType,
};

/// Smallest encoded entry: key length, one byte of key, value type, one byte of value.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Smallest encoded tensor: name length, one byte, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
const DEFAULT_ALIGNMENT: u64 = 32;
/// ggml maps tensors only at multiples of 32 bytes (`TENSOR_ALIGNMENT`) and asserts it.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 32..=65_536;
const ALIGNMENT_KEY: &str = "general.alignment";

/// What is being read, for errors; formatted only when one happens.
#[derive(Clone, Copy)]
enum Field<'a> {
    Header(&'static str),
    Key(u64),
    Value(&'a str),
    Element(&'a str, u64),
    TensorName(u64),
    Tensor(&'a str, &'static str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(what) => f.write_str(what),
            Self::Key(index) => write!(f, "key of metadata entry {index}"),
            Self::Value(key) => write!(f, "metadata `{key}`"),
            Self::Element(key, index) => write!(f, "metadata `{key}`[{index}]"),
            Self::TensorName(index) => write!(f, "name of tensor {index}"),
            Self::Tensor(name, what) => write!(f, "{what} of tensor `{name}`"),
        }
    }
}

/// A reader that knows where it is and where the file ends.
struct Source<R> {
    inner: R,
    position: u64,
    file_len: u64,
}

impl<R: Read> Source<R> {
    /// Checks that `needed` more bytes are in the file and within the header's limit.
    fn need(&self, needed: u64, field: Field<'_>) -> Result<(), GgufError> {
        let remaining = self.file_len.saturating_sub(self.position);
        if needed > remaining {
            return Err(GgufError::Truncated {
                field: field.to_string(),
                offset: self.position,
                needed,
                remaining,
            });
        }
        let end = self.position.saturating_add(needed);
        if end > MAX_HEADER_BYTES {
            return Err(GgufError::Limit {
                field: format!("the end of {field}"),
                offset: self.position,
                found: end,
                limit: MAX_HEADER_BYTES,
            });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], field: Field<'_>) -> Result<(), GgufError> {
        self.need(buffer.len() as u64, field)?;
        self.inner.read_exact(buffer).map_err(|source| {
            let offset = self.position;
            let field = field.to_string();
            if source.kind() == ErrorKind::UnexpectedEof {
                // The file became shorter since its length was taken.
                let needed = buffer.len() as u64;
                return GgufError::Truncated {
                    field,
                    offset,
                    needed,
                    remaining: 0,
                };
            }
            GgufError::Io {
                field,
                offset,
                source,
            }
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self, field: Field<'_>) -> Result<[u8; N], GgufError> {
        let mut buffer = [0; N];
        self.fill(&mut buffer, field)?;
        Ok(buffer)
    }

    fn u32(&mut self, field: Field<'_>) -> Result<u32, GgufError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: Field<'_>) -> Result<u64, GgufError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count of things of at least `smallest` bytes each.
    fn count(&mut self, limit: u64, smallest: u64, field: Field<'_>) -> Result<u64, GgufError> {
        let offset = self.position;
        let found = self.u64(field)?;
        within(found, limit, offset, field)?;
        self.need(found.saturating_mul(smallest), field)?;
        Ok(found)
    }

    /// A length-prefixed string, into `buffer` (reused between elements of an array).
    fn string<'b>(
        &mut self,
        limit: u64,
        buffer: &'b mut Vec<u8>,
        field: Field<'_>,
    ) -> Result<&'b str, GgufError> {
        let offset = self.position;
        let length = self.u64(field)?;
        within(length, limit, offset, field)?;
        self.need(length, field)?;
        buffer.clear();
        buffer.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        self.fill(buffer, field)?;
        std::str::from_utf8(buffer)
            .map_err(|error| malformed(field, offset, format!("is not UTF-8: {error}")))
    }

    /// A name: not empty, without control characters (a NUL would end it early in C).
    fn name(&mut self, limit: u64, field: Field<'_>) -> Result<String, GgufError> {
        let offset = self.position;
        let mut buffer = Vec::new();
        let name = self.string(limit, &mut buffer, field)?;
        if name.is_empty() {
            return Err(malformed(field, offset, "is empty"));
        }
        if name.chars().any(char::is_control) {
            return Err(malformed(field, offset, "contains control characters"));
        }
        Ok(name.to_owned())
    }

    fn skip(&mut self, mut bytes: u64, field: Field<'_>) -> Result<(), GgufError> {
        self.need(bytes, field)?;
        let mut scratch = [0; 8192];
        while bytes > 0 {
            let step = usize::try_from(bytes.min(scratch.len() as u64)).unwrap_or(0);
            let (part, _) = scratch.split_at_mut(step);
            self.fill(part, field)?;
            bytes -= step as u64;
        }
        Ok(())
    }
}

fn within(found: u64, limit: u64, offset: u64, field: Field<'_>) -> Result<(), GgufError> {
    if found > limit {
        return Err(GgufError::Limit {
            field: field.to_string(),
            offset,
            found,
            limit,
        });
    }
    Ok(())
}

fn malformed(field: Field<'_>, offset: u64, problem: impl Into<String>) -> GgufError {
    GgufError::Malformed {
        field: field.to_string(),
        offset,
        problem: problem.into(),
    }
}

pub(super) fn read(
    inner: impl Read,
    file_len: u64,
    options: ReadOptions,
) -> Result<GgufFile, GgufError> {
    let mut source = Source {
        inner,
        position: 0,
        file_len,
    };
    let version = magic_and_version(&mut source)?;
    let tensor_count = source.count(
        MAX_TENSORS,
        MIN_TENSOR_BYTES,
        Field::Header("number of tensors"),
    )?;
    let entry_count = source.count(
        MAX_ENTRIES,
        MIN_ENTRY_BYTES,
        Field::Header("number of metadata entries"),
    )?;
    let metadata = entries(&mut source, entry_count, options)?;
    let alignment = alignment(&metadata, source.position)?;
    let mut tensors = directory(&mut source, tensor_count)?;
    let data_offset = source.position.next_multiple_of(alignment);
    place(&mut tensors, data_offset, alignment, file_len)?;
    Ok(GgufFile {
        version,
        alignment,
        data_offset,
        file_len,
        metadata,
        tensors,
    })
}

fn magic_and_version<R: Read>(source: &mut Source<R>) -> Result<u32, GgufError> {
    let magic: [u8; 4] = source.array(Field::Header("the magic number"))?;
    if &magic != b"GGUF" {
        return Err(GgufError::NotGguf {
            found: format!("\"{}\"", magic.escape_ascii()),
        });
    }
    let version = source.u32(Field::Header("the format's version"))?;
    let hint = match version {
        2 | 3 => return Ok(version),
        1 => "convert the file again with a current llama.cpp",
        big if big.swap_bytes() <= 3 => "the file is big-endian, convert it for little-endian",
        _ => "the file is damaged, or newer than this program",
    };
    Err(GgufError::Version {
        found: version,
        hint,
    })
}

fn entries<R: Read>(
    source: &mut Source<R>,
    count: u64,
    options: ReadOptions,
) -> Result<BTreeMap<String, GgufValue>, GgufError> {
    let mut metadata = BTreeMap::new();
    for index in 0..count {
        let offset = source.position;
        let key = source.name(MAX_KEY_BYTES, Field::Key(index))?;
        if metadata.contains_key(&key) {
            let problem = format!("is `{key}`, which was there before");
            return Err(malformed(Field::Key(index), offset, problem));
        }
        let value = value(source, &key, options)?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn value<R: Read>(
    source: &mut Source<R>,
    key: &str,
    options: ReadOptions,
) -> Result<GgufValue, GgufError> {
    let field = Field::Value(key);
    let offset = source.position;
    let kind = source.u32(field)?;
    Ok(match kind {
        0 => GgufValue::U8(u8::from_le_bytes(source.array(field)?)),
        1 => GgufValue::I8(i8::from_le_bytes(source.array(field)?)),
        2 => GgufValue::U16(u16::from_le_bytes(source.array(field)?)),
        3 => GgufValue::I16(i16::from_le_bytes(source.array(field)?)),
        4 => GgufValue::U32(source.u32(field)?),
        5 => GgufValue::I32(i32::from_le_bytes(source.array(field)?)),
        6 => GgufValue::F32(f32::from_le_bytes(source.array(field)?)),
        7 => GgufValue::Bool(boolean(source, field)?),
        8 => {
            let mut buffer = Vec::new();
            GgufValue::String(
                source
                    .string(MAX_STRING_BYTES, &mut buffer, field)?
                    .to_owned(),
            )
        }
        9 => GgufValue::Array(array(source, key, options)?),
        10 => GgufValue::U64(source.u64(field)?),
        11 => GgufValue::I64(i64::from_le_bytes(source.array(field)?)),
        12 => GgufValue::F64(f64::from_le_bytes(source.array(field)?)),
        unknown => {
            let problem = format!("has the unknown value type {unknown}");
            return Err(malformed(field, offset, problem));
        }
    })
}

fn boolean<R: Read>(source: &mut Source<R>, field: Field<'_>) -> Result<bool, GgufError> {
    let offset = source.position;
    match source.array(field)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(malformed(
            field,
            offset,
            format!("is a boolean with the value {other}, neither 0 nor 1"),
        )),
    }
}

fn array<R: Read>(
    source: &mut Source<R>,
    key: &str,
    options: ReadOptions,
) -> Result<GgufArray, GgufError> {
    let field = Field::Value(key);
    let offset = source.position;
    let kind = source.u32(field)?;
    let width = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => return Err(malformed(field, offset, "is an array of arrays")),
        unknown => {
            let problem = format!("is an array of the unknown type {unknown}");
            return Err(malformed(field, offset, problem));
        }
    };
    let elements = source.count(MAX_ARRAY_ELEMENTS, width, field)?;
    let skipped = elements > options.keep_arrays_up_to;
    match kind {
        8 => strings(source, key, elements, skipped),
        7 if !skipped => (0..elements)
            .map(|index| boolean(source, Field::Element(key, index)))
            .collect::<Result<_, _>>()
            .map(GgufArray::Bool),
        _ if skipped => source
            .skip(elements * width, field)
            .map(|()| GgufArray::Skipped { elements }),
        _ => numbers(source, key, kind, elements),
    }
}

fn strings<R: Read>(
    source: &mut Source<R>,
    key: &str,
    elements: u64,
    skipped: bool,
) -> Result<GgufArray, GgufError> {
    let mut list = StringList::default();
    let mut buffer = Vec::new();
    for index in 0..elements {
        let field = Field::Element(key, index);
        let offset = source.position;
        let one = source.string(MAX_STRING_BYTES, &mut buffer, field)?;
        if !skipped && !list.push(one) {
            return Err(malformed(field, offset, "makes the list exceed 4 GiB"));
        }
    }
    Ok(if skipped {
        GgufArray::Skipped { elements }
    } else {
        GgufArray::Strings(list)
    })
}

fn numbers<R: Read>(
    source: &mut Source<R>,
    key: &str,
    kind: u32,
    elements: u64,
) -> Result<GgufArray, GgufError> {
    // The collected vector grows as elements arrive; `elements` was checked against the file.
    macro_rules! read {
        ($variant:ident, $number:ty) => {
            (0..elements)
                .map(|index| {
                    source
                        .array(Field::Element(key, index))
                        .map(<$number>::from_le_bytes)
                })
                .collect::<Result<_, _>>()
                .map(GgufArray::$variant)
        };
    }
    match kind {
        0 => read!(U8, u8),
        1 => read!(I8, i8),
        2 => read!(U16, u16),
        3 => read!(I16, i16),
        4 => read!(U32, u32),
        5 => read!(I32, i32),
        6 => read!(F32, f32),
        10 => read!(U64, u64),
        11 => read!(I64, i64),
        _ => read!(F64, f64),
    }
}

fn alignment(metadata: &BTreeMap<String, GgufValue>, offset: u64) -> Result<u64, GgufError> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match *value {
        GgufValue::U32(found)
            if found.is_power_of_two() && ALIGNMENTS.contains(&u64::from(found)) =>
        {
            Ok(found.into())
        }
        _ => Err(malformed(
            Field::Value(ALIGNMENT_KEY),
            offset,
            "must be an unsigned 32-bit power of two from 32 to 65536",
        )),
    }
}

fn directory<R: Read>(source: &mut Source<R>, count: u64) -> Result<Vec<TensorInfo>, GgufError> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..count {
        let offset = source.position;
        let name = source.name(MAX_TENSOR_NAME_BYTES, Field::TensorName(index))?;
        if !seen.insert(name.clone()) {
            let problem = format!("is `{name}`, which was there before");
            return Err(malformed(Field::TensorName(index), offset, problem));
        }
        tensors.push(tensor(source, name)?);
    }
    Ok(tensors)
}

fn tensor<R: Read>(source: &mut Source<R>, name: String) -> Result<TensorInfo, GgufError> {
    let field = Field::Tensor(&name, "number of dimensions");
    let shape_at = source.position;
    let count = source.u32(field)?;
    if !(1..=MAX_DIMENSIONS).contains(&count) {
        let problem = format!("is {count}, not 1 to {MAX_DIMENSIONS}");
        return Err(malformed(field, shape_at, problem));
    }
    let mut dimensions = Vec::new();
    for _ in 0..count {
        dimensions.push(source.u64(Field::Tensor(&name, "dimensions"))?);
    }
    let type_at = source.position;
    let field = Field::Tensor(&name, "type");
    let number = source.u32(field)?;
    let kind = TensorType::from_number(number)
        .ok_or_else(|| malformed(field, type_at, format!("is {number}, which is unknown")))?;
    let field = Field::Tensor(&name, "shape");
    let bytes = match kind.bytes(&dimensions) {
        Some(bytes) if bytes > 0 => bytes,
        _ => {
            let problem = format!(
                "{dimensions:?} is impossible for {kind}: every dimension must be positive, the \
                 first a multiple of {}, the product below 2^63",
                kind.block_elements()
            );
            return Err(malformed(field, shape_at, problem));
        }
    };
    let offset = source.u64(Field::Tensor(&name, "offset"))?;
    Ok(TensorInfo {
        name,
        dimensions,
        kind,
        offset,
        bytes,
    })
}

/// Turns offsets into positions in the file, and checks that each tensor is aligned, within the
/// file, and shares no byte with another.
fn place(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u64,
    file_len: u64,
) -> Result<(), GgufError> {
    for tensor in tensors.iter_mut() {
        let field = Field::Tensor(&tensor.name, "data");
        if tensor.offset % alignment != 0 {
            let problem = format!("has an offset that is no multiple of {alignment}");
            return Err(malformed(field, tensor.offset, problem));
        }
        let start = data_offset.saturating_add(tensor.offset);
        let remaining = file_len.saturating_sub(start);
        if start.checked_add(tensor.bytes).is_none() || tensor.bytes > remaining {
            return Err(GgufError::Truncated {
                field: field.to_string(),
                offset: start,
                needed: tensor.bytes,
                remaining,
            });
        }
        tensor.offset = start;
    }
    let mut ordered: Vec<&TensorInfo> = tensors.iter().collect();
    ordered.sort_by_key(|tensor| tensor.offset);
    for pair in ordered.windows(2) {
        if let [first, second] = pair
            && first.offset + first.bytes > second.offset
        {
            let field = Field::Tensor(&second.name, "data");
            let problem = format!("overlaps the data of tensor `{}`", first.name);
            return Err(malformed(field, second.offset, problem));
        }
    }
    Ok(())
}
