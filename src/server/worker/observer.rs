//! What the engine thread tells the outside about its work. Callbacks run on the engine thread
//! between two steps: they must neither block nor do more than count.

use std::time::Duration;

use super::super::generation::{FinishReason, Timings, Usage};

/// How a request ended, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is complete.
    Finished(FinishReason),
    /// The client went away.
    Cancelled,
    /// The answer could not be completed.
    Failed,
}

/// One call of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Wall time of the call, sampling included.
    pub duration: Duration,
    /// Prompt tokens run.
    pub prefill_tokens: u32,
    /// Sequences that got one token.
    pub decode_tokens: u32,
    /// Slots that serve a request.
    pub slots_busy: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
}

/// Receives what the engine thread measures. Every method does nothing by default.
pub trait EngineObserver: Send + Sync {
    /// A request got its slot after `queue`; `reused_tokens` of its prompt need no prefill.
    fn started(&self, queue: Duration, prompt_tokens: u32, reused_tokens: u32) {
        let _ = (queue, prompt_tokens, reused_tokens);
    }

    /// A request got its first token, counted from its submission.
    fn first_token(&self, since_submit: Duration) {
        let _ = since_submit;
    }

    /// A request got another token, counted from the one before.
    fn next_token(&self, gap: Duration) {
        let _ = gap;
    }

    /// A request left the engine.
    fn ended(&self, outcome: Outcome, usage: Usage, timings: Timings) {
        let _ = (outcome, usage, timings);
    }

    /// One call of the device is over.
    fn step(&self, report: StepReport) {
        let _ = report;
    }
}

/// The observer that does not look.
impl EngineObserver for () {}
