//! The tensors of a model, by name, whatever files they lie in: where each one is, how it is
//! encoded, in which order its rows stand, and reading rows of it in bounded memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use super::decode::Encoding;
use super::digest::Watch;
use super::files::SourceFile;
use crate::model::gguf::TensorType;
use crate::network::{TensorMeta, WeightError};

/// Most bytes that are read at once, when a row is not longer.
const CHUNK: u64 = 1 << 20;

thread_local! {
    /// Encoded rows on their way to being decoded. One for each thread that reads, kept: a model has
    /// hundreds of tensors, and each is read in many pieces.
    static ENCODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// In which order a tensor's rows stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As in the model.
    Natural,
    /// Each head's rows are interleaved, as the converter of llama.cpp leaves those of queries and
    /// keys of the architecture `llama`: row `2 i + j` of a head in the file is row `j n / 2 + i` of
    /// the head in the model, with `n` rows in a head. The file's order suits a rotation of
    /// neighbours, the model's one of the two halves.
    Interleaved {
        /// Rows of one head: even, and a divisor of the tensor's rows.
        head: u64,
    },
}

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// In a file.
    File {
        /// Number of the file.
        file: usize,
        /// Position of the first byte.
        offset: u64,
        /// How the elements are encoded.
        encoding: Encoding,
        /// Order of the rows.
        order: RowOrder,
    },
    /// Not in a file: computed from the configuration.
    Computed(Vec<f32>),
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    /// Sizes, outermost axis first: `[rows, row length]`, or `[length]` of a vector.
    pub(super) shape: Vec<u64>,
    pub(super) place: Place,
}

/// Rows of a file, and bytes of each. A vector is as many rows as it has elements: they are
/// reordered as a matrix's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows<'a> {
    name: &'a str,
    file: usize,
    offset: u64,
    order: RowOrder,
    bytes: u64,
    /// Bytes of all rows.
    total: u64,
}

impl Tensor {
    /// What others are told of it.
    pub(super) fn meta(&self) -> TensorMeta {
        let encoding = self.encoding().unwrap_or(Encoding::F32);
        TensorMeta {
            stored: TensorType::from_name(encoding.name()).unwrap_or(TensorType::F32),
            shape: self.shape.clone(),
        }
    }

    /// How the elements are encoded; `None` where they are computed.
    pub(super) fn encoding(&self) -> Option<Encoding> {
        match self.place {
            Place::File { encoding, .. } => Some(encoding),
            Place::Computed(_) => None,
        }
    }

    fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }

    /// Bytes in the file; 0 where it is computed.
    pub(super) fn bytes(&self) -> u64 {
        let elements = self.shape.iter().product();
        self.encoding()
            .and_then(|encoding| encoding.bytes(elements))
            .unwrap_or(0)
    }

    fn rows<'a>(&self, name: &'a str) -> Option<Rows<'a>> {
        let Place::File {
            file,
            offset,
            encoding,
            order,
        } = self.place
        else {
            return None;
        };
        let length = match self.shape.as_slice() {
            [_] => 1,
            [_, rest @ ..] => rest.iter().product(),
            [] => 0,
        };
        // Rows are whole blocks: checked when the directory was made.
        let bytes = encoding.bytes(length)?;
        Some(Rows {
            name,
            file,
            offset,
            order,
            bytes,
            total: self.bytes(),
        })
    }
}

/// Files and the tensors in them.
#[derive(Debug)]
pub(super) struct Tensors {
    pub(super) files: Vec<SourceFile>,
    pub(super) by_name: BTreeMap<String, Tensor>,
    /// Compares what is read with digests.
    pub(super) watch: Option<Watch>,
}

impl Tensors {
    fn get(&self, name: &str) -> Result<&Tensor, WeightError> {
        self.by_name.get(name).ok_or_else(|| WeightError::Missing {
            name: name.to_owned(),
        })
    }

