//! A plain interpreter of a network on the CPU, for tests: what every operation means, and nothing of
//! speed but a good matrix product.
//!
//! Every result is compared with the type and shape that the graph announced for it, so a run also
//! proves the graph's arithmetic of shapes.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses the part that it needs"
)]

mod moves;
mod native;
mod operations;
mod runner;
mod tensor;
mod weights;

use std::collections::BTreeMap;

use enginewright::network::{
    Bindings, DataType, Dim, Graph, InputRole, Node, Op, OutputRole, Symbol, TensorId, Values,
    WeightSource,
};

pub use runner::{Runner, Turn};
pub use tensor::Tensor;
pub use weights::InMemory;

use tensor::{Data, round};

/// How 16-bit floating point is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Results of 16-bit operations are rounded to 16 bits; sums inside an operation are not.
    AsTyped,
    /// Nothing is rounded, weights neither: all is 32-bit.
    Wide,
}

/// A graph with its weights in memory.
pub struct Interpreter<'a> {
    pub graph: &'a Graph,
    arithmetic: Arithmetic,
    /// What does not depend on inputs, computed once.
    constant: Vec<Option<Tensor>>,
    /// The last operation that reads each result.
    last_use: Vec<usize>,
}

impl<'a> Interpreter<'a> {
    pub fn new(graph: &'a Graph, source: &dyn WeightSource, arithmetic: Arithmetic) -> Self {
        let count = graph.nodes().len();
        let mut last_use = vec![0; count];
        let mut constant: Vec<Option<Tensor>> = Vec::with_capacity(count);
        for (index, node) in graph.nodes().iter().enumerate() {
            for operand in &node.operands {
                last_use[operand.index()] = index;
            }
            let operands: Option<Vec<&Tensor>> = node
                .operands
                .iter()
                .map(|operand| constant[operand.index()].as_ref())
                .collect();
            let value = match (&node.op, operands) {
                (Op::Input(_), _) | (_, None) => None,
                (Op::Weight { weight, part }, _) => {
                    let rounding = arithmetic == Arithmetic::AsTyped;
                    Some(weights::load(
                        graph.weight(*weight),
                        *part,
                        source,
                        rounding,
                    ))
                }
                (_, Some(operands)) => {
                    let value = compute(node, &operands, &Bindings::default());
                    Some(rounded(value, arithmetic))
                }
            };
            constant.push(value);
        }
        for output in graph.outputs() {
            last_use[output.tensor.index()] = count;
        }
        Self {
            graph,
            arithmetic,
            constant,
            last_use,
        }
    }

    /// Runs the graph once. Sizes that change are read off the inputs.
    pub fn run(&self, inputs: &BTreeMap<InputRole, Tensor>) -> BTreeMap<OutputRole, Tensor> {
        let sizes = self.sizes(inputs);
        let within = |profile: &enginewright::network::Profile| profile.admits(&sizes);
        assert!(
            self.graph.profiles().iter().any(within),
            "{sizes:?} is in no profile"
        );
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.nodes().len()];
        for (index, node) in self.graph.nodes().iter().enumerate() {
            if self.constant[index].is_some() {
                continue;
            }
            let value = if let Op::Input(role) = &node.op {
                inputs[role].clone()
            } else {
                let operand = |id: &TensorId| {
                    let computed = || values[id.index()].as_ref();
                    self.constant[id.index()]
                        .as_ref()
                        .or_else(computed)
                        .unwrap()
                };
                let operands: Vec<&Tensor> = node.operands.iter().map(operand).collect();
                rounded(compute(node, &operands, &sizes), self.arithmetic)
            };
            announced(node, &value, &sizes);
            values[index] = Some(value);
            for operand in &node.operands {
                if self.last_use[operand.index()] == index {
                    values[operand.index()] = None;
                }
            }
        }
        let outputs = self.graph.outputs().iter();
        outputs
            .map(|output| (output.role, values[output.tensor.index()].clone().unwrap()))
            .collect()
    }

    fn sizes(&self, inputs: &BTreeMap<InputRole, Tensor>) -> Bindings {
        let mut sizes = Bindings::default();
        for symbol in Symbol::ALL {
            if let Some((id, axis)) = self.graph.symbol_source(symbol) {
                let Op::Input(role) = self.graph.node(id).op else {
                    panic!("sizes come from inputs");
                };
                let size = inputs[&role].shape[axis];
                sizes = sizes.with(symbol, i64::try_from(size).unwrap());
            }
        }
        sizes
    }
}

