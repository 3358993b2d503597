//! Writes small GGUF files: models for tests, and the header of a model built in memory. It checks
//! nothing, so that wrong files can be written too.

use super::{GgufArray, GgufValue, TensorType};

/// A GGUF file under construction.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    entries: Vec<(String, GgufValue)>,
    tensors: Vec<(String, Vec<u64>, TensorType, Vec<u8>)>,
}

const ALIGNMENT: usize = 32;

impl GgufWriter {
    /// Adds a metadata entry.
    #[must_use]
    pub fn entry(mut self, key: &str, value: GgufValue) -> Self {
        self.entries.push((key.to_owned(), value));
        self
    }

    /// Adds a string.
    #[must_use]
    pub fn string(self, key: &str, value: &str) -> Self {
        self.entry(key, GgufValue::String(value.to_owned()))
    }

    /// Adds a 32-bit unsigned integer.
    #[must_use]
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, GgufValue::U32(value))
    }

    /// Adds an array of strings.
    #[must_use]
    pub fn strings<'a>(self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let list = values.into_iter().collect();
        self.entry(key, GgufValue::Array(GgufArray::Strings(list)))
    }

    /// Adds a tensor with its data as it will be in the file; empty data is filled with zeros of
    /// the right length.
    #[must_use]
    pub fn tensor(
        mut self,
        name: &str,
        shape: &[u64],
        kind: TensorType,
        mut data: Vec<u8>,
    ) -> Self {
        if data.is_empty() {
            let bytes = kind.bytes(shape).unwrap_or(0);
            data = vec![0; usize::try_from(bytes).unwrap_or(0)];
        }
        self.tensors
            .push((name.to_owned(), shape.to_vec(), kind, data));
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0_usize;
        for (name, shape, kind, data) in &self.tensors {
            put_string(&mut out, name);
            out.extend(u32::try_from(shape.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend(shape.iter().flat_map(|dimension| dimension.to_le_bytes()));
            out.extend(kind.number().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(ALIGNMENT);
        }
        for (.., data) in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            out.extend(data);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    macro_rules! put {
        ($kind:literal, $bytes:expr) => {{
            out.extend(u32::to_le_bytes($kind));
            out.extend($bytes);
        }};
    }
    match value {
        GgufValue::U8(one) => put!(0, one.to_le_bytes()),
        GgufValue::I8(one) => put!(1, one.to_le_bytes()),
        GgufValue::U16(one) => put!(2, one.to_le_bytes()),
        GgufValue::I16(one) => put!(3, one.to_le_bytes()),
        GgufValue::U32(one) => put!(4, one.to_le_bytes()),
        GgufValue::I32(one) => put!(5, one.to_le_bytes()),
        GgufValue::F32(one) => put!(6, one.to_le_bytes()),
        GgufValue::Bool(one) => put!(7, [u8::from(*one)]),
        GgufValue::String(text) => {
            out.extend(8_u32.to_le_bytes());
            put_string(out, text);
        }
        GgufValue::Array(array) => {
            out.extend(9_u32.to_le_bytes());
            put_array(out, array);
        }
        GgufValue::U64(one) => put!(10, one.to_le_bytes()),
        GgufValue::I64(one) => put!(11, one.to_le_bytes()),
        GgufValue::F64(one) => put!(12, one.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &GgufArray) {
    let length = array.len() as u64;
    macro_rules! put {
        ($kind:literal, $list:expr) => {{
            out.extend(u32::to_le_bytes($kind));
            out.extend(length.to_le_bytes());
            out.extend($list.iter().flat_map(|one| one.to_le_bytes()));
        }};
    }
    match array {
        GgufArray::U8(list) => put!(0, list),
        GgufArray::I8(list) => put!(1, list),
        GgufArray::U16(list) => put!(2, list),
        GgufArray::I16(list) => put!(3, list),
        GgufArray::U32(list) => put!(4, list),
        GgufArray::I32(list) => put!(5, list),
        GgufArray::F32(list) => put!(6, list),
        GgufArray::U64(list) => put!(10, list),
        GgufArray::I64(list) => put!(11, list),
        GgufArray::F64(list) => put!(12, list),
        GgufArray::Bool(list) => {
            out.extend(7_u32.to_le_bytes());
            out.extend(length.to_le_bytes());
            out.extend(list.iter().map(|&one| u8::from(one)));
        }
        GgufArray::Strings(list) => {
            out.extend(8_u32.to_le_bytes());
            out.extend(length.to_le_bytes());
            list.iter().for_each(|text| put_string(out, text));
        }
        GgufArray::Skipped { .. } => {
            out.extend(0_u32.to_le_bytes());
            out.extend(0_u64.to_le_bytes());
        }
    }
}
