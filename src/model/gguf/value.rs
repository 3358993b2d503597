//! Metadata values. Holds them; reading and checking is `reader`'s.

use serde::Serialize;

/// One metadata value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the variants are the format's own type names")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(GgufArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl GgufValue {
    /// The integer, of whatever width, when it is one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The number, when it is a floating-point one.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(value) => Some(value),
            #[expect(clippy::cast_possible_truncation, reason = "documented to round")]
            Self::F64(value) => Some(value as f32),
            _ => None,
        }
    }

    /// The boolean, when it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The string, when it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// Integers as a list: an array of them, or one as a list of one. Models write per-layer
    /// values either way.
    pub fn as_u64s(&self) -> Option<Vec<u64>> {
        fn all<T: Copy + TryInto<u64>>(list: &[T]) -> Option<Vec<u64>> {
            list.iter().map(|&one| one.try_into().ok()).collect()
        }
        match self {
            Self::Array(GgufArray::U8(list)) => all(list),
            Self::Array(GgufArray::U16(list)) => all(list),
            Self::Array(GgufArray::U32(list)) => all(list),
            Self::Array(GgufArray::U64(list)) => Some(list.clone()),
            Self::Array(GgufArray::I8(list)) => all(list),
            Self::Array(GgufArray::I16(list)) => all(list),
            Self::Array(GgufArray::I32(list)) => all(list),
            Self::Array(GgufArray::I64(list)) => all(list),
            other => other.as_u64().map(|one| vec![one]),
        }
    }
}

/// An array of one element type. Arrays of arrays are refused by the reader, as by llama.cpp.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the variants are the format's own type names")]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Strings(StringList),
    /// Checked but not kept, see `ReadOptions`.
    Skipped {
        /// Number of elements in the file.
        elements: u64,
    },
}

impl GgufArray {
    /// Number of elements, also of a skipped array.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(list) => list.len(),
            Self::I8(list) => list.len(),
            Self::U16(list) => list.len(),
            Self::I16(list) => list.len(),
            Self::U32(list) => list.len(),
            Self::I32(list) => list.len(),
            Self::F32(list) => list.len(),
            Self::Bool(list) => list.len(),
            Self::U64(list) => list.len(),
            Self::I64(list) => list.len(),
            Self::F64(list) => list.len(),
            Self::Strings(list) => list.len(),
            Self::Skipped { elements } => usize::try_from(*elements).unwrap_or(usize::MAX),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Many strings in one buffer: a vocabulary of 128,000 tokens costs two allocations, not 128,000.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringList {
    text: String,
    ends: Vec<u32>,
}

impl StringList {
    /// Appends one string. `false`, with nothing changed, when the list would exceed 4 GiB.
    pub(super) fn push(&mut self, one: &str) -> bool {
        let Ok(end) = u32::try_from(self.text.len() + one.len()) else {
            return false;
        };
        self.text.push_str(one);
        self.ends.push(end);
        true
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = match index {
            0 => 0,
            _ => *self.ends.get(index - 1)? as usize,
        };
        self.text.get(start..end)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<'a> FromIterator<&'a str> for StringList {
    fn from_iter<T: IntoIterator<Item = &'a str>>(strings: T) -> Self {
        let mut list = Self::default();
        for one in strings {
            if !list.push(one) {
                break;
            }
        }
        list
    }
}

impl Serialize for StringList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
