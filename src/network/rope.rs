//! Rotary position embedding: frequencies, factors and tables.
//!
//! Pair `j` of a head (elements `j` and `j + length / 2`) turns by `position × base^(-2j / length)`,
//! divided by the pair's factor where the model has factors (Llama 3.1 and later), and by the factor of a
//! linear scaling.

use std::f64::consts::PI;

use super::config::ConfigError;
use crate::model::{Rope, RopeScaling};

/// The tensor with the factors that frequencies are divided by, `head_length / 2` of them.
pub const FACTORS: &str = "rope_freqs.weight";

/// Parameters of Llama 3's scaling, as `rope_scaling` in a checkpoint's `config.json` states them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// `factor`: what long wavelengths are stretched by.
    pub factor: f64,
    /// `low_freq_factor`.
    pub low_freq_factor: f64,
    /// `high_freq_factor`.
    pub high_freq_factor: f64,
    /// `original_max_position_embeddings`.
    pub original_context: f64,
}

/// The factors that Llama 3's scaling amounts to: the contents of [`FACTORS`] in a GGUF file.
///
/// Source: `_compute_llama3_parameters` of transformers and `convert_hf_to_gguf.py` of llama.cpp.
pub fn llama3_factors(base: f64, head_length: u32, scaling: Llama3Scaling) -> Vec<f32> {
    let Llama3Scaling {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_context,
    } = scaling;
    let of_pair = |frequency: f64| {
        let wavelength = 2.0 * PI / frequency;
        if wavelength < original_context / high_freq_factor {
            1.0
        } else if wavelength > original_context / low_freq_factor {
            factor
        } else {
            let smooth = (original_context / wavelength - low_freq_factor)
                / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "as the files store it")]
    let narrow = |factor: f64| factor as f32;
    unscaled(base, head_length)
        .map(|frequency| narrow(of_pair(frequency)))
        .collect()
}

fn unscaled(base: f64, head_length: u32) -> impl Iterator<Item = f64> {
    let pairs = head_length / 2;
    (0..pairs).map(move |pair| base.powf(-f64::from(pair) / f64::from(pairs)))
}

/// Radians per position of each pair.
pub(super) fn frequencies(rope: &Rope, factors: &[f32]) -> Result<Vec<f64>, ConfigError> {
    let wrong = |problem: String| Err(ConfigError::Positions { problem });
    let pairs = rope.dimensions as usize / 2;
    if rope.has_factors && factors.len() != pairs {
        return wrong(format!("{pairs} pairs with {} factors", factors.len()));
    }
    if let Some(factor) = factors
        .iter()
        .find(|factor| !(factor.is_finite() && **factor > 0.0))
    {
        return wrong(format!("divided by the factor {factor}"));
    }
    let stretch = match rope.scaling {
        RopeScaling::None => 1.0,
        RopeScaling::Linear { factor } => f64::from(factor),
        RopeScaling::Yarn => return wrong("scaled by YaRN, which engines do not compute".into()),
    };
    let factor = |pair: usize| factors.get(pair).map_or(1.0, |factor| f64::from(*factor));
    let scaled = |(pair, frequency): (usize, f64)| frequency / (factor(pair) * stretch);
    let unscaled = unscaled(f64::from(rope.base), rope.dimensions);
    Ok(unscaled.enumerate().map(scaled).collect())
}

/// Cosines and sines of `positions` positions, each `[positions, pairs]`.
pub(super) fn tables(frequencies: &[f64], positions: u32) -> (Vec<f32>, Vec<f32>) {
    #[expect(clippy::cast_possible_truncation, reason = "at most 1")]
    let narrow = |value: f64| value as f32;
    (0..positions)
        .flat_map(|position| frequencies.iter().map(move |one| f64::from(position) * one))
        .map(|angle| (narrow(angle.cos()), narrow(angle.sin())))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling, has_factors: bool) -> Rope {
        Rope {
            base: 10_000.0,
            dimensions: 8,
            has_factors,
            scaling,
        }
    }

    #[test]
    fn frequencies_fall_from_one_by_the_base() {
        let found = frequencies(&rope(RopeScaling::None, false), &[]).unwrap();
        for (found, expected) in found.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{found}");
        }
        let halved = frequencies(&rope(RopeScaling::Linear { factor: 2.0 }, false), &[]).unwrap();
        assert!((halved[1] - 0.05).abs() < 1e-12);
    }

    #[test]
    fn factors_must_be_there_and_sensible() {
        let with = |factors: &[f32]| frequencies(&rope(RopeScaling::None, true), factors);
        assert!((with(&[1.0, 1.0, 2.0, 8.0]).unwrap()[3] - 0.000_125).abs() < 1e-12);
        for factors in [
            &[1.0][..],
            &[1.0, 1.0, 0.0, 1.0],
            &[1.0, 1.0, f32::NAN, 1.0],
        ] {
            assert!(with(factors).is_err());
        }
        let yarn = frequencies(&rope(RopeScaling::Yarn, false), &[]).unwrap_err();
        assert!(yarn.to_string().contains("CPU back end"), "{yarn}");
    }

    /// Llama 3.1 8B: `rope_freqs.weight` as llama.cpp's converter writes it begins with ones and ends
    /// with the factor; in between it rises.
    #[test]
    fn llama3_leaves_short_wavelengths_and_stretches_long_ones() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        };
        let factors = llama3_factors(500_000.0, 128, scaling);
        assert_eq!(factors.len(), 64);
        assert_eq!((factors[0], factors[63]), (1.0, 8.0));
        assert!(factors.is_sorted());
        let between = factors.iter().filter(|one| **one > 1.0 && **one < 8.0);
        assert_eq!(between.count(), 6);
    }
}
