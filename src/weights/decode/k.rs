//! "K" encodings: blocks of 256 elements, made of groups of 16 or 32 with small integer scales of
//! their own. Source: `block_q2_K` and its siblings in ggml-common.h.

use super::half;

/// Bytes of a block: scales and minima (4 bits each), 2-bit codes, scale, scale of the minima.
pub(super) const Q2_K: usize = 16 + 64 + 4;
/// Bytes of a block: third bits, 2-bit codes, 6-bit scales, scale.
pub(super) const Q3_K: usize = 32 + 64 + 12 + 2;
/// Bytes of a block: scale, scale of the minima, 6-bit scales and minima, nibbles.
pub(super) const Q4_K: usize = 4 + 12 + 128;
/// Bytes of a block: scale, scale of the minima, 6-bit scales and minima, fifth bits, nibbles.
pub(super) const Q5_K: usize = 4 + 12 + 32 + 128;
/// Bytes of a block: nibbles, upper two bits, 8-bit scales, scale.
pub(super) const Q6_K: usize = 128 + 64 + 16 + 2;

/// The two bits of element `at` of group `group` of 32: 32 bytes hold four groups.
fn pair(bytes: &[u8], group: usize, at: usize) -> u8 {
    bytes[group / 4 * 32 + at] >> (group % 4 * 2) & 3
}

/// The nibble of element `at` of group `group` of 32: 32 bytes hold two groups.
fn nibble(bytes: &[u8], group: usize, at: usize) -> u8 {
    bytes[group / 2 * 32 + at] >> (group % 2 * 4) & 0xF
}

pub(super) fn q2_k(block: &[u8; Q2_K], out: &mut [f32; 256]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (index, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = scale * f32::from(scales[index] & 0xF);
        let minimum = minimum * f32::from(scales[index] >> 4);
        for (at, value) in values.iter_mut().enumerate() {
            let code = pair(codes, index / 2, index % 2 * 16 + at);
            *value = scale * f32::from(code) - minimum;
        }
    }
}

pub(super) fn q3_k(block: &[u8; Q3_K], out: &mut [f32; 256]) {
    let (thirds, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let all = half(block, 108);
    for (index, values) in out.chunks_exact_mut(16).enumerate() {
        let low = scales[index % 8] >> (index / 8 * 4) & 0xF;
        let high = scales[8 + index % 4] >> (index / 4 * 2) & 3;
        let scale = all * (f32::from(low | high << 4) - 32.0);
        for (at, value) in values.iter_mut().enumerate() {
            let group = index / 2;
            let at = index % 2 * 16 + at;
            // The offset is subtracted where the third bit is not set.
            let offset = if thirds[at] >> group & 1 == 1 {
                0.0
            } else {
                4.0
            };
            *value = scale * (f32::from(pair(codes, group, at)) - offset);
        }
    }
}

/// Scale and minimum of group `group` of 8, 6 bits each, from 12 bytes.
fn scale_and_minimum(bytes: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (bytes[group] & 0x3F, bytes[group + 4] & 0x3F)
    } else {
        (
            bytes[group + 4] & 0xF | bytes[group - 4] >> 2 & 0x30,
            bytes[group + 4] >> 4 | bytes[group] >> 2 & 0x30,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

pub(super) fn q4_k(block: &[u8; Q4_K], out: &mut [f32; 256]) {
    let (all, minima) = (half(block, 0), half(block, 2));
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (all * scale, minima * minimum);
        for (at, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(nibble(&block[16..], group, at)) - minimum;
        }
    }
}

pub(super) fn q5_k(block: &[u8; Q5_K], out: &mut [f32; 256]) {
    let (all, minima) = (half(block, 0), half(block, 2));
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], group);
        let (scale, minimum) = (all * scale, minima * minimum);
        for (at, value) in values.iter_mut().enumerate() {
            let fifth = (block[16 + at] >> group & 1) << 4;
            let code = nibble(&block[48..], group, at) | fifth;
            *value = scale * f32::from(code) - minimum;
        }
    }
}

pub(super) fn q6_k(block: &[u8; Q6_K], out: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let all = half(block, 208);
    for (index, values) in out.chunks_exact_mut(16).enumerate() {
        let scale = all * f32::from(scales[index].cast_signed());
        for (at, value) in values.iter_mut().enumerate() {
            let group = index / 2;
            let at = index % 2 * 16 + at;
            // 64 bytes hold four groups: the low nibbles of both halves, then the high ones.
            let byte = low[group / 4 * 64 + group % 2 * 32 + at];
            let nibble = byte >> (group % 4 / 2 * 4) & 0xF;
            let code = nibble | pair(high, group, at) << 4;
            *value = scale * (f32::from(code) - 32.0);
        }
    }
}
