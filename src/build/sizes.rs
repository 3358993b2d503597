//! Sizes that change from run to run, computed inside the network: the lowering of [`Dim`].

use std::collections::BTreeMap;

use super::lower::{Failure, Lowered};
use crate::network::{Dim, Shape, Symbol};
use crate::tensorrt::{Builder, Constant, Elementwise, Tensor, Type};

/// Sizes that were computed already, each a tensor of one I64: used again instead of computed again.
#[derive(Default)]
pub(super) struct Sizes {
    known: BTreeMap<Dim, Tensor>,
}

impl Sizes {
    /// `shape` as a tensor of I64, one axis. `source` says which tensor has a symbol as which axis.
    pub(super) fn shape(
        &mut self,
        builder: &mut Builder,
        shape: &Shape,
        source: &mut dyn FnMut(Symbol) -> Option<(Tensor, usize)>,
    ) -> Lowered<Tensor> {
        let mut pieces = Vec::with_capacity(shape.rank());
        for size in &shape.0 {
            pieces.push(self.size(builder, size, source)?);
        }
        match pieces.as_slice() {
            [one] => Ok(*one),
            pieces => Ok(builder.concat(pieces, 0)?),
        }
    }

    fn size(
        &mut self,
        builder: &mut Builder,
        size: &Dim,
        source: &mut dyn FnMut(Symbol) -> Option<(Tensor, usize)>,
    ) -> Lowered<Tensor> {
        if let Some(known) = self.known.get(size) {
            return Ok(*known);
        }
        let tensor = match (size.as_fixed(), size.as_symbol()) {
            (Some(number), _) => number_tensor(builder, number)?,
            (None, Some(symbol)) => read_off(builder, symbol, source)?,
            (None, None) => self.sum(builder, size, source)?,
        };
        self.known.insert(size.clone(), tensor);
        Ok(tensor)
    }

    fn sum(
        &mut self,
        builder: &mut Builder,
        size: &Dim,
        source: &mut dyn FnMut(Symbol) -> Option<(Tensor, usize)>,
    ) -> Lowered<Tensor> {
        let mut sum = None;
        for term in size.terms() {
            let mut product = None;
            for symbol in term.symbols {
                let factor = self.size(builder, &symbol.into(), source)?;
                product = Some(join(builder, Elementwise::Multiply, product, factor)?);
            }
            if term.coefficient != 1 || product.is_none() {
                let factor = self.size(builder, &Dim::fixed(term.coefficient), source)?;
                product = Some(join(builder, Elementwise::Multiply, product, factor)?);
            }
            if let Some(product) = product {
                sum = Some(join(builder, Elementwise::Add, sum, product)?);
            }
        }
        sum.ok_or_else(|| Failure::Graph("has a size without terms".to_owned()))
    }
}

fn join(
    builder: &mut Builder,
    op: Elementwise,
    so_far: Option<Tensor>,
    next: Tensor,
) -> Lowered<Tensor> {
    match so_far {
        None => Ok(next),
        Some(so_far) => Ok(builder.elementwise(op, so_far, next)?),
    }
}

fn number_tensor(builder: &mut Builder, number: i64) -> Lowered<Tensor> {
    let bytes = Constant::Owned(number.to_ne_bytes().to_vec());
    Ok(builder.constant(Type::I64, &[1], bytes)?)
}

fn read_off(
    builder: &mut Builder,
    symbol: Symbol,
    source: &mut dyn FnMut(Symbol) -> Option<(Tensor, usize)>,
) -> Lowered<Tensor> {
    let missing = || Failure::Graph(format!("has the size {symbol}, which no input has"));
    let (input, axis) = source(symbol).ok_or_else(missing)?;
    let shape = builder.shape(input)?;
    let axis = i32::try_from(axis).unwrap_or_default();
    let bytes = Constant::Owned(axis.to_ne_bytes().to_vec());
    let axis = builder.constant(Type::I32, &[1], bytes)?;
    Ok(builder.gather(shape, axis, 0)?)
}
