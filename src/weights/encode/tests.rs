use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::gguf::TensorType;
use crate::network::{Source, TensorMeta};

/// Tensors in memory.
#[derive(Default)]
struct Memory(BTreeMap<String, (Vec<u64>, Vec<f32>)>);

impl WeightSource for Memory {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        self.0.get(name).map(|(shape, _)| TensorMeta {
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
        let (shape, values) = &self.0[name];
        let length = *shape.last().unwrap();
        into.extend(&values[to_usize(rows.start * length)..to_usize(rows.end * length)]);
        Ok(())
    }
}

/// A matrix for each count of rows, with values from `value(row of the stack, column)`.
fn stack(rows: &[u64], columns: u64, value: impl Fn(u64, u64) -> f32) -> (Memory, Vec<Source>) {
    let mut memory = Memory::default();
    let mut sources = Vec::new();
    let mut first = 0;
    for (number, &rows) in rows.iter().enumerate() {
        let name = format!("part.{number}");
        let values = (0..rows * columns)
            .map(|at| value(first + at / columns, at % columns))
            .collect();
        memory.0.insert(name.clone(), (vec![rows, columns], values));
        sources.push(Source {
            name,
            rows,
            row_length: columns,
        });
        first += rows;
    }
    (memory, sources)
}

fn linear(sources: Vec<Source>, layout: Layout, encoding: Encoding) -> WeightSpec {
    WeightSpec {
        name: "layer.0.qkv".into(),
        kind: WeightKind::Linear,
        sources,
        layout,
        encoding,
    }
}

fn bytes(memory: &Memory, spec: &WeightSpec, options: EncodeOptions) -> (Vec<u8>, Vec<u8>, Loss) {
    let length = |part| to_usize(spec.bytes(part));
    let mut values = vec![0xAA; length(Part::Values)];
    let scales = if spec.encoding.has_scales() {
        length(Part::Scales)
    } else {
        0
    };
    let mut scales = vec![0xAA; scales];
    let loss = encode_into(memory, spec, options, &mut values, &mut scales).unwrap();
    (values, scales, loss)
}

fn halves(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&two| f16::from_le_bytes(two).to_f32())
        .collect()
}

/// The weight that the bytes stand for, `[N, K]`.
fn decoded(spec: &WeightSpec, values: &[u8], scales: &[u8]) -> Vec<f32> {
    let (n, k) = (to_usize(spec.outputs()), to_usize(spec.inputs()));
    let scales = halves(scales);
    let at = |row: usize, column: usize, columns: usize| match spec.layout {
        Layout::Nk => row * columns + column,
        Layout::Kn => column * n + row,
    };
    let element = |row: usize, column: usize| match spec.encoding {
        Encoding::F32 => f32::from_le_bytes(values.as_chunks().0[at(row, column, k)]),
        Encoding::F16 => halves(values)[at(row, column, k)],
        Encoding::Int8 => f32::from(values[at(row, column, k)].cast_signed()) * scales[row],
        Encoding::Int4 { block } => {
            let index = at(row, column, k);
            let nibble = values[index / 2] >> (index % 2 * 4) & 0xF;
            let code = (nibble << 4).cast_signed() >> 4;
            let block = block as usize;
            f32::from(code) * scales[at(row, column / block, k / block)]
        }
    };
    (0..n * k).map(|at| element(at / k, at % k)).collect()
}

#[test]
fn the_first_of_two_4_bit_integers_is_the_low_half() {
    let (memory, sources) = stack(&[2], 32, |row, column| match (row, column) {
        (0, 0) | (1, 31) => -8.0,
        (0, 1) => 7.0,
        (0, 2) => 1.0,
        (1, 0) => 3.0,
        _ => 0.0,
    });
    let encoding = Encoding::Int4 { block: 32 };
    let spec = linear(sources.clone(), Layout::Nk, encoding);
    let (values, scales, loss) = bytes(&memory, &spec, EncodeOptions::default());
    assert_eq!(halves(&scales), [1.0, 1.0]);
    assert_eq!(values[..3], [0x78, 0x01, 0x00]);
    assert_eq!((values[16], values[31]), (0x03, 0x80));
    assert_eq!((loss.relative(), loss.exact, loss.elements), (0.0, 64, 64));
    // Transposed, the two outputs of one input are neighbours.
    let spec = linear(sources, Layout::Kn, encoding);
    let (values, _, _) = bytes(&memory, &spec, EncodeOptions::default());
    assert_eq!(values[..3], [0x38, 0x07, 0x01]);
    assert_eq!(values[31], 0x80);
}

#[test]
fn what_the_file_has_otherwise_is_an_error() {
    let (memory, mut sources) = stack(&[2], 32, |_, _| 1.0);
    sources[0].rows = 3;
    let spec = linear(sources.clone(), Layout::Nk, Encoding::F16);
    let error = encode_into(&memory, &spec, EncodeOptions::default(), &mut [], &mut []);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("[2, 32]") && error.contains("[3, 32]"),
        "{error}"
    );
    sources[0].name = "none".into();
    let spec = linear(sources, Layout::Nk, Encoding::F16);
    let error = encode_into(&memory, &spec, EncodeOptions::default(), &mut [], &mut []);
    assert!(error.unwrap_err().to_string().contains("`none`"));
}

