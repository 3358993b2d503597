//! The shim's enumerations. Their order is part of its interface.

/// Type of a tensor's elements; the order is that of `ew_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// Brain floating point.
    Bf16,
    /// 8-bit integer.
    I8,
    /// 4-bit integer, two in a byte, the first in the low half.
    I4,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Truth value.
    Bool,
    /// One that the shim has no name for.
    Other,
}

impl Type {
    const ALL: [Self; 8] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::I8,
        Self::I4,
        Self::I32,
        Self::I64,
        Self::Bool,
    ];

    pub(super) fn from_code(code: i32) -> Self {
        let index = usize::try_from(code).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(Self::Other)
    }

    /// Bits of one element; `None` for [`Type::Other`].
    pub fn bits(self) -> Option<u64> {
        match self {
            Self::I64 => Some(64),
            Self::F32 | Self::I32 => Some(32),
            Self::F16 | Self::Bf16 => Some(16),
            Self::I8 | Self::Bool => Some(8),
            Self::I4 => Some(4),
            Self::Other => None,
        }
    }
}

/// Operations of two tensors; the order is that of `ew_elementwise_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Elementwise {
    Add,
    Subtract,
    Multiply,
    Divide,
    Min,
    Max,
    Power,
    Less,
    Greater,
    Equal,
    And,
    Or,
}

/// Operations of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unary {
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Negate,
    Abs,
    Sin,
    Cos,
    Not,
    Sigmoid,
    Tanh,
    Relu,
}

/// How axes are reduced; the order is that of `ew_reduce_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Reduction {
    Sum,
    Max,
    Mean,
}

/// Which shape of a profile; the order is that of `ew_selector`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Selector {
    Min,
    Optimum,
    Max,
}
