//! Dimensions of well-known models, for planning before a file is there.
//!
//! Only the numbers that the arithmetic needs, from each model's published `config.json`. A file,
//! once there, always wins over this table.

use std::collections::BTreeMap;

use super::{Architecture, ModelFacts, Rope, RopeScaling};

/// Where a model's dimensions are known by name.
struct Known {
    /// What a name must contain, in lower case, all of them.
    marks: &'static [&'static str],
    name: &'static str,
    architecture: Architecture,
    /// layers, heads, kv heads, head length, hidden, feed forward, vocabulary, context
    dimensions: [u32; 8],
    tied: bool,
    rope_base: f32,
}

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    Known { marks: &["hermes", "3", "8b"], name: "Hermes-3-Llama-3.1-8B", architecture: Architecture::Llama,
        dimensions: [32, 32, 8, 128, 4096, 14336, 128_256, 131_072], tied: false, rope_base: 500_000.0 },
    Known { marks: &["hermes", "3", "3b"], name: "Hermes-3-Llama-3.2-3B", architecture: Architecture::Llama,
        dimensions: [28, 24, 8, 128, 3072, 8192, 128_256, 131_072], tied: true, rope_base: 500_000.0 },
    Known { marks: &["llama", "3.1", "8b"], name: "Llama-3.1-8B", architecture: Architecture::Llama,
        dimensions: [32, 32, 8, 128, 4096, 14336, 128_256, 131_072], tied: false, rope_base: 500_000.0 },
    Known { marks: &["llama", "3.2", "3b"], name: "Llama-3.2-3B", architecture: Architecture::Llama,
        dimensions: [28, 24, 8, 128, 3072, 8192, 128_256, 131_072], tied: true, rope_base: 500_000.0 },
    Known { marks: &["llama", "3.2", "1b"], name: "Llama-3.2-1B", architecture: Architecture::Llama,
        dimensions: [16, 32, 8, 64, 2048, 8192, 128_256, 131_072], tied: true, rope_base: 500_000.0 },
    Known { marks: &["mistral", "7b"], name: "Mistral-7B", architecture: Architecture::Llama,
        dimensions: [32, 32, 8, 128, 4096, 14336, 32_768, 32_768], tied: false, rope_base: 1_000_000.0 },
    Known { marks: &["qwen2.5", "7b"], name: "Qwen2.5-7B", architecture: Architecture::Qwen2,
        dimensions: [28, 28, 4, 128, 3584, 18_944, 152_064, 32_768], tied: false, rope_base: 1_000_000.0 },
    Known { marks: &["qwen2.5", "3b"], name: "Qwen2.5-3B", architecture: Architecture::Qwen2,
        dimensions: [36, 16, 2, 128, 2048, 11_008, 151_936, 32_768], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["qwen2.5", "1.5b"], name: "Qwen2.5-1.5B", architecture: Architecture::Qwen2,
        dimensions: [28, 12, 2, 128, 1536, 8960, 151_936, 32_768], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["qwen2.5", "0.5b"], name: "Qwen2.5-0.5B", architecture: Architecture::Qwen2,
        dimensions: [24, 14, 2, 64, 896, 4864, 151_936, 32_768], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["qwen3", "8b"], name: "Qwen3-8B", architecture: Architecture::Qwen3,
        dimensions: [36, 32, 8, 128, 4096, 12_288, 151_936, 40_960], tied: false, rope_base: 1_000_000.0 },
    Known { marks: &["qwen3", "4b"], name: "Qwen3-4B", architecture: Architecture::Qwen3,
        dimensions: [36, 32, 8, 128, 2560, 9728, 151_936, 40_960], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["qwen3", "1.7b"], name: "Qwen3-1.7B", architecture: Architecture::Qwen3,
        dimensions: [28, 16, 8, 128, 2048, 6144, 151_936, 40_960], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["qwen3", "0.6b"], name: "Qwen3-0.6B", architecture: Architecture::Qwen3,
        dimensions: [28, 16, 8, 128, 1024, 3072, 151_936, 40_960], tied: true, rope_base: 1_000_000.0 },
    Known { marks: &["smollm2", "135m"], name: "SmolLM2-135M", architecture: Architecture::Llama,
        dimensions: [30, 9, 3, 64, 576, 1536, 49_152, 8192], tied: true, rope_base: 100_000.0 },
    Known { marks: &["smollm2", "360m"], name: "SmolLM2-360M", architecture: Architecture::Llama,
        dimensions: [32, 15, 5, 64, 960, 2560, 49_152, 8192], tied: true, rope_base: 100_000.0 },
    Known { marks: &["smollm2", "1.7b"], name: "SmolLM2-1.7B", architecture: Architecture::Llama,
        dimensions: [24, 32, 32, 64, 2048, 8192, 49_152, 8192], tied: true, rope_base: 130_000.0 },
];

