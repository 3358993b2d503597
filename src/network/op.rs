//! The operations of a graph, each with its shapes and the TensorRT layer that it becomes.
//!
//! Nothing is here that has no layer in TensorRT 10.3, but for the three operations of the native form
//! ([`Op::KvCacheUpdate`], [`Op::Attention`], [`Op::RotaryEmbedding`]: TensorRT 10.15, RTX 1.4). A size that
//! changes from run to run stands in the operation as a [`Dim`]; the lowering computes it from the shape of
//! the input that [`super::Graph::symbol_source`] names (`IShapeLayer`, `IGatherLayer`, INT64 products and
//! sums) and gives it to the layer as a shape tensor, unless one -1 will do
//! ([`super::Shape::with_one_wildcard`]).

use std::sync::Arc;

use half::f16;
use serde::Serialize;

use super::{Dim, Part, Shape, WeightId};

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum DataType {
    /// 32-bit floating point (`kFLOAT`).
    F32,
    /// 16-bit floating point (`kHALF`).
    F16,
    /// 32-bit integer (`kINT32`): tokens, positions, indices.
    I32,
    /// 64-bit integer (`kINT64`): shape arithmetic.
    I64,
    /// Truth value (`kBOOL`): masks.
    Bool,
    /// 8-bit integer (`kINT8`): quantised weights only.
    I8,
    /// 4-bit integer (`kINT4`): quantised weights only.
    I4,
}

impl DataType {
    /// Whether it is floating point.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }

    /// Whether it is a type of weights only.
    pub fn is_quantised(self) -> bool {
        matches!(self, Self::I8 | Self::I4)
    }

