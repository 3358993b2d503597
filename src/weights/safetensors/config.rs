//! A model's `config.json`: the same facts that a GGUF header gives.
//!
//! What would change the network in a way that nobody here honours is refused. Defaults are those of
//! the classes `LlamaConfig`, `MistralConfig`, `Qwen2Config` and `Qwen3Config` of `transformers`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Architecture, ModelError, ModelFacts, Rope, RopeScaling};

/// Beyond any model; keeps later arithmetic far from overflow.
const MAX_LAYERS: u32 = 512;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_CONTEXT: u32 = 1 << 24;
const MAX_HEAD_LENGTH: u32 = 1024;

/// The entries that are read.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    hidden_size: Option<u32>,
    num_hidden_layers: Option<u32>,
    num_attention_heads: Option<u32>,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    intermediate_size: Option<u32>,
    vocab_size: Option<u32>,
    max_position_embeddings: Option<u32>,
    tie_word_embeddings: Option<bool>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Where `transformers` 5 writes both of the above.
    rope_parameters: Option<RawRope>,
    attention_bias: Option<bool>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<Value>,
}

#[derive(Clone, Default, Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u32>,
}

/// What the network is, as far as the configuration says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The facts; without the bytes, which only the files have.
    pub facts: ModelFacts,
    /// Llama 3's factors of the rotation's frequencies, one for each pair of a head's dimensions.
    pub frequency_factors: Option<Vec<f32>>,
}

fn entry(key: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Entry {
        key: format!("config.json: {key}"),
        problem: problem.into(),
    }
}

/// A whole number that must be there, within bounds.
fn count(key: &str, value: Option<u32>, most: u32) -> Result<u32, ModelError> {
    match value {
        Some(value) if (1..=most).contains(&value) => Ok(value),
        Some(value) => Err(entry(key, format!("is {value}, it must be 1 to {most}"))),
        None => Err(entry(key, "is missing: fetch the model's repository whole")),
    }
}

/// A number within bounds, as 32 bits hold it.
fn number(key: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<f32, ModelError> {
    if !range.contains(&value) {
        let (least, most) = (range.start(), range.end());
        return Err(entry(
            key,
            format!("is {value}, it must be {least} to {most}"),
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "networks compute with 32 bits"
    )]
    Ok(value as f32)
}

/// Reads the configuration; `name` is the model's name, which it does not hold.
pub(super) fn read(bytes: &[u8], name: &str) -> Result<Config, ModelError> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
        entry(
            "the file",
            format!("is not a model's configuration: {error}"),
        )
    })?;
    let architecture = architecture(&raw)?;
    refuse(&raw, architecture)?;
    let heads = count("num_attention_heads", raw.num_attention_heads, MAX_WIDTH)?;
    let kv_heads = count(
        "num_key_value_heads",
        raw.num_key_value_heads.or(Some(heads)),
        heads,
    )?;
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("is {kv_heads}, which does not divide the {heads} heads");
        return Err(entry("num_key_value_heads", problem));
    }
    let hidden = count("hidden_size", raw.hidden_size, MAX_WIDTH)?;
    let head_length = head_length(&raw, architecture, hidden, heads)?;
    let rope = rope(&raw);
    let base = rope.rope_theta.unwrap_or(10_000.0);
    let base = number("rope_theta", base, 1.0..=1e12)?;
    let frequency_factors = frequency_factors(&rope, base, head_length)?;
    let scaling = scaling(&rope)?;
    let attention_biases = raw
        .attention_bias
        .unwrap_or(architecture == Architecture::Qwen2);
    let epsilon = raw.rms_norm_eps.unwrap_or(1e-6);
    Ok(Config {
        facts: ModelFacts {
            name: name.to_owned(),
            architecture,
            layers: count("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS)?,
            heads,
            kv_heads,
            head_length,
            hidden,
            feed_forward: count("intermediate_size", raw.intermediate_size, MAX_WIDTH)?,
            vocabulary: count("vocab_size", raw.vocab_size, MAX_CONTEXT)?,
            context: count(
                "max_position_embeddings",
                raw.max_position_embeddings,
                MAX_CONTEXT,
            )?,
            tied_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            rope: Rope {
                base,
                dimensions: head_length,
                has_factors: frequency_factors.is_some(),
                scaling,
            },
            rms_epsilon: number("rms_norm_eps", epsilon, 0.0..=1.0)?,
            attention_biases,
            bytes_by_type: BTreeMap::new(),
        },
        frequency_factors,
    })
}

fn architecture(raw: &Raw) -> Result<Architecture, ModelError> {
    match raw.model_type.as_deref() {
        // Mistral is Llama's network.
        Some("llama" | "mistral") => Ok(Architecture::Llama),
        Some("qwen2") => Ok(Architecture::Qwen2),
        Some("qwen3") => Ok(Architecture::Qwen3),
        Some(found) => Err(ModelError::Architecture {
            found: found.chars().take(64).collect(),
        }),
        None => Err(entry(
            "model_type",
            "is missing: this is not a model's configuration",
        )),
    }
}

