//! Rows to bytes: which element follows which, and where the bytes belong.

use std::ops::Range;

use half::f16;

use super::Sink;
use crate::network::{Layout, Part, WeightKind, WeightSpec};
use crate::weights::tensors::to_usize;

/// Elements of one part, row after row.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    Floats(&'a [f32]),
    Halves(&'a [f16]),
    Bytes(&'a [i8]),
    /// Codes that become two to a byte.
    Nibbles(&'a [i8]),
}

/// Where rows of one part go.
pub(super) struct Placing<'a> {
    pub(super) spec: &'a WeightSpec,
    pub(super) part: Part,
    /// Elements of a row.
    pub(super) columns: u64,
    pub(super) rows: &'a Range<u64>,
}

impl Placing<'_> {
    pub(super) fn hand_on(
        &self,
        elements: Elements<'_>,
        bytes: &mut Vec<u8>,
        sink: &mut Sink<'_>,
    ) -> std::io::Result<()> {
        let bits = u64::from(self.spec.dtype(self.part).bits());
        let count = to_usize(self.rows.end - self.rows.start);
        let columns = to_usize(self.columns);
        let transposed = self.spec.layout == Layout::Kn
            && self.spec.kind != WeightKind::Vector
            && self.spec.sizes(self.part).len() > 1;
        if !transposed {
            bytes.clear();
            pack(elements, 0, 1, count * columns, bytes);
            return sink(self.part, self.rows.start * self.columns * bits / 8, bytes);
        }
        for column in 0..self.columns {
            bytes.clear();
            pack(elements, to_usize(column), columns, count, bytes);
            let element = column * self.spec.outputs() + self.rows.start;
            sink(self.part, element * bits / 8, bytes)?;
        }
        Ok(())
    }
}

/// Appends the bytes of `count` elements, from `start` on, each `step` after the one before.
fn pack(elements: Elements<'_>, start: usize, step: usize, count: usize, bytes: &mut Vec<u8>) {
    fn every<T: Copy>(
        all: &[T],
        start: usize,
        step: usize,
        count: usize,
    ) -> impl Iterator<Item = T> {
        all.iter().skip(start).step_by(step).take(count).copied()
    }
    match elements {
        Elements::Floats(all) => {
            bytes.extend(every(all, start, step, count).flat_map(f32::to_le_bytes));
        }
        Elements::Halves(all) => {
            bytes.extend(every(all, start, step, count).flat_map(f16::to_le_bytes));
        }
        Elements::Bytes(all) => {
            bytes.extend(every(all, start, step, count).map(i8::cast_unsigned));
        }
        Elements::Nibbles(all) => {
            let mut codes = every(all, start, step, count).map(|code| code.cast_unsigned() & 0xF);
            while let Some(low) = codes.next() {
                bytes.push(low | codes.next().unwrap_or(0) << 4);
            }
        }
    }
}
