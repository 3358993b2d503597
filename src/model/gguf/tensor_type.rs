//! Encodings of tensor elements and their sizes. Source: ggml.h and ggml-common.h of llama.cpp.

use serde::Serialize;

/// How the elements of a tensor are encoded. Only types that llama.cpp can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct TensorType(u32);

/// Number, name, elements per block, bytes per block.
const TYPES: &[(u32, &str, u64, u64)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl TensorType {
    /// 32-bit floating point.
    pub const F32: Self = Self(0);
    /// 16-bit floating point.
    pub const F16: Self = Self(1);
    /// bfloat16.
    pub const BF16: Self = Self(30);

    /// The type with ggml's number `number`, if models may use it.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES
            .iter()
            .any(|&(known, ..)| known == number)
            .then_some(Self(number))
    }

    /// The type called `name`, for example `Q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES
            .iter()
            .find(|&&(_, known, ..)| known == name)
            .map(|&(number, ..)| Self(number))
    }

    fn entry(self) -> (&'static str, u64, u64) {
        TYPES
            .iter()
            .find(|&&(known, ..)| known == self.0)
            .map_or(("?", 1, 1), |&(_, name, elements, bytes)| {
                (name, elements, bytes)
            })
    }

    /// ggml's number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// ggml's name, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Elements that are encoded together; rows are multiples of it.
    pub fn block_elements(self) -> u64 {
        self.entry().1
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u64 {
        self.entry().2
    }

    /// Whether elements are plain integers or 64-bit numbers: no encoding of weights.
    pub fn is_integer(self) -> bool {
        (24..=28).contains(&self.0)
    }

    /// Bytes of a tensor with `dimensions`; `None` when the row is no multiple of the block or
    /// the product does not fit into 63 bits (ggml counts in `i64`).
    pub fn bytes(self, dimensions: &[u64]) -> Option<u64> {
        let (_, block_elements, block_bytes) = self.entry();
        let row = dimensions.first().copied()?;
        if row % block_elements != 0 {
            return None;
        }
        let elements = dimensions
            .iter()
            .try_fold(1_u64, |product, &dimension| product.checked_mul(dimension))?;
        let bytes = (elements / block_elements).checked_mul(block_bytes)?;
        let fits = |number: u64| i64::try_from(number).is_ok();
        (fits(elements) && fits(bytes)).then_some(bytes)
    }
}

impl From<TensorType> for String {
    fn from(kind: TensorType) -> Self {
        kind.name().to_owned()
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
