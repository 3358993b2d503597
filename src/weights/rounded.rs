//! A model with the values that its weights have after rounding: what an engine will compute with,
//! for measuring what that costs. Decides nothing about how the bytes are laid out.

use std::ops::Range;

use half::f16;

use super::loss::Loss;
use super::quantise::{INT4, INT8, Rounding};
use super::tensors::to_usize;
use crate::network::{Encoding, TensorMeta, WeightError, WeightSource};

/// Rounds what it reads from another source: the matrices of the blocks' linear layers to `encoding`,
/// the embedding and the output layer to 16 bits, norms and biases not at all.
pub struct Rounded<'a> {
    source: &'a dyn WeightSource,
    encoding: Encoding,
    rounding: Rounding,
}

impl<'a> Rounded<'a> {
    /// The model `source` in an engine of that number format.
    pub fn new(source: &'a dyn WeightSource, encoding: Encoding, rounding: Rounding) -> Self {
        Self {
            source,
            encoding,
            rounding,
        }
    }

    /// Number format of the tensor called `name`.
    fn encoding_of(&self, name: &str, meta: &TensorMeta) -> Encoding {
        match meta.shape.len() {
            2 if name.starts_with("blk.") => self.encoding,
            2 => Encoding::F16,
            _ => Encoding::F32,
        }
    }

    /// What rounding costs in the tensor `name`.
    ///
    /// # Errors
    /// As [`WeightSource::read_f32`].
    pub fn loss(&self, name: &str) -> Result<Loss, WeightError> {
        let rows = self.source.tensor(name).map_or(0, |meta| meta.rows());
        let (mut values, mut rounded) = (Vec::new(), Vec::new());
        let mut loss = Loss::default();
        for row in 0..rows {
            values.clear();
            rounded.clear();
            self.source.read_f32(name, row..row + 1, &mut values)?;
            self.read_f32(name, row..row + 1, &mut rounded)?;
            for (&value, &rounded) in values.iter().zip(&rounded) {
                loss.count(value, f16::from_f32(rounded));
            }
        }
        Ok(loss)
    }
}

impl WeightSource for Rounded<'_> {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        self.source.tensor(name)
    }

    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        let first = into.len();
        self.source.read_f32(name, rows, into)?;
        let Some(meta) = self.source.tensor(name) else {
            return Ok(());
        };
        let values = into.get_mut(first..).unwrap_or_default();
        let (codes, group) = match self.encoding_of(name, &meta) {
            Encoding::F32 => return Ok(()),
            Encoding::F16 => {
                for value in values {
                    *value = f16::from_f32(*value).to_f32();
                }
                return Ok(());
            }
            Encoding::Int8 => (INT8, to_usize(meta.row_length())),
            Encoding::Int4 { block } => (INT4, block as usize),
        };
        let mut integers = vec![0; group.max(1)];
        for group in values.chunks_mut(group.max(1)) {
            let scale = codes.round(group, self.rounding, &mut integers).to_f32();
            for (value, &code) in group.iter_mut().zip(&integers) {
                *value = f16::from_f32(scale * f32::from(code)).to_f32();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ramp;

    impl WeightSource for Ramp {
        fn tensor(&self, name: &str) -> Option<TensorMeta> {
            let shape = if name.ends_with("norm.weight") {
                vec![64]
            } else {
                vec![3, 64]
            };
            Some(TensorMeta {
                stored: crate::model::gguf::TensorType::F32,
                shape,
            })
        }

        fn read_f32(
            &self,
            _: &str,
            rows: Range<u64>,
            into: &mut Vec<f32>,
        ) -> Result<(), WeightError> {
            for row in rows {
                let row = f32::from(u8::try_from(row).unwrap());
                into.extend((0..64_u8).map(|at| f32::from(at) * 0.017 - 0.3 + row));
            }
            Ok(())
        }
    }

    fn read(encoding: Encoding, name: &str) -> Vec<f32> {
        let mut values = vec![9.0];
        Rounded::new(&Ramp, encoding, Rounding::default())
            .read_f32(name, 1..3, &mut values)
            .unwrap();
        assert_eq!((values.remove(0), values.len()), (9.0, 128));
        values
    }

    #[test]
    fn only_linear_layers_are_rounded_to_integers() {
        let four = Encoding::Int4 { block: 32 };
        let distinct = |values: &[f32]| {
            let mut bits: Vec<_> = values.iter().map(|value| value.to_bits()).collect();
            bits.sort_unstable();
            bits.dedup();
            bits.len()
        };
        assert!(distinct(&read(four, "blk.0.ffn_up.weight")[..32]) <= 16);
        assert_eq!(distinct(&read(four, "token_embd.weight")[..32]), 32);
        let mut norm = Vec::new();
        let rounded = Rounded::new(&Ramp, four, Rounding::default());
        rounded
            .read_f32("output_norm.weight", 0..1, &mut norm)
            .unwrap();
        assert_eq!(norm[1], 0.017 - 0.3);
    }

    #[test]
    fn the_loss_is_that_of_the_encoder() {
        use crate::network::{Layout, Source, WeightKind, WeightSpec};

        let name = "blk.0.ffn_up.weight";
        for encoding in [Encoding::F16, Encoding::Int8, Encoding::Int4 { block: 64 }] {
            let spec = WeightSpec {
                name: "up".into(),
                kind: WeightKind::Linear,
                sources: vec![Source {
                    name: name.into(),
                    rows: 3,
                    row_length: 64,
                }],
                layout: Layout::Nk,
                encoding,
            };
            let options = super::super::EncodeOptions::default();
            let encoded = super::super::encode(&Ramp, &spec, options, &mut |_, _, _| Ok(()));
            let rounded = Rounded::new(&Ramp, encoding, Rounding::default());
            assert_eq!(rounded.loss(name).unwrap(), encoded.unwrap());
        }
    }
}
