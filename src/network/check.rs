//! Type and shape of an operation's result, or why it does not fit its operands.
//!
//! Stricter than TensorRT in one respect: sizes that change are compared as they are named, so what is
//! accepted here fits in every run of every profile.

use super::{
    Binary, DataType, Dim, InputRole, MAX_INLINE_BYTES, MAX_RANK, Node, Op, Part, Scaling, Shape,
    Unary, WeightSpec,
};
use super::{check_moves, check_native};

type Found = (DataType, Shape);
type Checked<T> = Result<T, String>;

/// Type and shape of the result of `op`; inputs and constants bring their own through `given`.
pub(super) fn infer(
    op: &Op,
    operands: &[&Node],
    weights: &[WeightSpec],
    given: Option<&Found>,
) -> Checked<Found> {
    let found = match op {
        Op::Input(role) => input(*role, &none(operands, given)?),
        Op::Constant(values) => constant(values.dtype(), values.len(), none(operands, given)?),
        Op::Weight { weight, part } => {
            count(operands, 0)?;
            let spec = weights.get(weight.index()).ok_or("no such weight")?;
            if *part == Part::Scales && !spec.encoding.has_scales() {
                return Err(format!(
                    "`{}` is not quantised: it has no scales",
                    spec.name
                ));
            }
            Ok((spec.dtype(*part), spec.shape(*part)))
        }
        Op::Binary(kind) => binary(*kind, operands),
        Op::Unary(kind) => unary(*kind, operands),
        Op::MatMul {
            transpose_left,
            transpose_right,
        } => mat_mul(operands, *transpose_left, *transpose_right),
        Op::Softmax { axis } => {
            let [x] = exactly(operands)?;
            float(x)?;
            axis_of(x, *axis)?;
            Ok(same(x))
        }
        Op::Gather { axis } => check_moves::gather(operands, *axis),
        Op::Slice { start, size } => check_moves::slice(operands, start, size),
        Op::Concat { axis } => check_moves::concat(operands, *axis),
        Op::Reshape { to } => check_moves::reshape(operands, to),
        Op::Transpose { order } => check_moves::transpose(operands, order),
        Op::Reduce { axis, .. } => {
            let [x] = exactly(operands)?;
            float(x)?;
            axis_of(x, *axis)?;
            let mut shape = x.shape.clone();
            shape.0[*axis] = Dim::fixed(1);
            Ok((x.dtype, shape))
        }
        Op::Cast { to } => cast(operands, *to),
        Op::Select => select(operands),
        Op::Dequantize(scaling) => dequantize(operands, *scaling),
        Op::KvCacheUpdate => check_native::kv_cache_update(operands),
        Op::Attention => check_native::attention(operands),
        Op::RotaryEmbedding => check_native::rotary_embedding(operands),
    }?;
    sensible(&found.1)?;
    Ok(found)
}

fn same(node: &Node) -> Found {
    (node.dtype, node.shape.clone())
}

/// Every size is a positive number in every run.
fn sensible(shape: &Shape) -> Checked<()> {
    if shape.rank() > MAX_RANK {
        return Err(format!("{shape} has more than {MAX_RANK} axes"));
    }
    if let Some(size) = shape.0.iter().find(|size| !size.is_at_least(1)) {
        return Err(format!(
            "{shape} has the size {size}, it must be at least 1"
        ));
    }
    let elements = shape.elements();
    elements
        .map(|_| ())
        .ok_or_else(|| format!("{shape} has too many elements to be counted"))
}

pub(super) fn count(operands: &[&Node], wanted: usize) -> Checked<()> {
    if operands.len() == wanted {
        return Ok(());
    }
    Err(format!(
        "{} operands given, {wanted} needed",
        operands.len()
    ))
}

pub(super) fn exactly<'a, const N: usize>(operands: &[&'a Node]) -> Checked<[&'a Node; N]> {
    count(operands, N)?;
    operands
        .try_into()
        .map_err(|_| "wrong number of operands".to_owned())
}

