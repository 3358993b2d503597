//! How much memory an engine, a build and the fallback need.

use serde::Serialize;

use super::key::CHUNK;
use super::{Format, Line, Request, sum};
use crate::hardware::Bytes;
use crate::model::ModelFacts;

const MIB: u64 = 1 << 20;

/// CUDA context (about 65 MB), TensorRT's libraries and kernels, the server itself. Calibrated, with
/// the other lines, on TensorRT Edge-LLM's published totals: Qwen3-8B INT4 takes 7.9 GB on Orin NX.
const TENSORRT_RUNTIME: u64 = 768 * MIB;
/// TensorRT's builder with its library and an optimisation of a network of a few thousand layers.
const TENSORRT_BUILDER: u64 = 1024 * MIB;
/// The server with llama.cpp, without the model.
const CPU_RUNTIME: u64 = 64 * MIB;
/// Ollama's server and runner with a CUDA context, without the model.
const OLLAMA_RUNTIME: u64 = 600 * MIB;
/// Ollama's server alone.
const OLLAMA_IDLE: u64 = 100 * MIB;
/// llama.cpp rounds the context of a sequence up to this.
const CPU_CONTEXT_STEP: u64 = 256;
/// Groups of 4-bit weights, largest first: those that TensorRT has kernels for.
const GROUPS: [u64; 2] = [128, 64];
/// Bits of a weight in Ollama's usual `Q4_K_M`, on the whole.
const Q4_K_M_BITS: f64 = 4.9;

/// What a server with one model needs while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Weights, embeddings and output layer.
    pub weights: Line,
    /// Keys and values of all slots.
    pub kv_cache: Line,
    /// Activations of one step.
    pub activations: Line,
    /// Context, libraries, the server itself.
    pub runtime: Line,
    /// The sum.
    pub total: Bytes,
}

/// What the fallback needs beside the engine, and when it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackNeed {
    /// While the engine serves.
    pub resident: Line,
    /// While the fallback serves.
    pub serving: Line,
}

/// Size of the groups of 4-bit weights, or why there can be none.
pub(super) fn group(facts: &ModelFacts) -> Result<u64, String> {
    let queries = facts.heads.saturating_mul(facts.head_length);
    let rows = [facts.hidden, queries, facts.feed_forward];
    GROUPS
        .into_iter()
        .find(|group| {
            rows.iter()
                .all(|&row| u64::from(row).is_multiple_of(*group))
        })
        .ok_or_else(|| format!("rows of {rows:?} weights are no multiple of a group of 64 or 128"))
}

fn weights(facts: &ModelFacts, format: Format) -> Result<Line, String> {
    let linear = facts.linear_parameters();
    let tables = facts.embedding_parameters() * if facts.tied_embeddings { 1 } else { 2 };
    let kept = (tables + facts.norm_parameters()) * 2;
    let rest = format!(
        "{} of embeddings, output layer and norms × 16 bits",
        count(tables + facts.norm_parameters())
    );
    let (bytes, how) = match format {
        Format::Fp16 => {
            let how = format!("{} × 16 bits", count(facts.parameters()));
            return Ok(Line::new("weights", facts.parameters() * 2, how));
        }
        Format::AsInFile => {
            let (bytes, how) = file_weights(facts);
            return Ok(Line::new("weights", bytes, how));
        }
        Format::Int8 | Format::Fp8 => (linear, "8 bits".to_owned()),
        Format::Int4 => {
            let group = group(facts)?;
            let how = format!("4 bits + a 16-bit scale for {group}");
            (linear / 2 + linear / group * 2, how)
        }
        Format::Nvfp4 => (
            linear / 2 + linear / 16,
            "4 bits + an 8-bit scale for 16".into(),
        ),
    };
    let how = format!("{} × {how}; {rest}", count(linear));
    Ok(Line::new("weights", bytes + kept, how))
}

