//! What drawing a token costs the processor, by the parameters that make a difference.

use std::time::Instant;

use enginewright::text::sampling::{Sampler, SamplingParams};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{Failure, books, say};

/// Draws that are timed.
const DRAWS: usize = 400;

/// Rows like a model's: most tokens far below a few.
fn rows(vocabulary: u32) -> Vec<Vec<f32>> {
    let mut source = SmallRng::seed_from_u64(5);
    let mut bell = move || {
        (0..6)
            .map(|_| source.random_range(-1.5_f32..1.5))
            .sum::<f32>()
    };
    (0..8)
        .map(|_| (0..vocabulary).map(|_| 2.5 * bell()).collect())
        .collect()
}

/// Microseconds a token, one line for each set of parameters.
pub fn all(vocabulary: u32) -> Result<(), Failure> {
    let rows = rows(vocabulary);
    let base = SamplingParams::default();
    let with = |temperature, top_k, top_p, min_p| SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        ..base.clone()
    };
    let cases = [
        ("greedy", with(0.0, 0, 1.0, 0.0)),
        ("temperature 1", with(1.0, 0, 1.0, 0.0)),
        ("temperature 0.8", with(0.8, 0, 1.0, 0.0)),
        ("top_k 40, top_p 0.9", with(0.8, 40, 0.9, 0.0)),
        ("top_p 0.95", with(0.8, 0, 0.95, 0.0)),
        ("min_p 0.05", with(0.8, 0, 1.0, 0.05)),
    ];
    for (what, params) in cases {
        let mut sampler = Sampler::new(params, &[])?;
        let mut times = Vec::with_capacity(DRAWS);
        let mut drawn = 0_u64;
        for row in rows.iter().cycle().take(DRAWS) {
            let begun = Instant::now();
            drawn += u64::from(sampler.sample(row, None)?);
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        say(&serde_json::json!({
            "step": "sampling", "what": what, "vocabulary": vocabulary,
            "microseconds": books::median(times), "sumOfTokens": drawn,
        }));
    }
    Ok(())
}
