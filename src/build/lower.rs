//! A graph becomes TensorRT's layers, one operation at a time.
//!
//! It decides nothing about the network: each [`Op`] names the layer that it becomes. Sizes that change
//! from run to run are computed in the network itself, from the shapes of its inputs ([`super::sizes`]).

use std::collections::BTreeMap;

use super::sizes::Sizes;
use super::weights::EncodedWeights;
use crate::network::{
    self, Binary, DataType, Graph, Node, Op, Point, Profile, Scaling, Shape, Values,
};
use crate::tensorrt::{
    Builder, Constant, Elementwise, Reduction, Tensor, TensorRtError, Type, Unary,
};

/// Why a graph did not become TensorRT's layers.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// TensorRT refused an operation.
    #[error("the network's operation `{operation}` ({kind}): {source}")]
    Operation {
        /// Its name in the graph.
        operation: String,
        /// Which operation.
        kind: &'static str,
        /// TensorRT's words.
        source: TensorRtError,
    },
    /// TensorRT understands an operation otherwise than the graph does.
    #[error(
        "the network's operation `{operation}` ({kind}) is {expected} in the graph, but {found} in \
         TensorRT: this is a mistake of this program, please report it"
    )]
    Disagreement {
        /// Its name in the graph.
        operation: String,
        /// Which operation.
        kind: &'static str,
        /// Type and shape in the graph.
        expected: String,
        /// Type and shape in TensorRT.
        found: String,
    },
    /// Profiles, inputs, outputs.
    #[error("the network: {0}")]
    Network(#[from] TensorRtError),
    /// A size has no value, or a constant is not there: the graph is not one that was checked.
    #[error(
        "the network's `{name}` {problem}: this is a mistake of this program, please report it"
    )]
    Graph {
        /// An operation, profile or weight.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Adds all of `graph` to `builder`. The graph's inline constants are copied, its weights taken from
/// `weights`.
///
/// # Errors
/// The first operation that TensorRT refuses, or understands otherwise.
pub fn lower(
    builder: &mut Builder,
    graph: &Graph,
    weights: &EncodedWeights,
) -> Result<(), LowerError> {
    let mut lowering = Lowering {
        builder,
        graph,
        weights,
        tensors: Vec::with_capacity(graph.nodes().len()),
        sizes: Sizes::default(),
    };
    for node in graph.nodes() {
        let tensor = lowering.node(node).map_err(|error| failed(node, error))?;
        lowering.agree(node, tensor)?;
        lowering.tensors.push(tensor);
    }
    for output in graph.outputs() {
        let tensor = lowering.tensor(output.tensor);
        builder_output(lowering.builder, tensor, &output.name)?;
    }
    for profile in graph.profiles() {
        add_profile(builder, graph, profile)?;
    }
    Ok(())
}

fn builder_output(builder: &mut Builder, tensor: Tensor, name: &str) -> Result<(), LowerError> {
    Ok(builder.output(tensor, name)?)
}

fn failed(node: &Node, error: Failure) -> LowerError {
    match error {
        Failure::TensorRt(source) => LowerError::Operation {
            operation: node.name.clone(),
            kind: node.op.kind(),
            source,
        },
        Failure::Graph(problem) => LowerError::Graph {
            name: node.name.clone(),
            problem,
        },
    }
}

/// What can go wrong with one operation, before it has its name.
pub(super) enum Failure {
    TensorRt(TensorRtError),
    Graph(String),
}

impl From<TensorRtError> for Failure {
    fn from(error: TensorRtError) -> Self {
        Self::TensorRt(error)
    }
}

pub(super) type Lowered<T> = Result<T, Failure>;

struct Lowering<'a> {
    builder: &'a mut Builder,
    graph: &'a Graph,
    weights: &'a EncodedWeights,
    /// By [`network::TensorId`].
    tensors: Vec<Tensor>,
    sizes: Sizes,
}

