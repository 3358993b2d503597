//! Whether metadata and tensors of a file make up a network of a known architecture.
//!
//! Strict on purpose: an unknown entry of the architecture, or an unknown tensor, would change the
//! network in a way that nobody here honours, and llama.cpp aborts on several of them.

use std::collections::BTreeMap;

use super::directory;
use super::entries::{Entries, MAX_CONTEXT, entry, epsilon, rope};
use super::gguf::{GgufArray, GgufFile, GgufValue, TensorType};
use super::{Architecture, ModelError, ModelFacts, Rope};

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u32 = 512;
/// Beyond any model; keeps later arithmetic far from overflow.
const MAX_WIDTH: u32 = 1 << 20;
const MAX_HEAD_LENGTH: u32 = 1024;

/// Entries `<architecture>.…` that are understood.
const KNOWN_ENTRIES: &[&str] = &[
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
];

/// Entries that say that this file is not a whole, ordinary model.
const REFUSED_ENTRIES: &[(&str, &str)] = &[
    (
        "split.count",
        "says that the model is split over files: merge them with llama-gguf-split --merge",
    ),
    (
        "general.tensor_extra.name",
        "asks for per-tensor precisions, which are not supported",
    ),
    (
        "adapter.type",
        "says that this is an adapter, not a model: give the model it was made for, merged",
    ),
];

pub(super) fn facts(file: &GgufFile) -> Result<ModelFacts, ModelError> {
    let architecture = architecture(file)?;
    refuse_unknown(file, architecture)?;
    let entries = Entries { file, architecture };
    let layers = entries.required("block_count", MAX_LAYERS)?;
    let hidden = entries.required("embedding_length", MAX_WIDTH)?;
    let heads = entries.required("attention.head_count", MAX_WIDTH)?;
    let kv_heads = entries
        .count("attention.head_count_kv", heads)?
        .unwrap_or(heads);
    if heads % kv_heads != 0 {
        let problem = format!("is {kv_heads}, which does not divide the {heads} heads");
        return Err(entry(entries.key("attention.head_count_kv"), problem));
    }
    let mut facts = ModelFacts {
        name: file.str("general.name").unwrap_or("unnamed").to_owned(),
        architecture,
        layers,
        heads,
        kv_heads,
        head_length: head_length(&entries, hidden, heads)?,
        hidden,
        feed_forward: entries.required("feed_forward_length", MAX_WIDTH)?,
        vocabulary: vocabulary(&entries)?,
        context: entries.required("context_length", MAX_CONTEXT)?,
        tied_embeddings: file.tensor("output.weight").is_none(),
        rope: Rope {
            dimensions: 0,
            has_factors: file.tensor("rope_freqs.weight").is_some(),
            ..rope(&entries)?
        },
        rms_epsilon: epsilon(&entries)?,
        attention_biases: match architecture {
            Architecture::Qwen2 => true,
            Architecture::Llama => file.tensor("blk.0.attn_q.bias").is_some(),
            Architecture::Qwen3 => false,
        },
        bytes_by_type: BTreeMap::new(),
    };
    facts.rope.dimensions = facts.head_length;
    // llama.cpp's kernels take norms, biases and frequencies in this type only.
    directory::check(file.tensors(), &facts, &[TensorType::F32])?;
    facts.bytes_by_type = directory::bytes_by_type(file.tensors());
    Ok(facts)
}

fn architecture(file: &GgufFile) -> Result<Architecture, ModelError> {
    let key = "general.architecture";
    let found = file
        .str(key)
        .ok_or_else(|| entry(key, "is missing or no string: this is not a model file"))?;
    Architecture::ALL
        .into_iter()
        .find(|known| known.name() == found)
        .ok_or_else(|| ModelError::Architecture {
            found: found.chars().take(64).collect(),
        })
}

fn refuse_unknown(file: &GgufFile, architecture: Architecture) -> Result<(), ModelError> {
    for (key, value) in file.metadata() {
        if let Some((_, problem)) = REFUSED_ENTRIES.iter().find(|(known, _)| known == key)
            && value.as_u64().is_none_or(|count| count > 1)
        {
            return Err(entry(key, *problem));
        }
        let Some(own) = key
            .strip_prefix(architecture.name())
            .and_then(|rest| rest.strip_prefix('.'))
        else {
            continue;
        };
        if !KNOWN_ENTRIES.contains(&own) {
            let problem = "changes the network in a way that this program does not know \
                           (mixtures of experts, sliding windows and adapters are not supported)";
            return Err(entry(key, problem));
        }
    }
    Ok(())
}

fn head_length(entries: &Entries<'_>, hidden: u32, heads: u32) -> Result<u32, ModelError> {
    let keys = entries.count("attention.key_length", MAX_HEAD_LENGTH)?;
    let values = entries.count("attention.value_length", MAX_HEAD_LENGTH)?;
    let length = match keys {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let problem = format!("is {heads}, which does not divide the length {hidden}");
            return Err(entry(entries.key("attention.head_count"), problem));
        }
    };
    let fits = |other: Option<u32>| other.is_none_or(|other| other == length);
    let rotated = entries.count("rope.dimension_count", MAX_HEAD_LENGTH)?;
    // llama.cpp takes hidden / heads for whichever of the two lengths is not given.
    let implied = (keys.is_some() && values.is_none()).then(|| hidden / heads);
    if !fits(values) || !fits(rotated) || !fits(implied) || length % 2 != 0 {
        let problem = format!(
            "contradicts key_length, value_length or rope.dimension_count: all must be one even \
             number, not {length}, {values:?}, {rotated:?}"
        );
        return Err(entry(entries.key("attention.head_count"), problem));
    }
    if length > MAX_HEAD_LENGTH {
        let problem = format!("makes heads of {length}, the most is {MAX_HEAD_LENGTH}");
        return Err(entry(entries.key("attention.head_count"), problem));
    }
    Ok(length)
}

/// Number of tokens; it must be the same wherever it is written.
fn vocabulary(entries: &Entries<'_>) -> Result<u32, ModelError> {
    let key = "tokenizer.ggml.tokens";
    let listed = match entries.file.get(key) {
        Some(GgufValue::Array(list @ (GgufArray::Strings(_) | GgufArray::Skipped { .. }))) => {
            u32::try_from(list.len()).unwrap_or(u32::MAX)
        }
        _ => return Err(entry(key, "is missing or no list of strings")),
    };
    if listed == 0 || listed > MAX_CONTEXT {
        return Err(entry(key, format!("has {listed} tokens")));
    }
    match entries.count("vocab_size", u32::MAX)? {
        Some(stated) if stated != listed => {
            let problem = format!("is {stated}, but the tokenizer lists {listed} tokens");
            Err(entry(entries.key("vocab_size"), problem))
        }
        _ => Ok(listed),
    }
}
