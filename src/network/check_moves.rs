//! [`super::check`] for the operations that only move elements.

use super::check::{axis_of, computable, exactly, one_type, rank};
use super::{DataType, Dim, Node, Shape};

type Found = (DataType, Shape);
type Checked<T> = Result<T, String>;

pub(super) fn gather(operands: &[&Node], axis: usize) -> Checked<Found> {
    let [data, indices] = exactly(operands)?;
    computable(data)?;
    axis_of(data, axis)?;
    if !matches!(indices.dtype, DataType::I32 | DataType::I64) {
        return Err(format!(
            "indices are {}, they must be I32 or I64",
            indices.dtype
        ));
    }
    let (before, after) = (&data.shape.0[..axis], &data.shape.0[axis + 1..]);
    let sizes = before.iter().chain(&indices.shape.0).chain(after);
    Ok((data.dtype, Shape::new(sizes.cloned())))
}

pub(super) fn slice(operands: &[&Node], start: &[Dim], size: &Shape) -> Checked<Found> {
    let [data] = exactly(operands)?;
    computable(data)?;
    rank(data, start.len())?;
    rank(data, size.rank())?;
    for (axis, from) in start.iter().enumerate() {
        let rest = remainder(&data.shape.0[axis], from, &size.0[axis]);
        let rest = rest.ok_or("sizes do not fit into 64 bits")?;
        if !from.is_at_least(0) || rest.as_fixed().is_some_and(|rest| rest < 0) {
            return Err(format!(
                "{} from {from} on reaches beyond {} of axis {axis}",
                size.0[axis], data.shape.0[axis]
            ));
        }
    }
    Ok((data.dtype, size.clone()))
}

/// `whole - start - size`.
pub(super) fn remainder(whole: &Dim, start: &Dim, size: &Dim) -> Option<Dim> {
    let end = start.plus(size)?;
    whole.plus(&end.times(&Dim::fixed(-1))?)
}

pub(super) fn concat(operands: &[&Node], axis: usize) -> Checked<Found> {
    let [first, rest @ ..] = operands else {
        return Err("no operands given".into());
    };
    one_type(operands)?;
    computable(first)?;
    let mut along = axis_of(first, axis)?.clone();
    for other in rest {
        rank(other, first.shape.rank())?;
        let mut sizes = other.shape.clone();
        sizes.0[axis] = first.shape.0[axis].clone();
        if sizes != first.shape {
            return Err(format!(
                "{} and {} differ beside axis {axis}",
                first.shape, other.shape
            ));
        }
        along = along.plus(&other.shape.0[axis]).ok_or("is too long")?;
    }
    let mut shape = first.shape.clone();
    shape.0[axis] = along;
    Ok((first.dtype, shape))
}

pub(super) fn reshape(operands: &[&Node], to: &Shape) -> Checked<Found> {
    let [data] = exactly(operands)?;
    computable(data)?;
    match (data.shape.elements(), to.elements()) {
        (Some(before), Some(after)) if before == after => Ok((data.dtype, to.clone())),
        _ => Err(format!(
            "{} cannot become {to}: other number of elements",
            data.shape
        )),
    }
}

pub(super) fn transpose(operands: &[&Node], order: &[usize]) -> Checked<Found> {
    let [data] = exactly(operands)?;
    computable(data)?;
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..data.shape.rank()) {
        return Err(format!(
            "{order:?} is no order of the axes of {}",
            data.shape
        ));
    }
    let sizes = order.iter().map(|axis| data.shape.0[*axis].clone());
    Ok((data.dtype, Shape::new(sizes)))
}
