//! Builds a graph, one checked operation after the other.

use super::check::infer;
use super::{
    Binary, DataType, Dim, Encoding, Graph, InputRole, Layout, NetworkError, Node, Op, Output,
    OutputRole, Part, Profile, Reduction, Scaling, Shape, TensorId, Unary, Values, WeightId,
    WeightKind, WeightSpec,
};

type Built = Result<TensorId, NetworkError>;

/// A graph under construction.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    nodes: Vec<Node>,
    weights: Vec<WeightSpec>,
    outputs: Vec<Output>,
    scope: String,
}

impl GraphBuilder {
    /// Begins every name from here on with `scope`, for example `layer.3.attention`.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Type of `tensor`, if it is one of this graph.
    pub fn dtype(&self, tensor: TensorId) -> Option<DataType> {
        Some(self.nodes.get(tensor.index())?.dtype)
    }

    /// Shape of `tensor`, if it is one of this graph.
    pub fn shape(&self, tensor: TensorId) -> Option<&Shape> {
        Some(&self.nodes.get(tensor.index())?.shape)
    }

    /// Adds any operation.
    ///
    /// # Errors
    /// When it does not fit its operands; the error names it and them.
    pub fn add(&mut self, op: Op, operands: &[TensorId]) -> Built {
        self.push(None, op, operands, None)
    }

    fn push(
        &mut self,
        name: Option<String>,
        op: Op,
        operands: &[TensorId],
        given: Option<&(DataType, Shape)>,
    ) -> Built {
        let index = self.nodes.len();
        let scoped = || match self.scope.as_str() {
            "" => format!("{}.{index}", op.kind()),
            scope => format!("{scope}.{}.{index}", op.kind()),
        };
        let name = name.unwrap_or_else(scoped);
        let failed = |problem: String| NetworkError::Operation {
            name: name.clone(),
            kind: op.kind(),
            operands: self.describe(operands),
            problem,
        };
        let found: Option<Vec<&Node>> = operands
            .iter()
            .map(|id| self.nodes.get(id.index()))
            .collect();
        let found = found.ok_or_else(|| failed("an operand is of another graph".into()))?;
        let (dtype, shape) = infer(&op, &found, &self.weights, given).map_err(failed)?;
        let index = u32::try_from(index).map_err(|_| failed("is one too many".into()))?;
        self.nodes.push(Node {
            name,
            op,
            operands: operands.to_vec(),
            dtype,
            shape,
        });
        Ok(TensorId(index))
    }