    /// Bits of one element in memory.
    pub fn bits(self) -> u32 {
        match self {
            Self::I64 => 64,
            Self::F32 | Self::I32 => 32,
            Self::F16 => 16,
            Self::Bool | Self::I8 => 8,
            Self::I4 => 4,
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// The elements of a constant that the graph carries itself, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floating point.
    F32(Arc<[f32]>),
    /// 16-bit floating point.
    F16(Arc<[f16]>),
    /// 32-bit integers.
    I32(Arc<[i32]>),
    /// 64-bit integers.
    I64(Arc<[i64]>),
}

impl Values {
    /// Type of the elements.
    pub fn dtype(&self) -> DataType {
        match self {
            Self::F32(_) => DataType::F32,
            Self::F16(_) => DataType::F16,
            Self::I32(_) => DataType::I32,
            Self::I64(_) => DataType::I64,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `values` in the floating-point type `dtype`, rounded to nearest; 32 bits for any other type.
    pub fn floats(dtype: DataType, values: &[f32]) -> Self {
        if dtype == DataType::F16 {
            Self::F16(values.iter().map(|value| f16::from_f32(*value)).collect())
        } else {
            Self::F32(values.into())
        }
    }
}

/// What an input is for. The runtime fills inputs by role, never by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum InputRole {
    /// Token ids, I32 `[batch, sequence]`; padding may be any token.
    Tokens,
    /// Position of each token in its sequence, I32 `[batch, sequence]`: consecutive from the slot's
    /// length on, also in the padding, so that no real token sees padding (it lies later).
    Positions,
    /// Tokens that each slot holds before this run, I32 `[batch]`: where new keys and values go, and
    /// how much of the past counts. For a row without a request: the slot's own length, so that what
    /// is written lies behind everything that counts.
    Lengths,
    /// 0, 1, 2, … of the length of the bucket, I32 `[context]`: its length says how much of the cache is
    /// read, its values make the mask.
    ContextPositions,
    /// Which rows of `[batch × sequence]` get logits, I32 `[rows]`: `slot × sequence + token`.
    Rows,
    /// Keys of one layer so far, `[batch, KV heads, capacity, head length]`. Must hold finite numbers
    /// everywhere: zeros at first.
    PastKeys(u32),
    /// Values of one layer so far, as [`InputRole::PastKeys`].
    PastValues(u32),
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OutputRole {
    /// Logits, F32 `[rows, vocabulary]`.
    Logits,
    /// Split form: keys of the new tokens, `[batch, KV heads, sequence, head length]`, to be copied into
    /// the cache at [`InputRole::Lengths`] by the runtime.
    NewKeys(u32),
    /// Split form: values of the new tokens, as [`OutputRole::NewKeys`].
    NewValues(u32),
    /// Native form: the cache with the new keys in it; the same memory as [`InputRole::PastKeys`].
    Keys(u32),
    /// Native form: the cache with the new values in it; the same memory as [`InputRole::PastValues`].
    Values(u32),
}

/// Operations of two tensors, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b` (`kSUM`).
    Add,
    /// `a - b` (`kSUB`).
    Subtract,
    /// `a × b` (`kPROD`).
    Multiply,
    /// `a / b` (`kDIV`), floating point only.
    Divide,
    /// The smaller (`kMIN`).
    Min,
    /// The larger (`kMAX`).
    Max,
    /// `a < b` (`kLESS`); gives [`DataType::Bool`].
    Less,
    /// Both (`kAND`); [`DataType::Bool`] only.
    And,
}

/// Operations of one tensor, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `√x` (`IUnaryLayer`, `kSQRT`).
    Sqrt,
    /// `1 / x` (`IUnaryLayer`, `kRECIP`).
    Reciprocal,
    /// `eˣ` (`IUnaryLayer`, `kEXP`).
    Exp,
    /// `-x` (`IUnaryLayer`, `kNEG`).
    Negate,
    /// `1 / (1 + e⁻ˣ)` (`IActivationLayer`, `kSIGMOID`).
    Sigmoid,
}

/// How an axis is reduced to one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The sum (`kSUM`).
    Sum,
    /// The mean (`kAVG`).
    Mean,
    /// The largest (`kMAX`).
    Max,
}

/// Which elements of a quantised weight share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// One scale for each index of `axis`; the scales are `[size of that axis]` (`setAxis`).
    Channel {
        /// The axis of the outputs.
        axis: usize,
    },
    /// One scale for each `block` consecutive elements along `axis`; the scales have the weight's rank
    /// (TensorRT infers the block from their shape; `setBlockShape` must not be called for INT4).
    Block {
        /// The axis of the inputs.
        axis: usize,
        /// Elements that share a scale.
        block: u32,
    },
}

