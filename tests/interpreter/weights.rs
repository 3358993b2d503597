//! Weights for the interpreter: stacked, quantised, laid out as their description says.

use std::collections::BTreeMap;
use std::ops::Range;

use enginewright::model::gguf::TensorType;
use enginewright::network::{
    DataType, Encoding, Layout, Part, TensorMeta, WeightError, WeightSource, WeightSpec,
};

use super::tensor::{Data, Tensor, round};

/// Tensors in memory: those of a fixture, or random ones.
#[derive(Clone, Debug, Default)]
pub struct InMemory(pub BTreeMap<String, (Vec<u64>, Vec<f32>)>);

impl WeightSource for InMemory {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        let (shape, _) = self.0.get(name)?;
        Some(TensorMeta {
            stored: TensorType::F32,
            shape: shape.clone(),
        })
    }

    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        let missing = || WeightError::Missing { name: name.into() };
        let (_, values) = self.0.get(name).ok_or_else(missing)?;
        let length = self.tensor(name).ok_or_else(missing)?.row_length();
        let at = |row: u64| usize::try_from(row * length).unwrap();
        into.extend_from_slice(&values[at(rows.start)..at(rows.end)]);
        Ok(())
    }
}

/// All rows of a weight, `[N, K]`.
fn stacked(spec: &WeightSpec, source: &dyn WeightSource) -> Vec<f32> {
    let mut all = Vec::new();
    for one in &spec.sources {
        let meta = source
            .tensor(&one.name)
            .unwrap_or_else(|| panic!("no {}", one.name));
        assert_eq!(
            (meta.rows(), meta.row_length()),
            (one.rows, one.row_length),
            "{}",
            one.name
        );
        source.read_f32(&one.name, 0..one.rows, &mut all).unwrap();
    }
    all
}

fn transposed<T: Copy>(values: &[T], rows: usize) -> Vec<T> {
    let columns = values.len() / rows;
    let from = |i: usize| values[i % rows * columns + i / rows];
    (0..values.len()).map(from).collect()
}

/// Symmetric rounding to integers of at most `most`, with one 16-bit scale for each `block` values.
fn quantised(values: &[f32], block: usize, most: f32) -> (Vec<i64>, Vec<f32>) {
    let mut scales: Vec<f32> = values
        .chunks(block)
        .map(|block| block.iter().fold(0.0_f32, |most, one| most.max(one.abs())) / most)
        .collect();
    round(&mut scales);
    let integer = |(i, value): (usize, &f32)| {
        let scale = scales[i / block];
        let unit = if scale == 0.0 { 0.0 } else { value / scale };
        #[expect(clippy::cast_possible_truncation, reason = "rounded and bounded")]
        let integer = unit.round().clamp(-most - 1.0, most) as i64;
        integer
    };
    (values.iter().enumerate().map(integer).collect(), scales)
}

/// One array of a weight; 16-bit numbers are rounded where `rounding`.
pub fn load(spec: &WeightSpec, part: Part, source: &dyn WeightSource, rounding: bool) -> Tensor {
    let sizes: Vec<usize> = spec
        .sizes(part)
        .iter()
        .map(|size| usize::try_from(*size).unwrap())
        .collect();
    let outputs = usize::try_from(spec.outputs()).unwrap();
    let inputs = usize::try_from(spec.inputs()).unwrap();
    let turned = spec.layout == Layout::Kn && sizes.len() == 2;
    let mut values = stacked(spec, source);
    let (block, most) = match spec.encoding {
        Encoding::F32 | Encoding::F16 => {
            if spec.encoding == Encoding::F16 && rounding {
                round(&mut values);
            }
            let values = if turned {
                transposed(&values, outputs)
            } else {
                values
            };
            return Tensor::floats(spec.dtype(part), sizes, values);
        }
        Encoding::Int8 => (inputs, 127.0),
        Encoding::Int4 { block } => (block as usize, 7.0),
    };
    let (integers, scales) = quantised(&values, block, most);
    match part {
        Part::Values => {
            let integers = if turned {
                transposed(&integers, outputs)
            } else {
                integers
            };
            Tensor::new(spec.dtype(part), sizes, Data::Whole(integers))
        }
        Part::Scales => {
            let scales = if turned {
                transposed(&scales, outputs)
            } else {
                scales
            };
            Tensor::floats(DataType::F16, sizes, scales)
        }
    }
}
