//! A model as a `Q4_0` file would hold it: what another program's 4-bit blocks lose when they become
//! ours can then be measured on real weights.

use std::ops::Range;

use enginewright::network::{TensorMeta, WeightError, WeightSource};
use half::f16;

/// Rounds the linear layers of another source as ggml's `quantize_row_q4_0_ref` does.
pub struct AsQ4_0<'a>(pub &'a dyn WeightSource);

impl WeightSource for AsQ4_0<'_> {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        self.0.tensor(name)
    }

    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        let first = into.len();
        self.0.read_f32(name, rows, into)?;
        if name.starts_with("blk.") && !name.contains("norm") {
            into[first..].chunks_mut(32).for_each(block);
        }
        Ok(())
    }
}

/// The value with the largest magnitude becomes code -8, so the scale has the opposite sign.
fn block(values: &mut [f32]) {
    let extreme = values.iter().fold(0.0_f32, |extreme, &value| {
        if value.abs() > extreme.abs() {
            value
        } else {
            extreme
        }
    });
    let scale = extreme / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    let scale = f16::from_f32(scale).to_f32();
    for value in values {
        let code = (*value * inverse + 8.5).trunc().clamp(0.0, 15.0);
        *value = scale * (code - 8.0);
    }
}