fn none(operands: &[&Node], given: Option<&Found>) -> Checked<Found> {
    count(operands, 0)?;
    given
        .cloned()
        .ok_or_else(|| "needs a type and a shape".to_owned())
}

pub(super) fn float(node: &Node) -> Checked<()> {
    if node.dtype.is_float() {
        return Ok(());
    }
    Err(format!(
        "`{}` is {}, it must be F16 or F32",
        node.name, node.dtype
    ))
}

pub(super) fn computable(node: &Node) -> Checked<()> {
    if node.dtype.is_quantised() {
        return Err(format!(
            "`{}` is {}: dequantize it first",
            node.name, node.dtype
        ));
    }
    Ok(())
}

pub(super) fn one_type(nodes: &[&Node]) -> Checked<()> {
    if nodes.windows(2).all(|pair| pair[0].dtype == pair[1].dtype) {
        return Ok(());
    }
    let types: Vec<_> = nodes.iter().map(|node| node.dtype.to_string()).collect();
    Err(format!("types differ: {}", types.join(", ")))
}

pub(super) fn rank(node: &Node, wanted: usize) -> Checked<()> {
    if node.shape.rank() == wanted {
        return Ok(());
    }
    Err(format!(
        "`{}` is {}, it must have {wanted} axes",
        node.name, node.shape
    ))
}

pub(super) fn axis_of(node: &Node, axis: usize) -> Checked<&Dim> {
    let size = node.shape.0.get(axis);
    size.ok_or_else(|| format!("there is no axis {axis} in {}", node.shape))
}

/// Sizes are equal, or one is 1 and repeated.
pub(super) fn broadcast(left: &Shape, right: &Shape) -> Checked<Shape> {
    let one = Dim::fixed(1);
    let size = |(a, b): (&Dim, &Dim)| {
        if a == b || *b == one {
            Some(a.clone())
        } else {
            (*a == one).then(|| b.clone())
        }
    };
    let sizes: Option<Vec<Dim>> = left.0.iter().zip(&right.0).map(size).collect();
    match sizes {
        Some(sizes) if left.rank() == right.rank() => Ok(Shape(sizes)),
        _ => Err(format!("{left} and {right} must have equal sizes, or 1")),
    }
}

fn input(role: InputRole, (dtype, shape): &Found) -> Checked<Found> {
    let (wanted, axes) = match role {
        InputRole::Tokens | InputRole::Positions => (Some(DataType::I32), 2),
        InputRole::Lengths | InputRole::ContextPositions | InputRole::Rows => {
            (Some(DataType::I32), 1)
        }
        InputRole::PastKeys(_) | InputRole::PastValues(_) => (None, 4),
    };
    if wanted.is_some_and(|wanted| wanted != *dtype) || (wanted.is_none() && !dtype.is_float()) {
        return Err(format!("{dtype} is the wrong type for {role:?}"));
    }
    if shape.rank() != axes {
        return Err(format!("{shape} must have {axes} axes for {role:?}"));
    }
    Ok((*dtype, shape.clone()))
}

fn constant(dtype: DataType, elements: usize, (given, shape): Found) -> Checked<Found> {
    let elements = i64::try_from(elements).map_err(|_| "is too large")?;
    if dtype != given || shape.elements() != Some(Dim::fixed(elements)) {
        return Err(format!(
            "{elements} values of {dtype} are no {given} {shape}"
        ));
    }
    let bytes = u64::from(dtype.bits() / 8).saturating_mul(elements.unsigned_abs());
    if bytes > MAX_INLINE_BYTES {
        return Err(format!(
            "takes {bytes} bytes, the most is {MAX_INLINE_BYTES}: use a weight"
        ));
    }
    Ok((dtype, shape))
}