/// Facts of the model that `name` speaks of: an Ollama tag, a repository, a file name. `None` when
/// no entry, or more than one size, matches.
pub fn find(name: &str) -> Option<ModelFacts> {
    let words = words(name);
    // Marks are whole words, so that "1.7b" is not found in "11.7b", nor "8b" in "18b".
    let known = KNOWN.iter().find(|known| {
        known
            .marks
            .iter()
            .all(|mark| words.iter().any(|word| word == mark))
    })?;
    let [
        layers,
        heads,
        kv_heads,
        head_length,
        hidden,
        feed_forward,
        vocabulary,
        context,
    ] = known.dimensions;
    Some(ModelFacts {
        name: known.name.to_owned(),
        architecture: known.architecture,
        layers,
        heads,
        kv_heads,
        head_length,
        hidden,
        feed_forward,
        vocabulary,
        context,
        tied_embeddings: known.tied,
        rope: Rope {
            base: known.rope_base,
            dimensions: head_length,
            has_factors: known.name.contains("Llama-3"),
            scaling: RopeScaling::None,
        },
        // The published one of each family; it changes no arithmetic of sizes.
        rms_epsilon: if known.architecture == Architecture::Llama {
            1e-5
        } else {
            1e-6
        },
        attention_biases: known.architecture == Architecture::Qwen2,
        bytes_by_type: BTreeMap::new(),
    })
}

/// Lower-case words, split at punctuation and also between letters and a following digit
/// (`hermes3` is `hermes` and `3`), both forms kept.
fn words(name: &str) -> Vec<String> {
    // A dot belongs to a word only within a number: `3.1`, but not `8b.gguf`.
    let lower: Vec<char> = name.to_lowercase().chars().collect();
    let digit = |at: usize| lower.get(at).is_some_and(char::is_ascii_digit);
    let kept: String = lower
        .iter()
        .enumerate()
        .map(|(at, &one)| match one {
            '.' if at > 0 && digit(at - 1) && digit(at + 1) => '.',
            one if one.is_alphanumeric() => one,
            _ => ' ',
        })
        .collect();
    let mut words = Vec::new();
    for word in kept.split(' ') {
        if word.is_empty() {
            continue;
        }
        words.push(word.to_owned());
        if let Some(at) = word.find(|one: char| one.is_ascii_digit())
            && at > 0
            && word[..at].chars().all(char::is_alphabetic)
        {
            words.push(word[..at].to_owned());
            words.push(word[at..].to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_tag_repository_and_file_name() {
        for (name, expected) in [
            ("hermes3:8b-llama3.1-q4_K_M", "Hermes-3-Llama-3.1-8B"),
            (
                "NousResearch/Hermes-3-Llama-3.1-8B-GGUF",
                "Hermes-3-Llama-3.1-8B",
            ),
            (
                "https://models.example.com/Hermes-3-Llama-3.1-8B.Q4_K_M.gguf",
                "Hermes-3-Llama-3.1-8B",
            ),
            ("hermes3:3b", "Hermes-3-Llama-3.2-3B"),
            ("llama3.2:1b", "Llama-3.2-1B"),
            ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
            ("qwen3:1.7b", "Qwen3-1.7B"),
            ("qwen2.5:0.5b-instruct", "Qwen2.5-0.5B"),
            ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M"),
        ] {
            assert_eq!(
                find(name).map(|facts| facts.name).as_deref(),
                Some(expected),
                "{name}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_not_guessed() {
        for name in [
            "",
            "hermes3",
            "hermes3:70b",
            "qwen3:18b",
            "qwen3:32b",
            "phi3:8b",
            "3:8b",
        ] {
            assert_eq!(find(name), None, "{name}");
        }
    }

    #[test]
    fn parameter_counts_are_those_that_are_published() {
        for (name, billions) in [
            ("hermes3:8b", 8.03),
            ("llama3.2:3b", 3.21),
            ("llama3.2:1b", 1.24),
            ("qwen2.5:7b", 7.62),
            ("qwen3:8b", 8.19),
            ("qwen3:4b", 4.02),
            ("qwen3:1.7b", 1.72),
            ("qwen3:0.6b", 0.596),
            ("smollm2:135m", 0.1345),
            ("smollm2:1.7b", 1.711),
            ("mistral:7b", 7.25),
        ] {
            #[expect(clippy::cast_precision_loss, reason = "compared to three digits")]
            let found = find(name).unwrap().parameters() as f64 / 1e9;
            assert!(
                (found / billions - 1.0_f64).abs() < 0.005,
                "{name}: {found}"
            );
        }
    }
}
