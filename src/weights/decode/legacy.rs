//! Blocks of 32 elements with one 16-bit scale, some with a 16-bit minimum.
//!
//! Elements 0 to 15 are the low, 16 to 31 the high nibbles of 16 bytes. Source: `block_q4_0` and its
//! siblings in ggml-common.h.

use super::half;

/// Bytes of a block: scale, nibbles.
pub(super) const Q4_0: usize = 2 + 16;
/// Bytes of a block: scale, minimum, nibbles.
pub(super) const Q4_1: usize = 4 + 16;
/// Bytes of a block: scale, fifth bits, nibbles.
pub(super) const Q5_0: usize = 2 + 4 + 16;
/// Bytes of a block: scale, minimum, fifth bits, nibbles.
pub(super) const Q5_1: usize = 4 + 4 + 16;
/// Bytes of a block: scale, bytes.
pub(super) const Q8_0: usize = 2 + 32;

/// The nibble of element `index`, of 16 bytes.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    if index < 16 {
        bytes[index] & 0xF
    } else {
        bytes[index - 16] >> 4
    }
}

/// The fifth bit of element `index`, at its place.
fn fifth(bits: &[u8], index: usize) -> u8 {
    (bits[index / 8] >> (index % 8) & 1) << 4
}

pub(super) fn q4_0(block: &[u8; Q4_0], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (index, value) in out.iter_mut().enumerate() {
        *value = scale * (f32::from(nibble(&block[2..], index)) - 8.0);
    }
}

pub(super) fn q4_1(block: &[u8; Q4_1], out: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (index, value) in out.iter_mut().enumerate() {
        *value = scale * f32::from(nibble(&block[4..], index)) + minimum;
    }
}

pub(super) fn q5_0(block: &[u8; Q5_0], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (index, value) in out.iter_mut().enumerate() {
        let code = nibble(&block[6..], index) | fifth(&block[2..6], index);
        *value = scale * (f32::from(code) - 16.0);
    }
}

pub(super) fn q5_1(block: &[u8; Q5_1], out: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (index, value) in out.iter_mut().enumerate() {
        let code = nibble(&block[8..], index) | fifth(&block[4..8], index);
        *value = scale * f32::from(code) + minimum;
    }
}

pub(super) fn q8_0(block: &[u8; Q8_0], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (value, &code) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(code.cast_signed()) * scale;
    }
}