/// An operation: gives exactly one tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A tensor from outside (`addInput`, optimisation profile). No operands.
    Input(InputRole),
    /// Numbers that the graph carries (`IConstantLayer`). No operands.
    Constant(Values),
    /// An array of a weight (`IConstantLayer`). No operands.
    Weight {
        /// Which weight.
        weight: WeightId,
        /// Which of its arrays.
        part: Part,
    },
    /// `[…] ∘ […]`, same rank and type, sizes equal or 1 (`IElementWiseLayer`).
    Binary(Binary),
    /// Floating point, keeps the shape (`IUnaryLayer`, `IActivationLayer`).
    Unary(Unary),
    /// `[…, m, k] × […, k, n] → […, m, n]`, same rank and floating-point type, outer sizes equal or 1
    /// (`IMatrixMultiplyLayer`).
    MatMul {
        /// The left operand is `[…, k, m]`.
        transpose_left: bool,
        /// The right operand is `[…, n, k]`.
        transpose_right: bool,
    },
    /// Softmax along `axis`, floating point (`ISoftMaxLayer`).
    Softmax {
        /// The axis whose elements sum up to 1.
        axis: usize,
    },
    /// Elements of `axis` by index: data `[a…, n, b…]`, indices `[i…]` (I32 or I64) → `[a…, i…, b…]`
    /// (`IGatherLayer`, `kDEFAULT`).
    Gather {
        /// The axis that is indexed.
        axis: usize,
    },
    /// The part of `size` from `start` on, every element (`ISliceLayer`; changing sizes through
    /// `setInput(1)` and `setInput(2)`).
    Slice {
        /// First index of each axis.
        start: Vec<Dim>,
        /// Size of each axis.
        size: Shape,
    },
    /// Tensors behind each other along `axis`, other sizes equal (`IConcatenationLayer`).
    Concat {
        /// The axis that grows.
        axis: usize,
    },
    /// The same elements, in order, in another shape (`IShuffleLayer`).
    Reshape {
        /// The shape; as many elements as before in every run.
        to: Shape,
    },
    /// Axes in another order: axis `i` of the result is axis `order[i]` (`IShuffleLayer`).
    Transpose {
        /// A permutation of the axes.
        order: Vec<usize>,
    },
    /// One element for each run along `axis`, which stays with size 1; floating point
    /// (`IReduceLayer`, `keepDimensions`).
    Reduce {
        /// How.
        reduction: Reduction,
        /// Along what.
        axis: usize,
    },
    /// Another type, rounded to nearest; no quantised type (`ICastLayer`).
    Cast {
        /// The type.
        to: DataType,
    },
    /// Condition ? a : b; condition is Bool, a and b have one type, all one rank, sizes equal or 1
    /// (`ISelectLayer`).
    Select,
    /// Integers × scales; the integers and scales are arrays of one [`Op::Weight`], the result has the type
    /// of the scales (`IDequantizeLayer`).
    Dequantize(Scaling),
    /// Native form. Cache `[b, h, capacity, d]` (an input), new `[b, h, s, d]`, index `[b]` (I32) → the
    /// cache, with the new rows of slot `i` from `index[i]` on (`IKVCacheUpdateLayer`, `kLINEAR`).
    KvCacheUpdate,
    /// Native form. `softmax(q kᵀ) v` of query `[b, heads, s, d]`, keys and values `[b, KV heads, c, d]`, and
    /// mask Bool `[b or 1, heads or 1, s, c]`, true where it is looked at. Not scaled: the query is scaled before
    /// (`IAttention`, `kSOFTMAX`, decomposable, `setMask`).
    Attention,
    /// Native form. Rotates halves of `[b, h, s, d]` by tables of cosines and sines `[positions, d / 2]` at
    /// positions I32 `[b, s]` (`IRotaryEmbeddingLayer`, not interleaved).
    RotaryEmbedding,
}

impl Op {
    /// Name in messages and in names of operations.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Constant(_) => "constant",
            Self::Weight { .. } => "weight",
            Self::Binary(Binary::Add) => "add",
            Self::Binary(Binary::Subtract) => "subtract",
            Self::Binary(Binary::Multiply) => "multiply",
            Self::Binary(Binary::Divide) => "divide",
            Self::Binary(Binary::Min) => "min",
            Self::Binary(Binary::Max) => "max",
            Self::Binary(Binary::Less) => "less",
            Self::Binary(Binary::And) => "and",
            Self::Unary(Unary::Sqrt) => "sqrt",
            Self::Unary(Unary::Reciprocal) => "reciprocal",
            Self::Unary(Unary::Exp) => "exp",
            Self::Unary(Unary::Negate) => "negate",
            Self::Unary(Unary::Sigmoid) => "sigmoid",
            Self::MatMul { .. } => "matMul",
            Self::Softmax { .. } => "softmax",
            Self::Gather { .. } => "gather",
            Self::Slice { .. } => "slice",
            Self::Concat { .. } => "concat",
            Self::Reshape { .. } => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Reduce { .. } => "reduce",
            Self::Cast { .. } => "cast",
            Self::Select => "select",
            Self::Dequantize(_) => "dequantize",
            Self::KvCacheUpdate => "kvCacheUpdate",
            Self::Attention => "attention",
            Self::RotaryEmbedding => "rotaryEmbedding",
        }
    }

    /// Whether it needs TensorRT 10.15 or RTX.
    pub fn is_native(&self) -> bool {
        matches!(
            self,
            Self::KvCacheUpdate | Self::Attention | Self::RotaryEmbedding
        )
    }
}