impl Lowering<'_> {
    fn tensor(&self, id: network::TensorId) -> Tensor {
        self.tensors[id.index()]
    }

    fn operands<const N: usize>(&self, node: &Node) -> Lowered<[Tensor; N]> {
        let all: Vec<Tensor> = node.operands.iter().map(|id| self.tensor(*id)).collect();
        let count = all.len();
        all.try_into()
            .map_err(|_| Failure::Graph(format!("has {count} operands, not {N}")))
    }

    fn node(&mut self, node: &Node) -> Lowered<Tensor> {
        let tensor = match &node.op {
            Op::Input(_) => {
                let dims = dims(&node.shape);
                return Ok(self.builder.input(&node.name, kind(node.dtype), &dims)?);
            }
            Op::Constant(values) => self.constant(node, bytes(values))?,
            Op::Weight { weight, part } => {
                let bytes = self.weights.get(*weight, *part);
                let bytes = bytes.ok_or_else(|| Failure::Graph("has no bytes".to_owned()))?;
                self.constant(node, bytes)?
            }
            Op::Binary(op) => {
                let [a, b] = self.operands(node)?;
                self.builder.elementwise(elementwise(*op), a, b)?
            }
            Op::Unary(op) => {
                let [a] = self.operands(node)?;
                self.builder.unary(unary(*op), a)?
            }
            Op::MatMul {
                transpose_left,
                transpose_right,
            } => {
                let [a, b] = self.operands(node)?;
                self.builder
                    .matmul((a, *transpose_left), (b, *transpose_right))?
            }
            Op::Softmax { axis } => {
                let [a] = self.operands(node)?;
                self.builder.softmax(a, *axis)?
            }
            Op::Reduce { reduction, axis } => {
                let [a] = self.operands(node)?;
                self.builder.reduce(reduce(*reduction), a, &[*axis])?
            }
            Op::Cast { to } => {
                let [a] = self.operands(node)?;
                self.builder.cast(a, kind(*to))?
            }
            Op::Select => {
                let [condition, a, b] = self.operands(node)?;
                self.builder.select(condition, a, b)?
            }
            Op::Dequantize(scaling) => {
                let [values, scales] = self.operands(node)?;
                let axis = match scaling {
                    Scaling::Channel { axis } => Some(*axis),
                    Scaling::Block { .. } => None,
                };
                self.builder
                    .dequantize(values, scales, axis, kind(node.dtype))?
            }
            Op::Gather { axis } => {
                let [data, indices] = self.operands(node)?;
                self.builder.gather(data, indices, *axis)?
            }
            _ => self.moving(node)?,
        };
        self.builder.name(tensor, &node.name)?;
        Ok(tensor)
    }

    /// Operations that move elements, and those of the native form.
    fn moving(&mut self, node: &Node) -> Lowered<Tensor> {
        Ok(match &node.op {
            Op::Slice { start, size } => {
                let [a] = self.operands(node)?;
                self.slice(a, &Shape(start.clone()), size)?
            }
            Op::Concat { axis } => {
                let all: Vec<Tensor> = node.operands.iter().map(|id| self.tensor(*id)).collect();
                self.builder.concat(&all, *axis)?
            }
            Op::Reshape { to } => {
                let [a] = self.operands(node)?;
                if let Some(dims) = to.with_one_wildcard() {
                    self.builder.reshape(a, &dims)?
                } else {
                    let shape = self.shape_tensor(to)?;
                    self.builder.reshape_to(a, shape)?
                }
            }
            Op::Transpose { order } => {
                let [a] = self.operands(node)?;
                self.builder.transpose(a, order)?
            }
            Op::KvCacheUpdate => {
                let [cache, new, index] = self.operands(node)?;
                self.builder.kv_update(cache, new, index)?
            }
            Op::Attention => {
                let [query, keys, values, mask] = self.operands(node)?;
                self.builder.attention(query, keys, values, Some(mask))?
            }
            Op::RotaryEmbedding => {
                let [a, cosines, sines, positions] = self.operands(node)?;
                self.builder.rotary(a, (cosines, sines), positions)?
            }
            other => return Err(Failure::Graph(format!("{} has no layer", other.kind()))),
        })
    }

    fn constant(&mut self, node: &Node, bytes: Constant) -> Lowered<Tensor> {
        let dims = dims(&node.shape);
        Ok(self.builder.constant(kind(node.dtype), &dims, bytes)?)
    }

    fn slice(&mut self, a: Tensor, start: &Shape, size: &Shape) -> Lowered<Tensor> {
        let from = self.changing(start)?;
        let many = self.changing(size)?;
        // What a tensor replaces is not looked at, but must be there.
        let fixed = |shape: &Shape, instead: i64| -> Vec<i64> {
            let sizes = shape.0.iter();
            sizes
                .map(|size| size.as_fixed().unwrap_or(instead))
                .collect()
        };
        let (start, size) = (fixed(start, 0), fixed(size, 1));
        Ok(self.builder.slice(a, (&start, &size), from, many)?)
    }

    /// The sizes as a tensor, where one of them changes.
    fn changing(&mut self, shape: &Shape) -> Lowered<Option<Tensor>> {
        if shape.as_fixed().is_some() {
            return Ok(None);
        }
        self.shape_tensor(shape).map(Some)
    }

    fn shape_tensor(&mut self, shape: &Shape) -> Lowered<Tensor> {
        let Self {
            builder,
            graph,
            tensors,
            sizes,
            ..
        } = self;
        sizes.shape(builder, shape, &mut |symbol| {
            let (input, axis) = graph.symbol_source(symbol)?;
            Some((tensors.get(input.index()).copied()?, axis))
        })
    }

    /// The graph and TensorRT must see the same type, rank and fixed sizes; a difference here would be
    /// wrong numbers later.
    fn agree(&mut self, node: &Node, tensor: Tensor) -> Result<(), LowerError> {
        let (found, sizes) = self.builder.describe(tensor)?;
        let expected = dims(&node.shape);
        // A size that the graph knows to be fixed may be unknown to TensorRT, but not different.
        let same = |(graph, here): (&i64, &i64)| graph == here || *graph < 0 || *here < 0;
        let agrees = found == kind(node.dtype)
            && sizes.len() == expected.len()
            && expected.iter().zip(&sizes).all(same);
        if agrees {
            return Ok(());
        }
        Err(LowerError::Disagreement {
            operation: node.name.clone(),
            kind: node.op.kind(),
            expected: format!("{:?} {expected:?}", kind(node.dtype)),
            found: format!("{found:?} {sizes:?}"),
        })
    }
}

