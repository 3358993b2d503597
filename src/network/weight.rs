//! What the weights of a network are made of, without their bytes: which tensors of the model file,
//! combined how, in which layout and encoding. And where such tensors are read from.

use std::ops::Range;

use serde::Serialize;

use super::{DataType, Dim, Shape};
use crate::model::gguf::TensorType;

/// A tensor of a model file, as its reader presents it.
///
/// Names are GGUF's (`blk.3.attn_q.weight`), whatever the file's format. Shapes are row-major,
/// outermost axis first: a linear layer is `[outputs, inputs]`, the reverse of GGUF's listing. Rows of
/// queries and keys stand in the order of Hugging Face's checkpoints (a head's rotated pairs are
/// `head_length / 2` apart): the permutation that GGUF converters apply to the Llama family is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMeta {
    /// How the file stores it.
    pub stored: TensorType,
    /// Sizes, outermost axis first.
    pub shape: Vec<u64>,
}

impl TensorMeta {
    /// Number of rows: the product of all sizes but the last; 1 for a vector.
    pub fn rows(&self) -> u64 {
        let outer = self.shape.split_last().map_or(&[][..], |(_, outer)| outer);
        outer.iter().product()
    }

    /// Length of a row: the last size.
    pub fn row_length(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The model has no such tensor.
    #[error("the model has no tensor `{name}`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The tensor is not what the network needs.
    #[error("the tensor `{name}` has the shape {found:?}, the network needs {needed:?}")]
    Shape {
        /// Its name.
        name: String,
        /// What the file has.
        found: Vec<u64>,
        /// What the network was described with.
        needed: Vec<u64>,
    },
    /// Rows were asked for that the tensor does not have.
    #[error("rows {} to {} of the tensor `{name}` were asked for, it has {rows}", asked.start, asked.end)]
    Rows {
        /// Its name.
        name: String,
        /// What was asked for.
        asked: Range<u64>,
        /// How many there are.
        rows: u64,
    },
    /// An encoding that is not decoded.
    #[error(
        "the tensor `{name}` is encoded as {stored}, which is not decoded here: convert the model to \
         one of F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K"
    )]
    Encoding {
        /// Its name.
        name: String,
        /// How the file stores it.
        stored: TensorType,
    },
    /// The file could not be read, or changed while it was.
    #[error("reading the tensor `{name}` failed: {source}")]
    Io {
        /// Its name.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A model file whose tensors can be read one by one, a few rows at a time.
pub trait WeightSource: Send + Sync {
    /// The tensor called `name`, if the model has it.
    fn tensor(&self, name: &str) -> Option<TensorMeta>;

    /// Appends the values of `rows` of the tensor `name` to `into`, row after row, decoded exactly.
    ///
    /// # Errors
    /// When the tensor is missing, has not these rows, is encoded in a way that is not decoded, or
    /// cannot be read; `into` may then hold some of the values.
    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError>;
}

/// A weight of a [`super::Graph`]: an index into its table of [`WeightSpec`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct WeightId(pub(super) u32);

impl WeightId {
    /// The index in [`super::Graph::weights`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Order of the axes of a matrix of a linear layer with K inputs and N outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Layout {
    /// `[outputs, inputs]`, as files have it: multiplied transposed.
    Nk,
    /// `[inputs, outputs]`: the transpose of what files have.
    Kn,
}

/// Number format of a weight in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Encoding {
    /// 32-bit floating point: norms and biases.
    F32,
    /// 16-bit floating point.
    F16,
    /// 8-bit integers, symmetric, one 16-bit scale for each output: `value = scale × integer`.
    Int8,
    /// 4-bit integers, symmetric (-8 to 7), one 16-bit scale for each `block` consecutive inputs of
    /// an output.
    Int4 {
        /// Inputs that share a scale: 64 or 128.
        block: u32,
    },
}

