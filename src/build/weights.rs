//! The weights in the engine's encodings, in one file without a name, mapped: each is made when its turn
//! comes and lies on the disk until TensorRT reads it, so that the memory of a build does not grow with
//! the model on our side.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::network::{Graph, Part, WeightId, WeightSpec};
use crate::tensorrt::{Constant, MappedFile};

/// Every array begins at a multiple of this: more than any type needs.
const ALIGNMENT: u64 = 256;

/// Takes `bytes` that belong at an offset of an array.
pub type Take<'a> = dyn FnMut(Part, u64, &[u8]) -> std::io::Result<()> + 'a;
/// Makes one weight.
pub type Encode<'a, E> = dyn Fn(&WeightSpec, &mut Take<'_>) -> Result<(), E> + 'a;

/// Why the weights could not be laid down.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError<E: std::error::Error> {
    /// A weight could not be made.
    #[error(transparent)]
    Weight(E),
    /// It has another length than its description says.
    #[error("the weight `{name}` has {found} bytes of {part:?}, its description says {needed}")]
    Length {
        /// Which weight.
        name: String,
        /// Which of its arrays.
        part: Part,
        /// What was made.
        found: u64,
        /// What was described.
        needed: u64,
    },
    /// The file cannot be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Write {
        /// Where the file without a name is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Stopped from outside.
    #[error("the build was stopped")]
    Stopped,
}

/// All weights of a graph, encoded.
#[derive(Clone, Debug)]
pub struct EncodedWeights {
    file: Arc<MappedFile>,
    /// Offset and length of values and scales, by [`WeightId`].
    places: Vec<[(u64, u64); 2]>,
    bytes: u64,
}

impl EncodedWeights {
    /// Makes every weight of `graph` with `encode` and lays it into a file in `folder` that has no name,
    /// so that it is gone with this process, whatever ends it. `encode` hands on each byte of both arrays
    /// once. `done` gets the bytes so far and may stop.
    ///
    /// # Errors
    /// The first weight that cannot be made, or [`WeightsError::Write`].
    pub fn lay<E: std::error::Error>(
        graph: &Graph,
        folder: &Path,
        encode: &Encode<'_, E>,
        done: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, WeightsError<E>> {
        let failed = |source| WeightsError::Write {
            path: folder.to_owned(),
            source,
        };
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let (places, bytes) = places(graph);
        // A file of nothing cannot be mapped.
        file.set_len(bytes.max(1)).map_err(failed)?;
        let mut so_far = 0;
        for (spec, place) in graph.weights().iter().zip(&places) {
            let mut found = [0; 2];
            encode(spec, &mut |part, offset, bytes| {
                let (start, length) = place[index(part)];
                let end = offset.checked_add(bytes.len() as u64);
                if end.is_none_or(|end| end > length) {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                found[index(part)] += bytes.len() as u64;
                file.write_all_at(bytes, start + offset)
            })
            .map_err(WeightsError::Weight)?;
            for part in [Part::Values, Part::Scales] {
                let (found, needed) = (found[index(part)], place[index(part)].1);
                if found != needed {
                    return Err(WeightsError::Length {
                        name: spec.name.clone(),
                        part,
                        found,
                        needed,
                    });
                }
            }
            so_far += found.iter().sum::<u64>();
            if done(so_far).is_break() {
                return Err(WeightsError::Stopped);
            }
        }
        let mapped = MappedFile::of(&file).map_err(failed)?;
        Ok(Self {
            file: Arc::new(mapped),
            places,
            bytes: so_far,
        })
    }

    /// One array of a weight.
    pub fn get(&self, weight: WeightId, part: Part) -> Option<Constant> {
        let place = self.places.get(weight.index())?;
        let (offset, length) = place[index(part)];
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        Some(Constant::Mapped(Arc::clone(&self.file), offset, length))
    }

    /// All of it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the pages back that were read so far.
    pub fn release(&self) {
        self.file.release();
    }
}

/// Offset and length of values and scales of every weight, and the length of all.
fn places(graph: &Graph) -> (Vec<[(u64, u64); 2]>, u64) {
    let mut at = 0_u64;
    let mut place = |length: u64| {
        let start = at.next_multiple_of(ALIGNMENT);
        at = start + length;
        (start, length)
    };
    let places = graph.weights().iter().map(|spec| {
        let scales = if spec.encoding.has_scales() {
            spec.bytes(Part::Scales)
        } else {
            0
        };
        [place(spec.bytes(Part::Values)), place(scales)]
    });
    let places = places.collect();
    (places, at)
}

fn index(part: Part) -> usize {
    match part {
        Part::Values => 0,
        Part::Scales => 1,
    }
}
