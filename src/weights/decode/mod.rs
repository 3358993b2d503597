//! Encoded tensor data to 32-bit floating point. Decides what each byte of an encoding means; reads
//! no file and allocates nothing.
//!
//! The order of the floating-point operations is that of ggml's `ggml-quants.c` and of the Python
//! package `gguf`, so that the results are theirs to the last bit.

mod k;
mod legacy;
mod plain;

use crate::model::gguf::TensorType;

/// Encodings of weights that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are the format's own type names")]
#[allow(
    non_camel_case_types,
    reason = "the variants are the format's own type names"
)]
pub enum Encoding {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
        }
    }

    /// The encoding of a GGUF tensor, if it is read.
    pub fn of(kind: TensorType) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == kind.name())
    }

    /// The names of all, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Elements that are encoded together.
    pub const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => legacy::Q4_0,
            Self::Q4_1 => legacy::Q4_1,
            Self::Q5_0 => legacy::Q5_0,
            Self::Q5_1 => legacy::Q5_1,
            Self::Q8_0 => legacy::Q8_0,
            Self::Q2_K => k::Q2_K,
            Self::Q3_K => k::Q3_K,
            Self::Q4_K => k::Q4_K,
            Self::Q5_K => k::Q5_K,
            Self::Q6_K => k::Q6_K,
        }
    }

    /// Bytes of `elements` elements, which must be whole blocks; `None` when they are not, or too
    /// many to count.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        let block = self.block_elements() as u64;
        if !elements.is_multiple_of(block) {
            return None;
        }
        (elements / block).checked_mul(self.block_bytes() as u64)
    }

    /// Decodes whole blocks: as many as both `bytes` and `out` have room for.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => plain::f32(bytes, out),
            Self::F16 => plain::f16(bytes, out),
            Self::BF16 => plain::bf16(bytes, out),
            Self::Q4_0 => blocks(bytes, out, legacy::q4_0),
            Self::Q4_1 => blocks(bytes, out, legacy::q4_1),
            Self::Q5_0 => blocks(bytes, out, legacy::q5_0),
            Self::Q5_1 => blocks(bytes, out, legacy::q5_1),
            Self::Q8_0 => blocks(bytes, out, legacy::q8_0),
            Self::Q2_K => blocks(bytes, out, k::q2_k),
            Self::Q3_K => blocks(bytes, out, k::q3_k),
            Self::Q4_K => blocks(bytes, out, k::q4_k),
            Self::Q5_K => blocks(bytes, out, k::q5_k),
            Self::Q6_K => blocks(bytes, out, k::q6_k),
        }
    }
}

/// Decodes block by block; the arrays' lengths are the block's bytes and elements.
fn blocks<const B: usize, const E: usize>(
    bytes: &[u8],
    out: &mut [f32],
    one: impl Fn(&[u8; B], &mut [f32; E]),
) {
    let (encoded, _rest) = bytes.as_chunks::<B>();
    let (decoded, _rest) = out.as_chunks_mut::<E>();
    for (from, to) in encoded.iter().zip(decoded) {
        one(from, to);
    }
}

/// The 16-bit number at `at`, which lies within the block by construction.
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
