//! How fast a model can be at most: what memory bandwidth and arithmetic allow.
//!
//! Ceilings, not promises: decoding reached 77 to 90 % of it in NVIDIA's published figures,
//! prefill about half.

use serde::Serialize;

use super::{Format, Need};
use crate::hardware::Hardware;
use crate::model::ModelFacts;

/// Tokens in the KV cache for which decoding is estimated.
const CONTEXT: u64 = 1024;

/// Ceilings of one stream; `None` where no table has the hardware's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// Generated tokens per second: bandwidth over the bytes read for one token.
    pub decode_tokens_per_second: Option<f64>,
    /// Prompt tokens per second: arithmetic over two operations per weight.
    pub prefill_tokens_per_second: Option<f64>,
}

/// Ceilings of `facts` in `format` on `hardware`.
pub fn speed(hardware: &Hardware, facts: &ModelFacts, format: Format, need: &Need) -> Speed {
    // The embedding table is looked up, not read through, unless it is also the output layer.
    let looked_up = if facts.tied_embeddings {
        0
    } else {
        facts.embedding_parameters() * 2
    };
    let read = need.weights.bytes.0.saturating_sub(looked_up)
        + facts.kv_bytes_per_token().saturating_mul(CONTEXT);
    let on_gpu = format != Format::AsInFile;
    #[expect(clippy::cast_precision_loss, reason = "a ceiling with two digits")]
    let per_second = |rate: f64, each: u64| rate / each.max(1) as f64;
    Speed {
        decode_tokens_per_second: hardware
            .gpu_bandwidth()
            .filter(|_| on_gpu)
            .map(|bandwidth| per_second(bandwidth, read)),
        prefill_tokens_per_second: hardware
            .gpu_flops()
            .filter(|_| on_gpu)
            .map(|flops| per_second(flops, 2 * facts.linear_parameters())),
    }
}
