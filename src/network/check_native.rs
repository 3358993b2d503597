//! [`super::check`] for the operations of the native form.

use super::check::{exactly, float, one_type, rank};
use super::{DataType, Dim, InputRole, Node, Op, Shape};

type Found = (DataType, Shape);
type Checked<T> = Result<T, String>;

/// Sizes of a tensor with four axes.
fn four(node: &Node) -> Checked<[&Dim; 4]> {
    rank(node, 4)?;
    let [a, b, c, d] = node.shape.0.as_slice() else {
        return Err(format!("{} must have 4 axes", node.shape));
    };
    Ok([a, b, c, d])
}

fn whole_numbers(node: &Node, shape: &[&Dim], what: &str) -> Checked<()> {
    if node.dtype == DataType::I32 && node.shape.0.iter().eq(shape.iter().copied()) {
        return Ok(());
    }
    let shape = Shape::new(shape.iter().copied().cloned());
    Err(format!(
        "{what} are {} {}, needed is I32 {shape}",
        node.dtype, node.shape
    ))
}

pub(super) fn kv_cache_update(operands: &[&Node]) -> Checked<Found> {
    let [cache, new, index] = exactly(operands)?;
    one_type(&[cache, new])?;
    float(cache)?;
    if !matches!(
        cache.op,
        Op::Input(InputRole::PastKeys(_) | InputRole::PastValues(_))
    ) {
        return Err(format!("`{}` is no cache: it must be an input", cache.name));
    }
    let ([batch, heads, capacity, length], [b, h, _, l]) = (four(cache)?, four(new)?);
    if (batch, heads, length) != (b, h, l) {
        return Err(format!("{} does not go into {}", new.shape, cache.shape));
    }
    if capacity.as_fixed().is_none() {
        return Err(format!(
            "the capacity {capacity} must be the same in every run"
        ));
    }
    whole_numbers(index, &[batch], "indices")?;
    Ok((cache.dtype, cache.shape.clone()))
}

pub(super) fn attention(operands: &[&Node]) -> Checked<Found> {
    let [query, keys, values, mask] = exactly(operands)?;
    one_type(&[query, keys, values])?;
    float(query)?;
    let [batch, heads, sequence, length] = four(query)?;
    let [b, kv_heads, context, l] = four(keys)?;
    let groups = match (heads.as_fixed(), kv_heads.as_fixed()) {
        (Some(heads), Some(kv_heads)) if kv_heads > 0 => heads % kv_heads == 0,
        _ => false,
    };
    if keys.shape != values.shape || (batch, length) != (b, l) || !groups {
        return Err(format!(
            "queries {}, keys {} and values {} do not belong together",
            query.shape, keys.shape, values.shape
        ));
    }
    let [mask_batch, mask_heads, s, c] = four(mask)?;
    let one = Dim::fixed(1);
    let fits = |size: &Dim, wanted: &Dim| size == wanted || *size == one;
    if mask.dtype != DataType::Bool
        || !fits(mask_batch, batch)
        || !fits(mask_heads, heads)
        || (s, c) != (sequence, context)
    {
        return Err(format!(
            "the mask is {} {}, needed is Bool [{batch} or 1, {heads} or 1, {sequence}, {context}]",
            mask.dtype, mask.shape
        ));
    }
    Ok((query.dtype, query.shape.clone()))
}

pub(super) fn rotary_embedding(operands: &[&Node]) -> Checked<Found> {
    let [x, cosines, sines, positions] = exactly(operands)?;
    one_type(&[x, cosines, sines])?;
    float(x)?;
    let [batch, _, sequence, length] = four(x)?;
    rank(cosines, 2)?;
    let half = match length.as_fixed() {
        Some(length) if length % 2 == 0 => Dim::fixed(length / 2),
        _ => return Err(format!("heads of {length} have no halves")),
    };
    if cosines.shape != sines.shape || cosines.shape.0[1] != half {
        return Err(format!(
            "the tables are {} and {}, needed is [positions, {half}]",
            cosines.shape, sines.shape
        ));
    }
    whole_numbers(positions, &[batch, sequence], "positions")?;
    Ok((x.dtype, x.shape.clone()))
}