#[test]
fn values_that_16_bits_cannot_hold_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY, -70_000.0] {
        let (memory, sources) = stack(&[2], 32, |row, _| if row == 1 { bad } else { 1.0 });
        for encoding in [Encoding::F16, Encoding::Int8, Encoding::Int4 { block: 32 }] {
            let spec = linear(sources.clone(), Layout::Nk, encoding);
            let error = encode(&memory, &spec, EncodeOptions::default(), &mut |_, _, _| {
                Ok(())
            });
            let error = error.unwrap_err().to_string();
            assert!(error.contains("layer.0.qkv"), "{error}");
        }
    }
}

#[test]
fn a_buffer_that_is_too_short_and_a_sink_that_fails_are_errors() {
    let (memory, sources) = stack(&[2], 32, |_, _| 1.0);
    let spec = linear(sources, Layout::Nk, Encoding::F16);
    let mut short = vec![0; to_usize(spec.bytes(Part::Values)) - 1];
    let error = encode_into(
        &memory,
        &spec,
        EncodeOptions::default(),
        &mut short,
        &mut [],
    );
    assert!(matches!(error, Err(EncodeError::Write { .. })), "{error:?}");
}

#[test]
fn an_odd_number_of_outputs_has_no_transposed_4_bit_layout() {
    let (memory, sources) = stack(&[3], 32, |_, _| 1.0);
    let spec = linear(sources, Layout::Kn, Encoding::Int4 { block: 32 });
    let error = encode(&memory, &spec, EncodeOptions::default(), &mut |_, _, _| {
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("odd number"));
}

#[test]
fn vectors_stand_behind_each_other() {
    let mut memory = Memory::default();
    let mut sources = Vec::new();
    for (name, values) in [
        ("q", vec![1.0, 2.0, 3.0]),
        ("k", vec![4.0]),
        ("v", vec![5.0, 6.0]),
    ] {
        sources.push(Source {
            name: name.into(),
            rows: 1,
            row_length: values.len() as u64,
        });
        memory
            .0
            .insert(name.into(), (vec![values.len() as u64], values));
    }
    let spec = WeightSpec {
        kind: WeightKind::Vector,
        ..linear(sources, Layout::Nk, Encoding::F16)
    };
    let (values, _, _) = bytes(&memory, &spec, EncodeOptions::default());
    assert_eq!(halves(&values), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_weight_larger_than_a_piece_is_whole_and_what_is_held_is_bounded() {
    // 3 pieces of rows, the last one not full; a fifth of the piece's size of each is handed on.
    let columns = CHUNK / 64;
    let (memory, sources) = stack(&[100, 50], columns, |row, column| {
        f32::from(u16::try_from((row * 7 + column) % 255).unwrap()) - 127.0
    });
    for layout in [Layout::Nk, Layout::Kn] {
        let spec = linear(sources.clone(), layout, Encoding::Int8);
        let (values, scales, loss) = bytes(&memory, &spec, EncodeOptions::default());
        assert_eq!(loss.relative(), 0.0);
        assert!(halves(&scales).iter().all(|&scale| scale == 1.0));
        let at = |row: u64, column: u64| match layout {
            Layout::Nk => row * columns + column,
            Layout::Kn => column * 150 + row,
        };
        for (row, column) in [
            (0, 0),
            (63, 5),
            (64, 0),
            (99, 9),
            (100, 0),
            (149, columns - 1),
        ] {
            let expected = i16::try_from((row * 7 + column) % 255).unwrap() - 127;
            let found = values[to_usize(at(row, column))].cast_signed();
            assert_eq!(i16::from(found), expected, "{layout:?} {row} {column}");
        }
        let mut most = 0;
        encode(
            &memory,
            &spec,
            EncodeOptions::default(),
            &mut |_, _, piece| {
                most = most.max(piece.len());
                Ok(())
            },
        )
        .unwrap();
        assert!(most <= to_usize(CHUNK), "{most}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn bytes_stand_for_the_weights_in_every_layout_and_with_any_number_of_threads(
        rows in prop::collection::vec(1_u64..6, 1..4),
        blocks in 1_u64..4,
        seed in 0_u64..1000,
        threads in 2_usize..5,
    ) {
        let rows: Vec<u64> = rows.iter().map(|rows| rows * 2).collect();
        let columns = blocks * 32;
        let value = |row: u64, column: u64| {
            let mixed = (seed + row * 131 + column * 31).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
            (f32::from(u16::try_from(mixed).unwrap()) - 32768.0) / 3000.0
        };
        let (memory, sources) = stack(&rows, columns, value);
        let all = rows.iter().sum::<u64>();
        let expected: Vec<f32> = (0..all * columns).map(|at| value(at / columns, at % columns)).collect();
        for (encoding, most) in [
            (Encoding::F32, 0.0),
            (Encoding::F16, 0.005),
            (Encoding::Int8, 0.06),
            (Encoding::Int4 { block: 32 }, 4.5),
        ] {
            let mut both = Vec::new();
            for layout in [Layout::Nk, Layout::Kn] {
                let spec = linear(sources.clone(), layout, encoding);
                let (values, scales, loss) = bytes(&memory, &spec, EncodeOptions::default());
                let parallel = EncodeOptions {
                    threads: std::num::NonZeroUsize::new(threads).unwrap(),
                    ..EncodeOptions::default()
                };
                let (same, scales_too, loss_too) = bytes(&memory, &spec, parallel);
                prop_assert_eq!((&values, &scales), (&same, &scales_too));
                prop_assert!((loss.squared_error - loss_too.squared_error).abs() <= 1e-9 * loss.squares);
                prop_assert_eq!(loss.elements, all * columns);
                let found = decoded(&spec, &values, &scales);
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert!((found - expected).abs() <= most, "{found} {expected}");
                }
                both.push(found);
            }
            prop_assert_eq!(&both[0], &both[1]);
        }
    }
}