fn add_profile(builder: &mut Builder, graph: &Graph, profile: &Profile) -> Result<(), LowerError> {
    let mut shapes: BTreeMap<&str, [Vec<i64>; 3]> = BTreeMap::new();
    for (_, _, node) in graph.inputs() {
        if node.shape.as_fixed().is_some() {
            continue;
        }
        let at = |point| {
            let sizes = node.shape.evaluate(&profile.at(point));
            sizes.ok_or_else(|| LowerError::Graph {
                name: profile.name.clone(),
                problem: format!("says nothing of a size of the input {}", node.name),
            })
        };
        shapes.insert(
            &node.name,
            [at(Point::Min)?, at(Point::Opt)?, at(Point::Max)?],
        );
    }
    let inputs: Vec<(&str, [&[i64]; 3])> = shapes
        .iter()
        .map(|(name, [min, opt, max])| (*name, [min.as_slice(), opt.as_slice(), max.as_slice()]))
        .collect();
    Ok(builder.profile(&inputs)?)
}

/// -1 for a size that changes.
fn dims(shape: &Shape) -> Vec<i64> {
    let sizes = shape.0.iter();
    sizes.map(|size| size.as_fixed().unwrap_or(-1)).collect()
}

fn kind(dtype: DataType) -> Type {
    match dtype {
        DataType::F32 => Type::F32,
        DataType::F16 => Type::F16,
        DataType::I32 => Type::I32,
        DataType::I64 => Type::I64,
        DataType::Bool => Type::Bool,
        DataType::I8 => Type::I8,
        DataType::I4 => Type::I4,
    }
}

fn elementwise(op: Binary) -> Elementwise {
    match op {
        Binary::Add => Elementwise::Add,
        Binary::Subtract => Elementwise::Subtract,
        Binary::Multiply => Elementwise::Multiply,
        Binary::Divide => Elementwise::Divide,
        Binary::Min => Elementwise::Min,
        Binary::Max => Elementwise::Max,
        Binary::Less => Elementwise::Less,
        Binary::And => Elementwise::And,
    }
}

fn unary(op: network::Unary) -> Unary {
    match op {
        network::Unary::Sqrt => Unary::Sqrt,
        network::Unary::Reciprocal => Unary::Reciprocal,
        network::Unary::Exp => Unary::Exp,
        network::Unary::Negate => Unary::Negate,
        network::Unary::Sigmoid => Unary::Sigmoid,
    }
}

fn reduce(reduction: network::Reduction) -> Reduction {
    match reduction {
        network::Reduction::Sum => Reduction::Sum,
        network::Reduction::Mean => Reduction::Mean,
        network::Reduction::Max => Reduction::Max,
    }
}

fn bytes(values: &Values) -> Constant {
    Constant::Owned(match values {
        Values::F32(values) => bytemuck::cast_slice(values).to_vec(),
        Values::F16(values) => bytemuck::cast_slice(values).to_vec(),
        Values::I32(values) => bytemuck::cast_slice(values).to_vec(),
        Values::I64(values) => bytemuck::cast_slice(values).to_vec(),
    })
}
