//! What an engine takes of the device's memory beside its weights, and where the pieces lie that
//! the back end allocates itself.

use super::geometry::Geometry;

/// Alignment of every piece: what TensorRT asks of addresses, and of activation memory.
pub const ALIGNMENT: u64 = 256;

/// Bytes of the integers of a pass, and where each kind begins. One block, so that one copy brings
/// all of them to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// First byte of the tokens.
    pub tokens: u64,
    /// First byte of the positions.
    pub positions: u64,
    /// First byte of what the slots hold.
    pub lengths: u64,
    /// First byte of the numbers of real tokens.
    pub counts: u64,
    /// First byte of the rows that become logits.
    pub gather: u64,
    /// All of it.
    pub bytes: u64,
}

impl Inputs {
    /// The layout for passes of at most `tokens` tokens in `rows` sequences.
    pub const fn new(tokens: u32, rows: u32) -> Self {
        let cells = align(4 * tokens as u64 * rows as u64);
        let column = align(4 * rows as u64);
        Self {
            tokens: 0,
            positions: cells,
            lengths: 2 * cells,
            counts: 2 * cells + column,
            gather: 2 * cells + 2 * column,
            bytes: 2 * cells + 3 * column,
        }
    }
}

/// What the back end allocates, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Keys and values of all slots.
    pub cache: u64,
    /// New keys and values of one step, in the split form.
    pub fresh: u64,
    /// Inputs and logits of one step.
    pub exchange: u64,
    /// TensorRT's scratch space for one step, as the engine says.
    pub activations: u64,
}

impl Need {
    /// The account for an engine whose hungriest profile needs `activations` bytes.
    pub fn new(geometry: &Geometry, activations: u64) -> Self {
        Self {
            cache: geometry.cache_bytes(),
            fresh: largest(geometry, |tokens, rows| geometry.fresh_bytes(tokens, rows)),
            exchange: largest(geometry, |tokens, rows| Inputs::new(tokens, rows).bytes)
                + logits_bytes(geometry)
                + align(4 * u64::from(geometry.capacity)),
            activations: align(activations),
        }
    }

    /// What is needed for a step, beside the cache.
    pub const fn step(&self) -> u64 {
        self.fresh
            .saturating_add(self.exchange)
            .saturating_add(self.activations)
    }
}

/// Bytes of the logits of one step.
pub const fn logits_bytes(geometry: &Geometry) -> u64 {
    align(4 * geometry.slots as u64 * geometry.vocabulary as u64)
}

/// The largest value of `bytes(tokens, rows)` over the profiles: a chunk is alone where it can be.
fn largest(geometry: &Geometry, bytes: impl Fn(u32, u32) -> u64) -> u64 {
    let rows = if geometry.chunks_alone() {
        1
    } else {
        geometry.slots
    };
    let chunk = bytes(geometry.longest_chunk(), rows);
    chunk.max(bytes(1, geometry.slots))
}

/// The next multiple of [`ALIGNMENT`].
pub const fn align(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}
