//! A weight of the network as the bytes that the builder is given: the tensors it is made of stacked,
//! rounded to its number format, laid out, and handed on piece by piece.
//!
//! Values and scales come at their positions, so that the one who takes them may write them into a
//! buffer or a file; what is held here is a few rows, whatever the size of the weight.
//!
//! Bytes as TensorRT reads them: little-endian, row-major, two 4-bit integers in a byte with the first
//! one in the low half.

mod layout;

use std::ops::Range;

use half::f16;

use self::layout::{Elements, Placing};
use super::loss::Loss;
use super::quantise::{Codes, INT4, INT8, Rounding};
use super::tensors::to_usize;
use crate::network::{Encoding, Layout, Part, WeightError, WeightKind, WeightSource, WeightSpec};

/// Most weights that are held decoded, when a row is not longer: 4 MiB.
const CHUNK: u64 = 1 << 20;

/// How weights are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// How scales are chosen.
    pub rounding: Rounding,
    /// Threads that round; reading and laying out is done by the caller's.
    pub threads: std::num::NonZeroUsize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            rounding: Rounding::default(),
            threads: std::num::NonZeroUsize::MIN,
        }
    }
}

/// Why a weight cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A tensor could not be read.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A value that the format does not hold: not a number, or beyond 65,504 in 16 bits.
    #[error(
        "the weight `{name}` holds {value}, which {format} cannot: the model's file is damaged, or \
         the model needs 32 bits"
    )]
    Value {
        /// The weight.
        name: String,
        /// The value.
        value: f32,
        /// The format.
        format: &'static str,
    },
    /// A layout whose 4-bit rows do not start at whole bytes.
    #[error(
        "the weight `{name}` has {outputs} outputs, an odd number: 4-bit weights need [N, K] then"
    )]
    OddOutputs {
        /// The weight.
        name: String,
        /// Its outputs.
        outputs: u64,
    },
    /// The one who takes the bytes failed.
    #[error("writing the weight `{name}` failed: {source}")]
    Write {
        /// The weight.
        name: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// Takes `bytes` of `part` that belong at `offset`; called in no particular order, each byte once.
pub type Sink<'a> = dyn FnMut(Part, u64, &[u8]) -> std::io::Result<()> + 'a;

/// Encodes the weight `spec` from `source` into `sink`.
///
/// # Errors
/// When a tensor cannot be read or has another shape than the description, a value does not fit into
/// the format, or the sink fails.
pub fn encode(
    source: &dyn WeightSource,
    spec: &WeightSpec,
    options: EncodeOptions,
    sink: &mut Sink<'_>,
) -> Result<Loss, EncodeError> {
    check_shapes(source, spec)?;
    let write = |source| EncodeError::Write {
        name: spec.name.clone(),
        source,
    };
    let (outputs, inputs) = (spec.outputs(), spec.inputs());
    let four_bits = matches!(spec.encoding, Encoding::Int4 { .. });
    if four_bits && spec.layout == Layout::Kn && !outputs.is_multiple_of(2) {
        return Err(EncodeError::OddOutputs {
            name: spec.name.clone(),
            outputs,
        });
    }
    // Even, so that a piece of a 4-bit column is whole bytes.
    let step = (CHUNK / inputs.max(1)).max(2) / 2 * 2;
    let mut loss = Loss::default();
    let mut values = Vec::new();
    let mut piece = Piece::default();
    let mut first = 0;
    while first < outputs {
        let rows = first..outputs.min(first + step);
        read(source, spec, &rows, &mut values)?;
        check_values(spec, &values)?;
        piece.fill(spec, options, &values, &mut loss);
        piece.hand_on(spec, &rows, sink).map_err(write)?;
        first = rows.end;
    }
    Ok(loss)
}

/// [`encode`] into memory: `values` and `scales` as long as [`WeightSpec::bytes`] says.
///
/// # Errors
/// As [`encode`], and when one of the buffers is too short.
pub fn encode_into(
    source: &dyn WeightSource,
    spec: &WeightSpec,
    options: EncodeOptions,
    values: &mut [u8],
    scales: &mut [u8],
) -> Result<Loss, EncodeError> {
    encode(source, spec, options, &mut |part, offset, bytes| {
        let target = match part {
            Part::Values => &mut *values,
            Part::Scales => &mut *scales,
        };
        let start = to_usize(offset);
        let target = start
            .checked_add(bytes.len())
            .and_then(|end| target.get_mut(start..end))
            .ok_or(std::io::ErrorKind::WriteZero)?;
        target.copy_from_slice(bytes);
        Ok(())
    })
}

fn check_shapes(source: &dyn WeightSource, spec: &WeightSpec) -> Result<(), EncodeError> {
    for one in &spec.sources {
        let Some(meta) = source.tensor(&one.name) else {
            return Err(WeightError::Missing {
                name: one.name.clone(),
            }
            .into());
        };
        if (meta.rows(), meta.row_length()) != (one.rows, one.row_length) {
            return Err(WeightError::Shape {
                name: one.name.clone(),
                found: meta.shape,
                needed: vec![one.rows, one.row_length],
            }
            .into());
        }
    }
    Ok(())
}

/// Reads rows of the stack of all sources.
fn read(
    source: &dyn WeightSource,
    spec: &WeightSpec,
    rows: &Range<u64>,
    values: &mut Vec<f32>,
) -> Result<(), EncodeError> {
    values.clear();
    let mut start = 0;
    for one in &spec.sources {
        let length = match spec.kind {
            WeightKind::Vector => one.row_length,
            WeightKind::Linear | WeightKind::Table => one.rows,
        };
        let wanted = rows.start.max(start)..rows.end.min(start + length);
        if wanted.start < wanted.end {
            match spec.kind {
                // A vector is one row: read whole, the part that is wanted kept.
                WeightKind::Vector => {
                    let from = values.len();
                    source.read_f32(&one.name, 0..1, values)?;
                    values.truncate(from + to_usize(wanted.end - start));
                    values.drain(from..from + to_usize(wanted.start - start));
                }
                WeightKind::Linear | WeightKind::Table => {
                    let wanted = wanted.start - start..wanted.end - start;
                    source.read_f32(&one.name, wanted, values)?;
                }
            }
        }
        start += length;
    }
    Ok(())
}

fn check_values(spec: &WeightSpec, values: &[f32]) -> Result<(), EncodeError> {
    let (most, format) = match spec.encoding {
        Encoding::F32 => (f32::MAX, "a network"),
        Encoding::F16 | Encoding::Int8 | Encoding::Int4 { .. } => {
            (f16::MAX.to_f32(), "16-bit floating point")
        }
    };
    match values
        .iter()
        .find(|value| value.is_nan() || value.abs() > most)
    {
        None => Ok(()),
        Some(&value) => Err(EncodeError::Value {
            name: spec.name.clone(),
            value,
            format,
        }),
    }
}

/// Some rows, rounded but not laid out.
#[derive(Debug, Default)]
struct Piece {
    /// One integer a byte; or, without scales, nothing.
    codes: Vec<i8>,
    /// Scales, row after row; or the values themselves, in 16 bits.
    halves: Vec<f16>,
    /// Values in 32 bits.
    floats: Vec<f32>,
    /// Bytes on their way to the sink.
    bytes: Vec<u8>,
}

impl Piece {
    fn fill(&mut self, spec: &WeightSpec, options: EncodeOptions, values: &[f32], loss: &mut Loss) {
        self.codes.clear();
        self.halves.clear();
        self.floats.clear();
        let (codes, group) = match spec.encoding {
            Encoding::F32 => {
                self.floats.extend(values);
                loss.elements += values.len() as u64;
                loss.exact += values.len() as u64;
                return;
            }
            Encoding::F16 => {
                self.halves
                    .extend(values.iter().map(|&value| f16::from_f32(value)));
                for (&value, &rounded) in values.iter().zip(&self.halves) {
                    loss.count(value, rounded);
                }
                return;
            }
            Encoding::Int8 => (INT8, to_usize(spec.inputs())),
            Encoding::Int4 { block } => (INT4, block as usize),
        };
        self.codes.resize(values.len(), 0);
        self.halves.resize(values.len() / group.max(1), f16::ZERO);
        let all = Groups {
            values,
            codes: &mut self.codes,
            scales: &mut self.halves,
        };
        loss.add(&all.round(codes, group.max(1), options));
    }

    /// Lays out and hands on rows `rows` of the stack.
    fn hand_on(
        &mut self,
        spec: &WeightSpec,
        rows: &Range<u64>,
        sink: &mut Sink<'_>,
    ) -> std::io::Result<()> {
        let Self {
            codes,
            halves,
            floats,
            bytes,
        } = self;
        let mut place = |part, elements: Elements<'_>| {
            let columns = spec.sizes(part).iter().product::<u64>() / spec.outputs().max(1);
            let place = Placing {
                spec,
                part,
                columns: columns.max(1),
                rows,
            };
            place.hand_on(elements, bytes, sink)
        };
        match spec.encoding {
            Encoding::F32 => place(Part::Values, Elements::Floats(floats)),
            Encoding::F16 => place(Part::Values, Elements::Halves(halves)),
            Encoding::Int8 => {
                place(Part::Values, Elements::Bytes(codes))?;
                place(Part::Scales, Elements::Halves(halves))
            }
            Encoding::Int4 { .. } => {
                place(Part::Values, Elements::Nibbles(codes))?;
                place(Part::Scales, Elements::Halves(halves))
            }
        }
    }
}