impl Encoding {
    /// Type of the elements of [`Part::Values`].
    pub fn values(self) -> DataType {
        match self {
            Self::F32 => DataType::F32,
            Self::F16 => DataType::F16,
            Self::Int8 => DataType::I8,
            Self::Int4 { .. } => DataType::I4,
        }
    }

    /// Whether there are scales beside the values.
    pub fn has_scales(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4 { .. })
    }
}

/// Which of a weight's two arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// The numbers, or the integers of a quantised weight.
    Values,
    /// The scales of a quantised weight.
    Scales,
}

/// A tensor of the model file that (a part of) a weight is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// GGUF's name, for example `blk.3.attn_q.weight`.
    pub name: String,
    /// Rows (outputs) that it must have; 1 for a vector.
    pub rows: u64,
    /// Length of each row (inputs).
    pub row_length: u64,
}

/// What the weight is to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WeightKind {
    /// The matrix of a linear layer.
    Linear,
    /// A table that rows are gathered from, `[rows, length]`; always in [`Layout::Nk`].
    Table,
    /// Norm weights or biases: one axis. Several sources stand behind each other.
    Vector,
}

/// How one weight is made from the tensors of a model file.
///
/// The sources' rows are stacked in order (`Q`, `K`, `V`; gate, up), giving `[N, K]`; then quantised
/// where the encoding says so, every row by itself; then laid out. So a scale never spans two outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightSpec {
    /// Unique in the graph, for example `layer.3.qkv`.
    pub name: String,
    /// What it is.
    pub kind: WeightKind,
    /// The tensors, in the order in which their rows are stacked.
    pub sources: Vec<Source>,
    /// Order of the axes; says nothing for a vector.
    pub layout: Layout,
    /// Number format.
    pub encoding: Encoding,
}

impl WeightSpec {
    /// Outputs: rows of all sources together; for a vector, its length.
    pub fn outputs(&self) -> u64 {
        let outputs = |one: &Source| match self.kind {
            WeightKind::Vector => one.row_length,
            WeightKind::Linear | WeightKind::Table => one.rows,
        };
        self.sources.iter().map(outputs).sum()
    }

    /// Inputs: length of a row; 1 for a vector.
    pub fn inputs(&self) -> u64 {
        match self.kind {
            WeightKind::Vector => 1,
            WeightKind::Linear | WeightKind::Table => {
                self.sources.first().map_or(0, |source| source.row_length)
            }
        }
    }

    /// Sizes of `part` as it is given to the builder: values `[N, K]` or `[K, N]`, or `[N]` for a
    /// vector; scales `[N]` (INT8), `[N, K / block]` or `[K / block, N]` (INT4).
    pub fn sizes(&self, part: Part) -> Vec<u64> {
        let (outputs, inputs) = (self.outputs(), self.inputs());
        let columns = match (part, self.encoding) {
            (Part::Scales, Encoding::Int4 { block }) => inputs / u64::from(block.max(1)),
            (Part::Scales, _) => return vec![outputs],
            (Part::Values, _) => inputs,
        };
        match (self.kind, self.layout) {
            (WeightKind::Vector, _) => vec![outputs],
            (_, Layout::Nk) => vec![outputs, columns],
            (_, Layout::Kn) => vec![columns, outputs],
        }
    }

    /// The same as a [`Shape`]; a size beyond 63 bits becomes the largest there is.
    pub fn shape(&self, part: Part) -> Shape {
        let size = |size: u64| Dim::fixed(i64::try_from(size).unwrap_or(i64::MAX));
        Shape::new(self.sizes(part).into_iter().map(size))
    }

    /// Type of the elements of `part`; scales are 16-bit floating point.
    pub fn dtype(&self, part: Part) -> DataType {
        match part {
            Part::Values => self.encoding.values(),
            Part::Scales => DataType::F16,
        }
    }

    /// Bytes of `part`: two 4-bit integers make one.
    pub fn bytes(&self, part: Part) -> u64 {
        let elements: u64 = self.sizes(part).iter().product();
        (elements * u64::from(self.dtype(part).bits())).div_ceil(8)
    }

