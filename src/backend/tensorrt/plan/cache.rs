//! Where a prefix lies in the KV cache, and how it gets from one slot into another: one copy of
//! rows, whatever the number of layers.

use super::geometry::Geometry;

/// A copy of equal boxes of bytes within the KV cache: `planes` × `rows` × `width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxCopy {
    /// First byte read.
    pub from: u64,
    /// First byte written.
    pub to: u64,
    /// Bytes of a row that are copied.
    pub width: u64,
    /// Bytes from one row to the next.
    pub row_pitch: u64,
    /// Rows that are copied of each plane.
    pub rows: u64,
    /// Rows from one plane to the next.
    pub plane_rows: u64,
    /// Planes.
    pub planes: u64,
}

/// The copy of the first `tokens` tokens of slot `from` into slot `to`. A row is a KV head, a plane
/// a tensor of the cache.
pub const fn prefix(geometry: &Geometry, from: u32, to: u32, tokens: u32) -> BoxCopy {
    BoxCopy {
        from: from as u64 * geometry.slot_bytes(),
        to: to as u64 * geometry.slot_bytes(),
        width: tokens as u64 * geometry.token_bytes(),
        row_pitch: geometry.head_bytes(),
        rows: geometry.kv_heads as u64,
        plane_rows: geometry.slots as u64 * geometry.kv_heads as u64,
        planes: geometry.cache_tensors() as u64,
    }
}
