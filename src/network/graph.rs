//! The graph: operations in order, the table of weights, inputs, outputs and profiles.
//!
//! A [`Graph`] was checked whole by [`super::GraphBuilder::finish`]: every operation fits its operands,
//! every changing size can be read off an input, every slice lies inside its tensor in every profile.

use serde::Serialize;

use super::{DataType, InputRole, Op, OutputRole, Profile, Shape, Symbol, WeightId, WeightSpec};

/// A tensor of a graph: the result of its operation of the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TensorId(pub(super) u32);

impl TensorId {
    /// The index in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An operation and the tensor that it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique: of an input, its name; of others, `<scope>.<kind>.<index>`.
    pub name: String,
    /// What is done.
    pub op: Op,
    /// With what, in the order that the operation's documentation says.
    pub operands: Vec<TensorId>,
    /// Type of the result.
    pub dtype: DataType,
    /// Shape of the result.
    pub shape: Shape,
}

/// A tensor that the network gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Unique among inputs and outputs.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// Which tensor.
    pub tensor: TensorId,
}

/// A whole network.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) weights: Vec<WeightSpec>,
    pub(super) outputs: Vec<Output>,
    pub(super) profiles: Vec<Profile>,
}

impl Graph {
    /// All operations; operands always stand before.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The operation that gives `tensor`.
    ///
    /// # Panics
    /// When `tensor` is of another, larger graph.
    pub fn node(&self, tensor: TensorId) -> &Node {
        &self.nodes[tensor.index()]
    }

    /// The table of weights, by [`WeightId`].
    pub fn weights(&self) -> &[WeightSpec] {
        &self.weights
    }

    /// The weight `id`.
    ///
    /// # Panics
    /// When `id` is of another, larger graph.
    pub fn weight(&self, id: WeightId) -> &WeightSpec {
        &self.weights[id.index()]
    }

    /// All inputs with their roles, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (TensorId, InputRole, &Node)> {
        (0..)
            .zip(&self.nodes)
            .filter_map(|(index, node)| match node.op {
                Op::Input(role) => Some((TensorId(index), role, node)),
                _ => None,
            })
    }

    /// The input with `role`.
    pub fn input(&self, role: InputRole) -> Option<&Node> {
        self.inputs()
            .find_map(|(_, found, node)| (found == role).then_some(node))
    }

    /// All outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The output with `role`.
    pub fn output(&self, role: OutputRole) -> Option<&Output> {
        self.outputs.iter().find(|output| output.role == role)
    }

    /// The optimisation profiles, in order.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The sizes that change from run to run.
    pub fn symbols(&self) -> Vec<Symbol> {
        let used = |symbol: &Symbol| {
            let mut sizes = self.inputs().flat_map(|(_, _, node)| &node.shape.0);
            sizes.any(|size| size.contains(*symbol))
        };
        Symbol::ALL.into_iter().filter(used).collect()
    }

    /// Where a run says what `symbol` is: the first input that has exactly this size, and the axis.
    pub fn symbol_source(&self, symbol: Symbol) -> Option<(TensorId, usize)> {
        self.inputs().find_map(|(id, _, node)| {
            let sizes = &node.shape.0;
            let axis = sizes
                .iter()
                .position(|size| size.as_symbol() == Some(symbol))?;
            Some((id, axis))
        })
    }

    /// Whether it needs TensorRT 10.15 or RTX.
    pub fn is_native(&self) -> bool {
        self.nodes.iter().any(|node| node.op.is_native())
    }

    /// Bytes of all weights as they are given to the builder.
    pub fn weight_bytes(&self) -> u64 {
        use super::Part::{Scales, Values};

        let bytes = |weight: &WeightSpec| {
            let scales = weight.encoding.has_scales();
            weight.bytes(Values) + if scales { weight.bytes(Scales) } else { 0 }
        };
        self.weights.iter().map(bytes).sum()
    }
}
