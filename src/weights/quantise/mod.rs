//! Rounding of weights to integers with a shared scale. Decides scales and codes of one group of
//! weights; knows no tensor and no file.
//!
//! Symmetric, as TensorRT wants it: `value = scale × code`, no zero point, scales strictly positive
//! (`NvInfer.h`, `IDequantizeLayer`). A scale is 16-bit floating point and is rounded *before* the
//! codes are chosen, so that its own rounding costs nothing more.

use half::f16;

/// How the scale of a group is chosen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Rounding {
    /// The largest magnitude becomes the largest code: nothing is clipped.
    MaxAbs,
    /// Of a fixed list of scales, the one with the least squared error, refined once by least squares
    /// over the codes. Clips a few outliers where the many others gain more. A group that is already
    /// such codes times a scale (`Q4_0` whose extreme is negative) is found again exactly.
    #[default]
    LeastSquares,
}

/// Integers of one width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Codes {
    lowest: f32,
    highest: f32,
    /// The largest magnitude over each of these is a scale to try; the first is [`Rounding::MaxAbs`]'s.
    divisors: &'static [f32],
}

/// -127 to 127: TensorRT's documentation leaves -128 out for weights.
pub(super) const INT8: Codes = Codes {
    lowest: -127.0,
    highest: 127.0,
    divisors: &[
        127.0, 129.0, 131.0, 134.0, 137.0, 140.0, 145.0, 150.0, 160.0, 175.0, 195.0, 220.0,
    ],
};

/// -8 to 7.
pub(super) const INT4: Codes = Codes {
    lowest: -8.0,
    highest: 7.0,
    divisors: &[
        7.0, 7.25, 7.5, 7.75, 8.0, 8.25, 8.5, 8.75, 9.0, 9.25, 9.5, 10.0, 10.5, 11.0, 12.0, 13.0,
    ],
};

/// Adding and subtracting this rounds to the nearest whole number, ties to even, for magnitudes
/// below 2^22: one addition that every processor does in vectors.
const ROUND: f32 = 12_582_912.0;

impl Codes {
    fn code(self, value: f32, inverse: f32) -> f32 {
        (value * inverse).clamp(self.lowest, self.highest) + ROUND - ROUND
    }

    /// Chooses a scale for `values` and writes their codes; the scale is positive and finite when
    /// all values are finite and below [`largest`].
    pub(super) fn round(self, values: &[f32], rounding: Rounding, codes: &mut [i8]) -> f16 {
        let magnitude = values
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let scale = match rounding {
            Rounding::MaxAbs => positive(magnitude / self.highest),
            Rounding::LeastSquares => self.least_squares(values, magnitude),
        };
        let inverse = scale.to_f32().recip();
        for (code, &value) in codes.iter_mut().zip(values) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number within the range"
            )]
            let rounded = self.code(value, inverse) as i8;
            *code = rounded;
        }
        scale
    }

    fn least_squares(self, values: &[f32], magnitude: f32) -> f16 {
        let mut best = (positive(magnitude / self.highest), f32::INFINITY);
        for divisor in self.divisors {
            let scale = positive(magnitude / divisor);
            let error = self.squared_error(values, scale);
            if error < best.1 {
                best = (scale, error);
            }
        }
        let refined = self.refined(values, best.0);
        if self.squared_error(values, refined) < best.1 {
            return refined;
        }
        best.0
    }

    fn squared_error(self, values: &[f32], scale: f16) -> f32 {
        let scale = scale.to_f32();
        let inverse = scale.recip();
        let error = |value: f32| value - scale * self.code(value, inverse);
        // Four sums: additions of one sum wait for each other.
        let (fours, rest) = values.as_chunks::<4>();
        let mut sums = [0.0_f32; 4];
        for four in fours {
            for (sum, &value) in sums.iter_mut().zip(four) {
                let error = error(value);
                *sum += error * error;
            }
        }
        let rest: f32 = rest.iter().map(|&value| error(value) * error(value)).sum();
        sums.iter().sum::<f32>() + rest
    }

    /// The scale that is best for the codes that `scale` gives.
    fn refined(self, values: &[f32], scale: f16) -> f16 {
        let inverse = scale.to_f32().recip();
        let (mut products, mut squares) = (0.0, 0.0);
        for &value in values {
            let code = self.code(value, inverse);
            products += value * code;
            squares += code * code;
        }
        if squares > 0.0 {
            positive(products / squares)
        } else {
            scale
        }
    }
}

/// As a 16-bit scale that is never zero: TensorRT wants them strictly positive.
fn positive(scale: f32) -> f16 {
    f16::from_f32(scale).max(f16::from_bits(1))
}

#[cfg(test)]
mod tests;