/// Groups of weights with their codes and scales.
struct Groups<'a> {
    values: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f16],
}

impl Groups<'_> {
    fn round(self, codes: Codes, group: usize, options: EncodeOptions) -> Loss {
        let each = self.scales.len().div_ceil(options.threads.get()).max(1);
        let parts = self
            .values
            .chunks(each * group)
            .zip(self.codes.chunks_mut(each * group))
            .zip(self.scales.chunks_mut(each));
        let parts = parts.map(|((values, codes), scales)| Groups {
            values,
            codes,
            scales,
        });
        let mut loss = Loss::default();
        if options.threads.get() == 1 {
            for part in parts {
                loss.add(&part.round_here(codes, group, options.rounding));
            }
            return loss;
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = parts
                .map(|part| scope.spawn(move || part.round_here(codes, group, options.rounding)))
                .collect();
            for one in running {
                // A panic there is a bug here; the scope passes it on when it ends.
                if let Ok(part) = one.join() {
                    loss.add(&part);
                }
            }
        });
        loss
    }

    fn round_here(self, codes: Codes, group: usize, rounding: Rounding) -> Loss {
        let mut loss = Loss::default();
        let groups = self
            .values
            .chunks(group)
            .zip(self.codes.chunks_mut(group))
            .zip(self.scales);
        for ((values, integers), scale) in groups {
            *scale = codes.round(values, rounding, integers);
            for (&value, &code) in values.iter().zip(&*integers) {
                let rounded = f16::from_f32(scale.to_f32() * f32::from(code));
                loss.count(value, rounded);
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests;
