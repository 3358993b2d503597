//! Elements that stand for themselves.

pub(super) fn f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    *out = [f32::from_le_bytes(*bytes)];
}

pub(super) fn f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    *out = [half::f16::from_le_bytes(*bytes).to_f32()];
}

/// The upper half of a 32-bit number.
pub(super) fn bf16(&[low, high]: &[u8; 2], out: &mut [f32; 1]) {
    *out = [f32::from_le_bytes([0, 0, low, high])];
}
