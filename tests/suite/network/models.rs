//! The tiny models of `tests/fixtures/networks`: facts, generated weights, recorded logits.

use std::path::Path;

use enginewright::model::ModelFacts;
use enginewright::network::{
    Config, Encoding, FACTORS, Form, Llama3Scaling, Options, WeightKind, describe, llama3_factors,
};
use serde::Deserialize;

use crate::interpreter::InMemory;

/// Every recorded model: one for each variant of the architectures.
pub const ALL: [&str; 5] = ["llama3", "smollm2", "mistral", "qwen2", "qwen3"];

/// Tokens that a slot holds in these tests.
pub const CAPACITY: u32 = 32;
/// Tokens of one run.
pub const CHUNK: u32 = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Scaling {
    #[serde(rename = "factor")]
    factor: f64,
    #[serde(rename = "low_freq_factor")]
    low_freq_factor: f64,
    #[serde(rename = "high_freq_factor")]
    high_freq_factor: f64,
    #[serde(rename = "original_max_position_embeddings")]
    original_context: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Recorded {
    #[serde(rename = "recordedWith")]
    _with: String,
    facts: ModelFacts,
    llama3_scaling: Option<Scaling>,
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

pub struct Model {
    pub facts: ModelFacts,
    pub config: Config,
    pub weights: InMemory,
    pub tokens: Vec<u32>,
    /// Logits of each token, computed by transformers in 64 bits.
    pub logits: Vec<Vec<f32>>,
}

/// The model called `name`.
pub fn model(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let Recorded {
        _with: _,
        facts,
        llama3_scaling,
        tokens,
        logits,
    } = serde_json::from_str(&text).unwrap();
    let mut weights = InMemory::default();
    if let Some(scaling) = llama3_scaling {
        let scaling = Llama3Scaling {
            factor: scaling.factor,
            low_freq_factor: scaling.low_freq_factor,
            high_freq_factor: scaling.high_freq_factor,
            original_context: scaling.original_context,
        };
        let factors = llama3_factors(facts.rope.base.into(), facts.head_length, scaling);
        let length = u64::from(facts.head_length / 2);
        weights.0.insert(FACTORS.into(), (vec![length], factors));
    }
    let config = Config::new(&facts, &weights).unwrap();
    let options = Options::serving(Form::Split, Encoding::F16, 1, CAPACITY, CHUNK);
    for weight in describe(&config, &options).unwrap().weights() {
        for source in &weight.sources {
            let shape = match weight.kind {
                WeightKind::Vector => vec![source.row_length],
                WeightKind::Linear | WeightKind::Table => vec![source.rows, source.row_length],
            };
            let values = generated(
                &source.name,
                source.rows * source.row_length,
                source.row_length,
            );
            weights.0.insert(source.name.clone(), (shape, values));
        }
    }
    Model {
        facts,
        config,
        weights,
        tokens,
        logits,
    }
}

/// The same numbers as `weight()` of `reference.py`.
pub fn generated(name: &str, count: u64, row_length: u64) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "24 bits fit, and the scale is rounded to 32 bits there too"
    )]
    let of = |index: u64| {
        let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let unit = ((x >> 40).cast_signed() - (1 << 23)) as f32 / (1 << 23) as f32;
        if name.ends_with("norm.weight") {
            1.0 + unit * 0.25
        } else if name.rsplit('.').next() == Some("bias") {
            unit * 0.5
        } else if name == "token_embd.weight" {
            unit
        } else {
            unit * (3.0 / row_length as f64).sqrt() as f32
        }
    };
    (1..=count).map(of).collect()
}

/// `‖found - expected‖ / ‖expected‖`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |value: f64| value * value;
    let pairs = found.iter().zip(expected);
    let error: f64 = pairs
        .map(|(a, b)| square(f64::from(*a) - f64::from(*b)))
        .sum();
    let size: f64 = expected.iter().map(|one| square(f64::from(*one))).sum();
    (error / size).sqrt()
}
