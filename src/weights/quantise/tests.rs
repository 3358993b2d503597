use proptest::prelude::*;

use super::*;

fn error(codes: Codes, values: &[f32], rounding: Rounding) -> (f16, Vec<i8>, f32) {
    let mut integers = vec![0; values.len()];
    let scale = codes.round(values, rounding, &mut integers);
    let error = values.iter().zip(&integers).map(|(value, &code)| {
        let error = value - scale.to_f32() * f32::from(code);
        error * error
    });
    let error = error.sum();
    (scale, integers, error)
}

/// A block of `Q4_0` as llama.cpp makes it: the extreme is code -8 times the scale.
fn q4_0(scale: f32) -> Vec<f32> {
    (0_i8..32)
        .map(|at| scale * (f32::from(at % 16) - 8.0))
        .collect()
}

#[test]
fn codes_that_fit_are_found_again_exactly() {
    let (scale, codes, error) = error(INT4, &q4_0(0.125), Rounding::LeastSquares);
    assert_eq!((scale.to_f32(), error), (0.125, 0.0));
    assert_eq!(codes[..3], [-8, -7, -6]);
    assert_eq!(codes[15], 7);
}

#[test]
fn a_block_with_a_negative_scale_loses_only_at_its_extreme() {
    // The same block mirrored needs the code 8, which there is not, or a negative scale, which
    // TensorRT refuses.
    let mirrored = q4_0(-0.125);
    let (_, _, searched) = error(INT4, &mirrored, Rounding::LeastSquares);
    let (_, _, plain) = error(INT4, &mirrored, Rounding::MaxAbs);
    assert!(searched > 0.0);
    assert!(searched <= 2.0 * 0.125 * 0.125, "{searched}");
    assert!(searched < plain, "{searched} {plain}");
}

#[test]
fn a_group_of_zeros_has_a_positive_scale() {
    for rounding in [Rounding::MaxAbs, Rounding::LeastSquares] {
        for codes in [INT4, INT8] {
            let (scale, integers, error) = error(codes, &[0.0; 64], rounding);
            assert!(scale > f16::ZERO);
            assert!(integers.iter().all(|&code| code == 0));
            assert_eq!(error, 0.0);
        }
    }
}

#[test]
fn an_outlier_is_clipped_where_the_others_gain_more() {
    let mut values: Vec<f32> = (0_u8..128)
        .map(|at| (f32::from(at) - 64.0) / 64.0)
        .collect();
    values[7] = 1.6;
    let (_, codes, searched) = error(INT4, &values, Rounding::LeastSquares);
    let (_, _, plain) = error(INT4, &values, Rounding::MaxAbs);
    assert_eq!(codes[7], 7);
    assert!(searched < plain, "{searched} {plain}");
}

proptest! {
    #[test]
    fn codes_are_in_range_and_the_search_is_never_worse(
        values in prop::collection::vec(-1.0e3_f32..1.0e3, 1..140),
        exponent in -12_i32..2,
    ) {
        let values: Vec<f32> = values.iter().map(|value| value * 10.0_f32.powi(exponent)).collect();
        for (codes, range) in [(INT4, -8..=7), (INT8, -127..=127)] {
            let (scale, integers, plain) = error(codes, &values, Rounding::MaxAbs);
            prop_assert!(scale > f16::ZERO && scale.is_finite());
            prop_assert!(integers.iter().all(|code| range.contains(code)));
            let (scale, integers, searched) = error(codes, &values, Rounding::LeastSquares);
            prop_assert!(scale > f16::ZERO && scale.is_finite());
            prop_assert!(integers.iter().all(|code| range.contains(code)));
            // The sums of squares are taken in another order there.
            prop_assert!(searched <= plain * 1.0001 + f32::MIN_POSITIVE, "{searched} {plain}");
        }
    }
}
