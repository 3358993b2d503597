//! The boundary between the HTTP handlers and the engine thread: what a valid request is, and
//! what comes back. No HTTP, no device.

use std::time::Duration;

use crate::backend::TokenId;
use crate::text::constraint::Constraint;
use crate::text::sampling::SamplingParams;

/// A request that was checked at the edge: fits the context, has a seed, its constraint compiles.
#[derive(Debug)]
pub struct GenerationRequest {
    /// For logs; also returned to the client.
    pub id: String,
    /// Prompt tokens, at least one.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn; the seed is fixed at the edge so that the core needs no randomness.
    pub sampling: SamplingParams,
    /// Most tokens of the answer; prompt and answer together fit into a slot.
    pub max_tokens: u32,
    /// Strings that end the answer and are never part of it.
    pub stop: Vec<String>,
    /// A grammar the answer must follow.
    pub constraint: Option<Constraint>,
    /// How many alternatives to report per token; `None`: no log-probabilities.
    pub top_logprobs: Option<u8>,
    /// Go on after an end-of-generation token (benchmarks).
    pub ignore_eos: bool,
    /// The client gave a seed and expects the same text for the same request, whatever else runs:
    /// nothing is reused that was generated for others, because it was rounded differently.
    pub reproducible: bool,
}

/// One token with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Its bytes, which need not be whole UTF-8.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability under the unmodified distribution.
    pub logprob: f32,
    /// The most probable alternatives, best first.
    pub top: Vec<(TokenId, Vec<u8>, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-generation token, a stop string, or the grammar is complete.
    Stop,
    /// `max_tokens` reached.
    Length,
}

/// Token counts of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, reused ones included.
    pub prompt_tokens: u32,
    /// Prompt tokens whose KV rows were reused from an earlier request.
    pub reused_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to a slot.
    pub queue: Duration,
    /// From slot to first token (prefill).
    pub prefill: Duration,
    /// From first to last token (decode).
    pub decode: Duration,
}

/// What the engine thread reports for a request. The last one is `Finished` or `Failed`.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// More of the answer: whole UTF-8, no part of a stop string.
    Delta {
        /// New text; may be empty when only `tokens` is new.
        text: String,
        /// Filled when log-probabilities were asked for.
        tokens: Vec<TokenLogprob>,
    },
    /// The answer is complete.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Counts.
        usage: Usage,
        /// Durations.
        timings: Timings,
    },
    /// The answer cannot be completed.
    Failed(GenerationError),
}

/// Why a running answer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// The device failed; the process is about to exit.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// Only this request failed.
    #[error("this request failed: {0}")]
    Request(String),
    /// The server is shutting down and the grace time is over.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Slots and queue are full.
    #[error("all slots are busy and the queue is full; retry after {} s", retry_after.as_secs())]
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// SIGTERM was received.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The engine thread is gone.
    #[error("the engine is not running")]
    EngineGone,
}
