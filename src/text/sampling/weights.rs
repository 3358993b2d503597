//! Arithmetic over whole rows, written so that the compiler makes vector code of it and so that
//! every machine gets the same bits: only additions and multiplications in a fixed order.

/// Independent sums; a fixed number, so that the order of additions is the same everywhere.
const LANES: usize = 16;
/// Logits whose weights are added up in single precision: with more, the error would be seen.
pub(super) const PART: usize = 1024;

/// The greatest number of a row; minus infinity where there is none. NaN is passed over.
pub(super) fn greatest(row: &[f32]) -> f32 {
    let greater = |one: f32, other: f32| if one > other { one } else { other };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*logit, *lane);
        }
    }
    // By halves, which are vectors again; one after the other takes longer than a short row.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = greater(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    rest.iter()
        .fold(lanes[0], |best, logit| greater(*logit, best))
}

/// Writes `exp((logit - greatest) / temperature)` of every logit into `into`: 1 for the greatest, 0
/// for NaN and for what is too small for an `f32`.
pub(super) fn weigh(row: &[f32], greatest: f32, temperature: f32, into: &mut Vec<f32>) {
    into.clear();
    if let Some(factor) = factor(greatest, temperature) {
        into.extend(row.iter().map(|logit| exp((logit - greatest) * factor)));
    } else {
        into.extend(row.iter().map(|logit| f32::from(*logit == greatest)));
    }
}

/// What a logit's distance from the greatest is multiplied with; `None`: only the greatest has a weight.
fn factor(greatest: f32, temperature: f32) -> Option<f32> {
    let factor = 1.0 / temperature;
    // Next to infinity all others are impossible.
    (factor.is_finite() && greatest < f32::INFINITY).then_some(factor)
}

/// The sums of the weights of each [`PART`] of a row, without writing the weights down.
pub(super) fn masses(row: &[f32], greatest: f32, temperature: f32) -> Vec<f64> {
    let factor = factor(greatest, temperature);
    let parts = row.chunks(PART);
    parts
        .map(|part| match factor {
            Some(factor) => mass(part, greatest, factor),
            None => part.iter().map(|logit| f64::from(*logit == greatest)).sum(),
        })
        .collect()
}

fn mass(part: &[f32], greatest: f32, factor: f32) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = part.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp((logit - greatest) * factor);
        }
    }
    for (lane, logit) in lanes.iter_mut().zip(rest) {
        *lane += exp((logit - greatest) * factor);
    }
    lanes.iter().copied().map(f64::from).sum()
}

/// The weight of one logit, as [`weigh`] computes it.
pub(super) fn weight(logit: f32, greatest: f32, temperature: f32) -> f32 {
    if logit == greatest {
        return 1.0;
    }
    factor(greatest, temperature).map_or(0.0, |factor| exp((logit - greatest) * factor))
}

/// `e` to the power of `x`, for `x` up to 0, with a relative error below 2⁻²²; 0 for NaN and for
/// results below the smallest normal number.
#[inline]
fn exp(x: f32) -> f32 {
    const SMALLEST: f32 = -87.0;
    // Adding 1.5 · 2²³ rounds to a whole number and leaves it in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x > SMALLEST { x } else { SMALLEST };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = bounded - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Taylor's series; the rest is at most ln 2 / 2.
    let mut series = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    if x > SMALLEST { series * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        let mut x = 0.0_f32;
        while x > -87.0 {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}) is off by {error}");
            x -= 0.003_7;
        }
        for tiny in [-88.0, -1e30, f32::NEG_INFINITY, f32::NAN] {
            assert!(exp(tiny) == 0.0);
        }
        assert!((exp(0.0) - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn greatest_passes_over_nan_in_any_place() {
        for place in 0..40 {
            let mut row = vec![-1.0; 40];
            row[place] = f32::NAN;
            row[39 - place] = if place == 20 { -0.5 } else { 2.0 };
            let expected = if place == 20 { -0.5 } else { 2.0 };
            assert!((greatest(&row) - expected).abs() < f32::EPSILON);
        }
        assert!(greatest(&[f32::NAN]) == f32::NEG_INFINITY && greatest(&[]) == f32::NEG_INFINITY);
    }
}
