//! Elements that stand for themselves.

pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (value, &four) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(four);
    }
}

pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (value, &two) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = half::f16::from_le_bytes(two).to_f32();
    }
}

/// The upper half of a 32-bit number.
pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, &[low, high]) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes([0, 0, low, high]);
    }
}