/// What would make it another network.
fn refuse(raw: &Raw, architecture: Architecture) -> Result<(), ModelError> {
    if raw.quantization_config.is_some() {
        let problem = "says that the weights are quantised already (GPTQ, AWQ, FP8 …): take the \
                       model's original repository, or a GGUF file";
        return Err(entry("quantization_config", problem));
    }
    if let Some(other) = raw.hidden_act.as_deref().filter(|&name| name != "silu") {
        return Err(entry(
            "hidden_act",
            format!("is {other:?}, supported is \"silu\""),
        ));
    }
    if raw.partial_rotary_factor.is_some_and(|part| part != 1.0) {
        return Err(entry(
            "partial_rotary_factor",
            "must be 1: other models are not supported",
        ));
    }
    // Mistral looks back over a window whenever one is given, Qwen only when it is switched on.
    let windowed = match architecture {
        Architecture::Llama => raw.sliding_window.is_some(),
        Architecture::Qwen2 | Architecture::Qwen3 => raw.use_sliding_window == Some(true),
    };
    let reaches = raw.sliding_window.zip(raw.max_position_embeddings);
    if windowed && reaches.is_none_or(|(window, context)| window < context) {
        let problem = "is shorter than the context: attention over a window is not supported";
        return Err(entry("sliding_window", problem));
    }
    Ok(())
}

fn head_length(
    raw: &Raw,
    architecture: Architecture,
    hidden: u32,
    heads: u32,
) -> Result<u32, ModelError> {
    let length = match raw.head_dim {
        Some(length) => length,
        None if architecture == Architecture::Qwen3 => 128,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let problem = format!("is {heads}, which does not divide the length {hidden}");
            return Err(entry("num_attention_heads", problem));
        }
    };
    let length = count("head_dim", Some(length), MAX_HEAD_LENGTH)?;
    if !length.is_multiple_of(2) {
        return Err(entry("head_dim", format!("is {length}, it must be even")));
    }
    Ok(length)
}

/// The rotation's parameters, wherever they stand.
fn rope(raw: &Raw) -> RawRope {
    let mut rope = raw
        .rope_parameters
        .clone()
        .or_else(|| raw.rope_scaling.clone())
        .unwrap_or_default();
    rope.rope_theta = rope.rope_theta.or(raw.rope_theta);
    rope
}

/// How positions are scaled, apart from Llama 3's factors.
fn scaling(rope: &RawRope) -> Result<RopeScaling, ModelError> {
    match rope.rope_type.as_deref() {
        None | Some("default" | "llama3") => Ok(RopeScaling::None),
        Some("linear") => {
            let factor = number(
                "rope_scaling.factor",
                rope.factor.unwrap_or(1.0),
                1e-3..=1e6,
            )?;
            Ok(RopeScaling::Linear { factor })
        }
        Some("yarn") => Ok(RopeScaling::Yarn),
        Some(other) => {
            let problem =
                format!("has the type {other:?}: supported are default, linear, llama3 and yarn");
            Err(entry("rope_scaling", problem))
        }
    }
}

/// Llama 3's factors: long wavelengths are stretched, short ones kept, those between interpolated.
/// Computed as llama.cpp's `convert_hf_to_gguf.py` does for `rope_freqs.weight`.
fn frequency_factors(
    rope: &RawRope,
    base: f32,
    head_length: u32,
) -> Result<Option<Vec<f32>>, ModelError> {
    if rope.rope_type.as_deref() != Some("llama3") {
        return Ok(None);
    }
    let factor = number(
        "rope_scaling.factor",
        rope.factor.unwrap_or(8.0),
        1e-3..=1e6,
    )?;
    let low = rope.low_freq_factor.unwrap_or(1.0);
    let low = number("rope_scaling.low_freq_factor", low, 1e-3..=1e6)?;
    let high = rope.high_freq_factor.unwrap_or(4.0);
    let high = number("rope_scaling.high_freq_factor", high, 1e-3..=1e6)?;
    if high <= low {
        let problem = format!("is {high}, it must be more than low_freq_factor, {low}");
        return Err(entry("rope_scaling.high_freq_factor", problem));
    }
    let context = rope.original_max_position_embeddings.unwrap_or(8192);
    let context = count(
        "rope_scaling.original_max_position_embeddings",
        Some(context),
        MAX_CONTEXT,
    )?;
    #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
    let context = context as f32;
    let factors = (0..head_length / 2).map(|pair| {
        #[expect(clippy::cast_precision_loss, reason = "below 2^10")]
        let exponent = (2 * pair) as f32 / head_length as f32;
        let wavelength = 2.0 * std::f32::consts::PI * base.powf(exponent);
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    Ok(Some(factors.collect()))
}

#[cfg(test)]
mod tests;