    fn describe(&self, operands: &[TensorId]) -> String {
        let one = |id: &TensorId| match self.nodes.get(id.index()) {
            Some(node) => format!("{} {} `{}`", node.dtype, node.shape, node.name),
            None => format!("tensor {} of another graph", id.index()),
        };
        match operands {
            [] => "nothing".to_owned(),
            operands => operands.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }

    /// Adds an input called `name`.
    ///
    /// # Errors
    /// When type or shape contradict the role.
    pub fn input(&mut self, name: &str, role: InputRole, dtype: DataType, shape: Shape) -> Built {
        self.push(
            Some(name.to_owned()),
            Op::Input(role),
            &[],
            Some(&(dtype, shape)),
        )
    }

    /// Adds numbers in `shape`.
    ///
    /// # Errors
    /// When there are more or fewer than the shape holds, or too many altogether.
    pub fn constant(&mut self, values: Values, shape: &[i64]) -> Built {
        let given = (values.dtype(), Shape::fixed(shape));
        self.push(None, Op::Constant(values), &[], Some(&given))
    }

    /// Adds `spec` to the table of weights.
    ///
    /// # Errors
    /// When it contradicts itself.
    pub fn weight(&mut self, spec: WeightSpec) -> Result<WeightId, NetworkError> {
        let known = self.weights.iter().any(|other| other.name == spec.name);
        let problem = spec
            .problem()
            .or_else(|| known.then(|| "is there twice".into()));
        let index = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
        if let Some(problem) = problem {
            let name = spec.name;
            return Err(NetworkError::Weight { name, problem });
        }
        self.weights.push(spec);
        Ok(WeightId(index))
    }

    /// The numbers of a weight, dequantised where it is quantised.
    ///
    /// # Errors
    /// When there is no such weight.
    pub fn load(&mut self, weight: WeightId) -> Built {
        let part = |part| Op::Weight { weight, part };
        let values = self.add(part(Part::Values), &[])?;
        let spec = &self.weights[weight.index()];
        let (outputs, inputs) = match spec.layout {
            Layout::Nk => (0, 1),
            Layout::Kn => (1, 0),
        };
        let scaling = match spec.encoding {
            Encoding::F32 | Encoding::F16 => return Ok(values),
            Encoding::Int8 => Scaling::Channel { axis: outputs },
            Encoding::Int4 { block } => Scaling::Block {
                axis: inputs,
                block,
            },
        };
        let scales = self.add(part(Part::Scales), &[])?;
        self.add(Op::Dequantize(scaling), &[values, scales])
    }

    /// A linear layer: `x [rows, K]` → `[rows, N]`.
    ///
    /// # Errors
    /// When the weight is no matrix of K inputs, or of another type than `x`.
    pub fn linear(&mut self, x: TensorId, weight: WeightId) -> Built {
        let matrix = self.load(weight)?;
        let matrix = self
            .dtype(x)
            .map_or(Ok(matrix), |to| self.cast(matrix, to))?;
        let spec = &self.weights[weight.index()];
        let turned = spec.layout == Layout::Nk && spec.kind != WeightKind::Vector;
        self.mat_mul(x, matrix, turned)
    }

    /// `left × right`, or `left × rightᵀ`.
    ///
    /// # Errors
    /// As [`Op::MatMul`] demands.
    pub fn mat_mul(&mut self, left: TensorId, right: TensorId, transpose_right: bool) -> Built {
        let op = Op::MatMul {
            transpose_left: false,
            transpose_right,
        };
        self.add(op, &[left, right])
    }

    /// `left ∘ right`, element by element.
    ///
    /// # Errors
    /// As [`Op::Binary`] demands.
    pub fn binary(&mut self, kind: Binary, left: TensorId, right: TensorId) -> Built {
        self.add(Op::Binary(kind), &[left, right])
    }

    /// `∘ x`, element by element.
    ///
    /// # Errors
    /// As [`Op::Unary`] demands.
    pub fn unary(&mut self, kind: Unary, x: TensorId) -> Built {
        self.add(Op::Unary(kind), &[x])
    }

    /// `x` in the type `to`; `x` itself when it has that type.
    ///
    /// # Errors
    /// As [`Op::Cast`] demands.
    pub fn cast(&mut self, x: TensorId, to: DataType) -> Built {
        if self.dtype(x) == Some(to) {
            return Ok(x);
        }
        self.add(Op::Cast { to }, &[x])
    }

    /// Rows of `data` along `axis`.
    ///
    /// # Errors
    /// As [`Op::Gather`] demands.
    pub fn gather(&mut self, data: TensorId, indices: TensorId, axis: usize) -> Built {
        self.add(Op::Gather { axis }, &[data, indices])
    }

    /// `data` in the shape `to`.
    ///
    /// # Errors
    /// As [`Op::Reshape`] demands.
    pub fn reshape(&mut self, data: TensorId, to: Shape) -> Built {
        self.add(Op::Reshape { to }, &[data])
    }

    /// `data` with its axes in another order.
    ///
    /// # Errors
    /// As [`Op::Transpose`] demands.
    pub fn transpose(&mut self, data: TensorId, order: &[usize]) -> Built {
        let order = order.to_vec();
        self.add(Op::Transpose { order }, &[data])
    }

    /// The part of `data` along `axis` from `start` on, `size` long.
    ///
    /// # Errors
    /// As [`Op::Slice`] demands.
    pub fn slice(&mut self, data: TensorId, axis: usize, start: Dim, size: Dim) -> Built {
        let mut sizes = self.shape(data).cloned().unwrap_or(Shape(Vec::new()));
        let mut starts = vec![Dim::fixed(0); sizes.rank()];
        if let (Some(from), Some(length)) = (starts.get_mut(axis), sizes.0.get_mut(axis)) {
            (*from, *length) = (start, size);
        } else {
            starts.push(start);
        }
        let op = Op::Slice {
            start: starts,
            size: sizes,
        };
        self.add(op, &[data])
    }

    /// `parts` behind each other along `axis`.
    ///
    /// # Errors
    /// As [`Op::Concat`] demands.
    pub fn concat(&mut self, parts: &[TensorId], axis: usize) -> Built {
        self.add(Op::Concat { axis }, parts)
    }

    /// `data` reduced along `axis`.
    ///
    /// # Errors
    /// As [`Op::Reduce`] demands.
    pub fn reduce(&mut self, reduction: Reduction, data: TensorId, axis: usize) -> Built {
        self.add(Op::Reduce { reduction, axis }, &[data])
    }

    /// Makes `tensor` an output called `name`.
    pub fn output(&mut self, name: &str, role: OutputRole, tensor: TensorId) {
        self.outputs.push(Output {
            name: name.to_owned(),
            role,
            tensor,
        });
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// When a name or role is there twice, an input or operation is used by nothing, a changing size
    /// cannot be read off an input, a profile does not bound every size, or a slice reaches beyond
    /// its tensor in a profile.
    pub fn finish(self, profiles: Vec<Profile>) -> Result<Graph, NetworkError> {
        let Self {
            nodes,
            weights,
            outputs,
            ..
        } = self;
        let graph = Graph {
            nodes,
            weights,
            outputs,
            profiles,
        };
        super::whole::check(&graph)?;
        Ok(graph)
    }
}