/// The result has the type and shape that the graph says.
fn announced(node: &Node, value: &Tensor, sizes: &Bindings) {
    let expected = node.shape.evaluate(sizes).unwrap();
    let found: Vec<i64> = value
        .shape
        .iter()
        .map(|size| i64::try_from(*size).unwrap())
        .collect();
    assert_eq!(
        (value.dtype, found),
        (node.dtype, expected),
        "{}",
        node.name
    );
}

fn rounded(mut value: Tensor, arithmetic: Arithmetic) -> Tensor {
    if value.dtype == DataType::F16
        && arithmetic == Arithmetic::AsTyped
        && let Data::Float(values) = std::rc::Rc::make_mut(&mut value.data)
    {
        round(values);
    }
    value
}

fn constant(values: &Values) -> Data {
    match values {
        Values::F32(values) => Data::Float(values.to_vec()),
        Values::F16(values) => Data::Float(values.iter().map(|one| one.to_f32()).collect()),
        Values::I32(values) => Data::Whole(values.iter().map(|one| i64::from(*one)).collect()),
        Values::I64(values) => Data::Whole(values.to_vec()),
    }
}

fn compute(node: &Node, operands: &[&Tensor], sizes: &Bindings) -> Tensor {
    let size = |size: &Dim| usize::try_from(size.evaluate(sizes).unwrap()).unwrap();
    let all = |sizes: &[Dim]| -> Vec<usize> { sizes.iter().map(size).collect() };
    match (&node.op, operands) {
        (Op::Constant(values), []) => Tensor::new(node.dtype, all(&node.shape.0), constant(values)),
        (Op::Binary(kind), [a, b]) => operations::binary(*kind, a, b),
        (Op::Unary(kind), [x]) => operations::unary(*kind, x),
        (
            Op::MatMul {
                transpose_left,
                transpose_right,
            },
            [a, b],
        ) => operations::mat_mul(a, b, *transpose_left, *transpose_right),
        (Op::Softmax { axis }, [x]) => operations::softmax(x, *axis),
        (Op::Gather { axis }, [data, indices]) => moves::gather(data, indices, *axis),
        (Op::Slice { start, size }, [x]) => moves::slice(x, &all(start), &all(&size.0)),
        (Op::Concat { axis }, parts) => moves::concat(parts, *axis),
        (Op::Reshape { to }, [x]) => moves::reshape(x, all(&to.0)),
        (Op::Transpose { order }, [x]) => moves::transpose(x, order),
        (Op::Reduce { reduction, axis }, [x]) => operations::reduce(*reduction, x, *axis),
        (Op::Cast { to }, [x]) => operations::cast(x, *to),
        (Op::Select, [condition, a, b]) => operations::select(condition, a, b),
        (Op::Dequantize(scaling), [x, scales]) => operations::dequantize(x, scales, *scaling),
        (Op::KvCacheUpdate, [cache, new, at]) => native::kv_cache_update(cache, new, at),
        (Op::Attention, [q, k, v, mask]) => native::attention(q, k, v, mask),
        (Op::RotaryEmbedding, [x, cosines, sines, positions]) => {
            native::rotary_embedding(x, cosines, sines, positions)
        }
        (op, operands) => panic!("{op:?} of {} operands", operands.len()),
    }
}