    /// What is wrong with the description itself, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        let quantised = self.encoding.has_scales();
        if self.sources.is_empty() {
            return Some("is made of no tensor".into());
        }
        if self
            .sources
            .iter()
            .any(|one| one.rows == 0 || one.row_length == 0)
        {
            return Some("is made of an empty tensor".into());
        }
        let limit = 1_u64 << 40;
        if self.sources.len() > 16
            || self
                .sources
                .iter()
                .any(|one| one.rows > limit || one.row_length > limit)
            || self
                .outputs()
                .checked_mul(self.inputs())
                .is_none_or(|all| all > limit)
        {
            return Some("is too large to be a weight".into());
        }
        if self.kind == WeightKind::Vector {
            let wrong = quantised || self.sources.iter().any(|one| one.rows != 1);
            return wrong.then(|| "is a vector: one row each, never quantised".into());
        }
        let length = self.inputs();
        if self.sources.iter().any(|one| one.row_length != length) {
            return Some("stacks tensors whose rows have different lengths".into());
        }
        if self.kind == WeightKind::Table && (self.layout != Layout::Nk || quantised) {
            return Some("is a table that rows are gathered from: [N, K], not quantised".into());
        }
        match self.encoding {
            Encoding::Int4 { block } if block == 0 || !length.is_multiple_of(block.into()) => Some(
                format!("has rows of {length}, no multiple of the block {block}"),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qkv(layout: Layout, encoding: Encoding) -> WeightSpec {
        let source = |name: &str, rows| Source {
            name: format!("blk.0.{name}.weight"),
            rows,
            row_length: 128,
        };
        WeightSpec {
            name: "layer.0.qkv".into(),
            kind: WeightKind::Linear,
            sources: vec![
                source("attn_q", 64),
                source("attn_k", 16),
                source("attn_v", 16),
            ],
            layout,
            encoding,
        }
    }

    #[test]
    fn sizes_follow_layout_and_encoding() {
        let spec = qkv(Layout::Nk, Encoding::F16);
        assert_eq!(spec.sizes(Part::Values), [96, 128]);
        assert_eq!(spec.bytes(Part::Values), 96 * 128 * 2);
        let spec = qkv(Layout::Kn, Encoding::Int4 { block: 64 });
        assert_eq!(spec.sizes(Part::Values), [128, 96]);
        assert_eq!(spec.sizes(Part::Scales), [2, 96]);
        assert_eq!(spec.bytes(Part::Values), 96 * 128 / 2);
        assert_eq!(spec.bytes(Part::Scales), 96 * 2 * 2);
        let spec = qkv(Layout::Nk, Encoding::Int8);
        assert_eq!(spec.sizes(Part::Scales), [96]);
        assert_eq!(spec.dtype(Part::Values), DataType::I8);
    }

    #[test]
    fn contradictory_descriptions_are_named() {
        assert_eq!(qkv(Layout::Nk, Encoding::Int8).problem(), None);
        let spec = qkv(Layout::Nk, Encoding::Int4 { block: 96 });
        assert!(spec.problem().unwrap().contains("no multiple"));
        let mut spec = qkv(Layout::Nk, Encoding::F16);
        spec.sources[1].row_length = 64;
        assert!(spec.problem().unwrap().contains("different lengths"));
        spec.sources.clear();
        assert!(spec.problem().unwrap().contains("no tensor"));
    }

    #[test]
    fn a_vector_is_one_row() {
        let meta = TensorMeta {
            stored: TensorType::F32,
            shape: vec![576],
        };
        assert_eq!((meta.rows(), meta.row_length()), (1, 576));
        let meta = TensorMeta {
            stored: TensorType::F16,
            shape: vec![192, 576],
        };
        assert_eq!((meta.rows(), meta.row_length()), (192, 576));
    }
}