/// Bytes of the GGUF file's weights; an estimate where there is no file yet.
fn file_weights(facts: &ModelFacts) -> (u64, String) {
    let bytes = facts.file_bytes();
    if bytes > 0 {
        let types: Vec<_> = facts.bytes_by_type.keys().map(String::as_str).collect();
        return (bytes, format!("the file's tensors: {}", types.join(", ")));
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    let estimate = (facts.parameters() as f64 * Q4_K_M_BITS / 8.0) as u64;
    (
        estimate,
        "Q4_K_M, estimated: the file is not here".to_owned(),
    )
}

fn kv_cache(facts: &ModelFacts, request: &Request, on_cpu: bool) -> Line {
    let mut tokens = u64::from(request.context_tokens());
    if on_cpu {
        tokens = tokens.next_multiple_of(CPU_CONTEXT_STEP);
    }
    let slots = u64::from(request.slots);
    let bytes = facts.kv_bytes_per_token().saturating_mul(tokens * slots);
    let how = format!(
        "{slots} slots × {tokens} tokens × {} (2 × {} layers × {} heads × {} × 16 bits)",
        Bytes(facts.kv_bytes_per_token()),
        facts.layers,
        facts.kv_heads,
        facts.head_length
    );
    Line::new("KV cache", bytes, how)
}

fn activations(facts: &ModelFacts, request: &Request, on_cpu: bool) -> Line {
    let chunk = u64::from(CHUNK.min(request.context_tokens()));
    let width = u64::from(facts.hidden) * 6 + u64::from(facts.feed_forward) * 3;
    let element = if on_cpu { 4 } else { 2 };
    let logits = u64::from(request.slots) * u64::from(facts.vocabulary) * 4;
    // Attention scores of a chunk against the whole context, where they are not fused.
    let scores = if on_cpu {
        chunk * u64::from(request.context_tokens()) * u64::from(facts.heads) * 4
    } else {
        0
    };
    let how = format!(
        "{chunk} tokens a step × {width} values, logits of {} slots",
        request.slots
    );
    Line::new(
        "activations",
        chunk * width * element + logits + scores,
        how,
    )
}

/// What a server needs for `facts` in `format`.
///
/// # Errors
/// Why the model cannot be held in that format.
pub fn need(facts: &ModelFacts, request: &Request, format: Format) -> Result<Need, String> {
    let on_cpu = format == Format::AsInFile;
    let weights = weights(facts, format)?;
    let kv_cache = kv_cache(facts, request, on_cpu);
    let activations = activations(facts, request, on_cpu);
    let runtime = if on_cpu {
        Line::new("runtime", CPU_RUNTIME, "the server with llama.cpp")
    } else {
        let how = "CUDA context, TensorRT libraries, the server";
        Line::new("runtime", TENSORRT_RUNTIME, how)
    };
    let lines = [weights, kv_cache, activations, runtime];
    let total = Bytes(sum(&lines));
    let [weights, kv_cache, activations, runtime] = lines;
    Ok(Need {
        weights,
        kv_cache,
        activations,
        runtime,
        total,
    })
}

/// What Ollama needs for the same model: its `Q4_K_M` where the file is not known.
pub fn fallback_need(facts: &ModelFacts, request: &Request) -> Option<FallbackNeed> {
    use crate::api::Residency;

    let residency = request.fallback?;
    let (weights, kind) = file_weights(facts);
    let tokens = u64::from(request.context_tokens());
    let serving = weights + facts.kv_bytes_per_token() * tokens + OLLAMA_RUNTIME;
    let loaded = format!(
        "weights {} ({kind}), KV cache of one sequence, runner",
        Bytes(weights)
    );
    let (resident, how) = match residency {
        Residency::Warm => (serving, loaded.clone()),
        Residency::Standby => (OLLAMA_IDLE, "Standby: running, model not loaded".to_owned()),
        Residency::Cold => (0, "Cold: not running".to_owned()),
    };
    Some(FallbackNeed {
        resident: Line::new("fallback", resident, how),
        serving: Line::new("fallback that serves", serving, loaded),
    })
}

/// What building an engine needs, at its peak: the finished weights as constants of the network and
/// in the serialised plan, and the builder. Calibrated on builds with TensorRT-RTX of a small model and of
/// 8B's dimensions; no build on a Jetson was measured.
pub fn build_need(facts: &ModelFacts, format: Format) -> Option<Line> {
    if format == Format::AsInFile {
        return None;
    }
    let weights = weights(facts, format).ok()?.bytes.0;
    let how = format!(
        "weights {}, held {} times, and the builder; estimated",
        Bytes(weights),
        copies(format)
    );
    let bytes = build_bytes(weights, format);
    Some(Line::new("engine build", bytes, how))
}

/// Bytes of memory that the build of an engine with `weights` bytes needs at its peak: the weights where
/// TensorRT reads them and where it keeps them, and what it holds whatever the model. For SmolLM2 the
/// peaks were 1,341 MiB with 257 MiB of weights (native form; 1,403 split), 1,116 with 155, 1,065 with 108;
/// for 8B's dimensions 26.5 GiB with 13.75 in FP16, 15.3 with 7.25 in INT8, 12.3 with 4.10 in INT4.
pub fn build_bytes(weights: u64, format: Format) -> u64 {
    let held = weights.saturating_mul(copies(format));
    held.saturating_add(TENSORRT_BUILDER)
}

/// How many times weights are held at the peak; the builder unpacks 4-bit ones.
const fn copies(format: Format) -> u64 {
    match format {
        Format::Int4 => 3,
        _ => 2,
    }
}

/// `6.98 B`
pub(super) fn count(parameters: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let parameters = parameters as f64;
    if parameters >= 1e9 {
        format!("{:.2} B", parameters / 1e9)
    } else {
        format!("{:.1} M", parameters / 1e6)
    }
}
