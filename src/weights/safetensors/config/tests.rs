use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 8192, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "torch_dtype": "bfloat16",
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        }
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut config = llama();
    config[key] = value;
    config
}

fn facts(config: &Value) -> Result<Config, String> {
    read(config.to_string().as_bytes(), "Tiny").map_err(|error| error.to_string())
}

#[test]
fn llama_3_2_has_the_facts_of_the_catalogue() {
    let config = facts(&llama()).unwrap();
    let known = crate::model::catalogue::find("llama3.2:1b").unwrap();
    let name = known.name.clone();
    assert_eq!(
        ModelFacts {
            name,
            ..config.facts
        },
        known
    );
}

#[test]
fn llama_3_factors_are_those_of_the_converter() {
    // The wavelength of pair p is 2 pi 500000^(p / 32): below 2,048 (p up to 14) it is kept, above
    // 8,192 (p from 18 on) stretched by 32; between them the values below, which Python's doubles give
    // for the formula of `convert_hf_to_gguf.py`.
    let factors = facts(&llama()).unwrap().frequency_factors.unwrap();
    assert_eq!(factors.len(), 32);
    assert!(
        factors[..15].iter().all(|&factor| factor == 1.0),
        "{factors:?}"
    );
    assert!(
        factors[18..].iter().all(|&factor| factor == 32.0),
        "{factors:?}"
    );
    for (found, expected) in factors[15..18].iter().zip([1.65133, 3.29226, 9.66673]) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn mistral_and_both_qwens_are_read() {
    let mistral = json!({
        "model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 32_768, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0, "sliding_window": null, "tie_word_embeddings": false
    });
    let config = facts(&mistral).unwrap();
    assert_eq!(config.facts.architecture, Architecture::Llama);
    assert_eq!(
        (config.facts.head_length, config.frequency_factors),
        (128, None)
    );
    let qwen2 = json!({
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
        "vocab_size": 151_936, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "sliding_window": 32_768, "use_sliding_window": false,
        "tie_word_embeddings": true
    });
    let config = facts(&qwen2).unwrap();
    assert_eq!(config.facts.architecture, Architecture::Qwen2);
    assert!(config.facts.attention_biases);
    let qwen3 = json!({
        "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 3072, "vocab_size": 151_936, "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6, "attention_bias": false, "use_sliding_window": false,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
        "tie_word_embeddings": true
    });
    let config = facts(&qwen3).unwrap();
    let known = crate::model::catalogue::find("qwen3:0.6b").unwrap();
    let name = known.name.clone();
    assert_eq!(
        ModelFacts {
            name,
            ..config.facts
        },
        known
    );
}

#[test]
fn what_would_be_another_network_is_refused_with_its_name() {
    for (key, value, expected) in [
        ("model_type", json!("mixtral"), "mixtral"),
        ("model_type", Value::Null, "model_type"),
        ("hidden_act", json!("gelu"), "gelu"),
        (
            "quantization_config",
            json!({"quant_method": "awq"}),
            "quantised already",
        ),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("sliding_window", json!(4096), "sliding_window"),
        ("rope_scaling", json!({"rope_type": "longrope"}), "longrope"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "high_freq_factor": 1.0}),
            "high_freq",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 0.0}),
            "factor",
        ),
        ("num_attention_heads", json!(0), "1 to"),
        ("num_attention_heads", json!(-1), "configuration"),
        ("num_key_value_heads", json!(5), "does not divide"),
        ("num_key_value_heads", json!(64), "1 to 32"),
        ("hidden_size", Value::Null, "hidden_size"),
        ("hidden_size", json!(4_000_000_000_u32), "hidden_size"),
        ("head_dim", json!(63), "even"),
        ("rms_norm_eps", json!(-1.0), "rms_norm_eps"),
        ("rope_theta", json!(0.0), "rope_theta"),
    ] {
        let error = facts(&with(key, value.clone())).unwrap_err();
        assert!(error.contains(expected), "{key} {value}: {error}");
    }
}