fn binary(kind: Binary, operands: &[&Node]) -> Checked<Found> {
    let [left, right] = exactly(operands)?;
    one_type(&[left, right])?;
    computable(left)?;
    let dtype = left.dtype;
    match kind {
        Binary::And if dtype != DataType::Bool => return Err(format!("{dtype} is no truth value")),
        Binary::And => {}
        _ if dtype == DataType::Bool => return Err("Bool cannot be computed with".into()),
        Binary::Divide => float(left)?,
        _ => {}
    }
    let shape = broadcast(&left.shape, &right.shape)?;
    let truth = matches!(kind, Binary::Less | Binary::And);
    Ok((if truth { DataType::Bool } else { dtype }, shape))
}

fn unary(_: Unary, operands: &[&Node]) -> Checked<Found> {
    let [x] = exactly(operands)?;
    float(x)?;
    Ok(same(x))
}

fn mat_mul(operands: &[&Node], left_turned: bool, right_turned: bool) -> Checked<Found> {
    let [left, right] = exactly(operands)?;
    one_type(&[left, right])?;
    float(left)?;
    let matrix = |node: &Node, turned: bool| match node.shape.0.as_slice() {
        [outer @ .., a, b] => {
            let (rows, columns) = if turned { (b, a) } else { (a, b) };
            Ok((Shape(outer.to_vec()), rows.clone(), columns.clone()))
        }
        _ => Err(format!("`{}` is {}, no matrix", node.name, node.shape)),
    };
    let (outer, rows, inner) = matrix(left, left_turned)?;
    let (right_outer, right_inner, columns) = matrix(right, right_turned)?;
    if inner != right_inner {
        return Err(format!(
            "sums over {inner} on the left and {right_inner} on the right"
        ));
    }
    let Shape(mut sizes) = broadcast(&outer, &right_outer)?;
    sizes.extend([rows, columns]);
    Ok((left.dtype, Shape(sizes)))
}

fn cast(operands: &[&Node], to: DataType) -> Checked<Found> {
    let [data] = exactly(operands)?;
    computable(data)?;
    if to.is_quantised() {
        return Err(format!("to {to}: only weights are quantised"));
    }
    Ok((to, data.shape.clone()))
}

fn select(operands: &[&Node]) -> Checked<Found> {
    let [condition, yes, no] = exactly(operands)?;
    if condition.dtype != DataType::Bool {
        return Err(format!(
            "the condition is {}, it must be Bool",
            condition.dtype
        ));
    }
    one_type(&[yes, no])?;
    computable(yes)?;
    let shape = broadcast(&yes.shape, &no.shape)?;
    Ok((yes.dtype, broadcast(&condition.shape, &shape)?))
}

fn dequantize(operands: &[&Node], scaling: Scaling) -> Checked<Found> {
    let [values, scales] = exactly(operands)?;
    let (
        Op::Weight {
            weight,
            part: Part::Values,
        },
        Op::Weight {
            weight: other,
            part: Part::Scales,
        },
    ) = (&values.op, &scales.op)
    else {
        return Err("needs values and scales of a weight".into());
    };
    if weight != other {
        return Err("values and scales are of different weights".into());
    }
    let size = |axis: usize| axis_of(values, axis).map(|size| size.as_fixed().unwrap_or(0));
    let expected = match (scaling, values.dtype) {
        (Scaling::Channel { axis }, DataType::I8) => vec![size(axis)?],
        (Scaling::Block { axis, block }, DataType::I4) => {
            size(axis)?;
            let mut sizes = values.shape.as_fixed().ok_or("weights have fixed sizes")?;
            if block == 0 || sizes[axis] % i64::from(block) != 0 {
                return Err(format!(
                    "{} is no multiple of the block {block}",
                    sizes[axis]
                ));
            }
            sizes[axis] /= i64::from(block);
            sizes
        }
        (scaling, dtype) => return Err(format!("{dtype} has no scaling {scaling:?}")),
    };
    if scales.shape != Shape::fixed(&expected) {
        return Err(format!(
            "the scales are {}, needed is {expected:?}",
            scales.shape
        ));
    }
    Ok((scales.dtype, values.shape.clone()))
}