    /// Appends rows to `into`, decoded and in the model's order.
    pub(super) fn read(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        let tensor = self.get(name)?;
        let meta = tensor.meta();
        check_rows(name, &meta, &rows)?;
        let elements = to_usize((rows.end - rows.start) * meta.row_length());
        match &tensor.place {
            Place::Computed(values) => {
                let start = to_usize(rows.start * meta.row_length());
                into.extend(values.iter().skip(start).take(elements));
                Ok(())
            }
            &Place::File { encoding, .. } => {
                into.reserve_exact(elements);
                self.encoded(name, rows, &mut |bytes| {
                    let from = into.len();
                    let elements = bytes.len() / encoding.block_bytes() * encoding.block_elements();
                    into.resize(from + elements, 0.0);
                    encoding.decode(bytes, into.get_mut(from..).unwrap_or_default());
                })
            }
        }
    }

    /// Gives the encoded rows, in the model's order, to `sink`, a piece of whole rows at a time.
    pub(super) fn encoded(
        &self,
        name: &str,
        rows: Range<u64>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), WeightError> {
        let tensor = self.get(name)?;
        let meta = tensor.meta();
        check_rows(name, &meta, &rows)?;
        let Some(place) = tensor.rows(name) else {
            return Ok(());
        };
        let rows = if tensor.is_vector() {
            rows.start * meta.row_length()..rows.end * meta.row_length()
        } else {
            rows
        };
        let mut buffer = ENCODED.take();
        let done = match place.order {
            RowOrder::Natural => self.in_order(place, rows, &mut buffer, sink),
            RowOrder::Interleaved { head } => self.by_head(place, rows, head, &mut buffer, sink),
        };
        ENCODED.set(buffer);
        done.map_err(|source| WeightError::Io {
            name: name.to_owned(),
            source,
        })
    }

    fn piece(
        &self,
        place: Rows<'_>,
        rows: &Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        buffer.resize(to_usize((rows.end - rows.start) * place.bytes), 0);
        let start = rows.start * place.bytes;
        let file = self.files.get(place.file);
        let file = file.ok_or(std::io::ErrorKind::NotFound)?;
        file.read_at(place.offset + start, buffer)?;
        match &self.watch {
            Some(watch) => watch.read(place.name, start, buffer, place.total),
            None => Ok(()),
        }
    }

    fn in_order(
        &self,
        place: Rows<'_>,
        rows: Range<u64>,
        buffer: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let step = (CHUNK / place.bytes.max(1)).max(1);
        let mut first = rows.start;
        while first < rows.end {
            let end = rows.end.min(first + step);
            self.piece(place, &(first..end), buffer)?;
            sink(buffer);
            first = end;
        }
        Ok(())
    }

    fn by_head(
        &self,
        place: Rows<'_>,
        rows: Range<u64>,
        head: u64,
        buffer: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let mut first = rows.start / head * head;
        while first < rows.end {
            self.piece(place, &(first..first + head), buffer)?;
            for row in rows.start.max(first)..rows.end.min(first + head) {
                let at = to_usize(interleaved(row - first, head) * place.bytes);
                sink(&buffer[at..at + to_usize(place.bytes)]);
            }
            first += head;
        }
        Ok(())
    }
}

/// Where row `row` of a head with `head` rows stands among the head's rows in the file.
fn interleaved(row: u64, head: u64) -> u64 {
    let half = head / 2;
    row % half * 2 + row / half
}

fn check_rows(name: &str, meta: &TensorMeta, rows: &Range<u64>) -> Result<(), WeightError> {
    if rows.start <= rows.end && rows.end <= meta.rows() {
        return Ok(());
    }
    Err(WeightError::Rows {
        name: name.to_owned(),
        asked: rows.clone(),
        rows: meta.rows(),
    })
}

/// Lengths within a file that was opened; on the 64-bit machines this runs on they fit.
pub(super) fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_is_a_permutation_that_moves_the_halves_apart() {
        let order: Vec<u64> = (0..8).map(|row| interleaved(row, 8)).collect();
        assert_eq!(order, [0, 2, 4, 6, 1, 3, 5, 7]);
    }
}
