//! One request from submission to its last event: draws tokens from logits, turns them into text,
//! decides when the answer is over, and sends what the client may see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::super::generation::{
    FinishReason, GenerationError, GenerationEvent, Timings, TokenLogprob, Usage,
};
use super::handle::Submission;
use super::observer::{EngineObserver, Outcome};
use crate::backend::TokenId;
use crate::scheduler::Admitted;
use crate::text::TextModel;
use crate::text::constraint::Constraint;
use crate::text::detokenizer::Detokenizer;
use crate::text::sampling::{Sampler, logprobs};
use crate::text::stop::StopDetector;

/// What follows from a row of logits.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Run this token next.
    Continue(TokenId),
    /// The answer is over.
    Finished(FinishReason),
    /// It cannot go on.
    Failed(GenerationError),
}

/// When things happened.
#[derive(Clone, Copy, Debug)]
struct Moments {
    submitted: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// A request the engine thread has.
pub(super) struct Answer {
    text: Arc<TextModel>,
    observer: Arc<dyn EngineObserver>,
    events: UnboundedSender<GenerationEvent>,
    sampler: Sampler,
    constraint: Option<Constraint>,
    detokenizer: Detokenizer,
    stop: StopDetector,
    max_tokens: u32,
    top_logprobs: Option<u8>,
    ignore_eos: bool,
    /// Tokens whose text is held back, for log-probabilities.
    held: Vec<TokenLogprob>,
    usage: Usage,
    moments: Moments,
}

impl Answer {
    /// Takes a submission apart; the prompt goes to the scheduler.
    ///
    /// # Errors
    /// The channel to tell the client that its sampling parameters are impossible.
    pub(super) fn new(
        submission: Submission,
        text: Arc<TextModel>,
        observer: Arc<dyn EngineObserver>,
    ) -> Result<(Self, Vec<TokenId>), (UnboundedSender<GenerationEvent>, GenerationError)> {
        let Submission {
            request,
            submitted,
            events,
        } = submission;
        let sampler = match Sampler::new(request.sampling, &request.prompt) {
            Ok(sampler) => sampler,
            Err(error) => return Err((events, GenerationError::Request(error.to_string()))),
        };
        let answer = Self {
            text,
            observer,
            events,
            sampler,
            constraint: request.constraint,
            detokenizer: Detokenizer::new(),
            stop: StopDetector::new(&request.stop),
            max_tokens: request.max_tokens,
            top_logprobs: request.top_logprobs,
            ignore_eos: request.ignore_eos,
            held: Vec::new(),
            usage: Usage {
                prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
                ..Usage::default()
            },
            moments: Moments {
                submitted,
                started: None,
                first: None,
                last: None,
            },
        };
        Ok((answer, request.prompt))
    }

    /// Whether nobody listens any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether it has a slot.
    pub(super) const fn is_running(&self) -> bool {
        self.moments.started.is_some()
    }

    pub(super) const fn prompt_tokens(&self) -> u32 {
        self.usage.prompt_tokens
    }

    /// How long it has held its slot.
    pub(super) fn held_slot(&self) -> Duration {
        self.moments
            .started
            .map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// It got its slot.
    pub(super) fn start(&mut self, admitted: &Admitted) {
        self.usage.reused_tokens = admitted.reused;
        self.moments.started = Some(Instant::now());
        let queue = self.timings().queue;
        self.observer
            .started(queue, self.usage.prompt_tokens, admitted.reused);
    }

    /// Draws the next token and sends the text that became certain.
    pub(super) fn on_logits(&mut self, logits: &[f32]) -> Verdict {
        self.draw(logits)
            .unwrap_or_else(|reason| Verdict::Failed(GenerationError::Request(reason)))
    }

    fn draw(&mut self, logits: &[f32]) -> Result<Verdict, String> {
        if self.max_tokens == 0 {
            return Ok(Verdict::Finished(FinishReason::Length));
        }
        let mask = match &mut self.constraint {
            Some(constraint) => Some(constraint.mask().map_err(|error| error.to_string())?),
            None => None,
        };
        let token = self
            .sampler
            .sample(logits, mask.as_ref())
            .map_err(|error| error.to_string())?;
        self.clock_token();
        if self.text.tokenizer.is_end_of_generation(token) && !self.ignore_eos {
            return Ok(Verdict::Finished(FinishReason::Stop));
        }
        self.usage.completion_tokens += 1;
        self.sampler.accept(token);
        if let Some(constraint) = &mut self.constraint {
            constraint
                .accept(token)
                .map_err(|error| error.to_string())?;
        }
        if let Some(top) = self.top_logprobs {
            self.held.push(self.token_logprob(logits, token, top));
        }
        Ok(self.release(token))
    }

    /// Sends what is certain to be part of the answer after `token`.
    fn release(&mut self, token: TokenId) -> Verdict {
        let piece = self.detokenizer.push(&self.text.tokenizer, token);
        let step = self.stop.push(&piece);
        if step.stopped {
            // Tokens that begin inside the stop string are none of the client's.
            let mut begin = 0;
            self.held.retain(|token| {
                let inside = begin < step.text.len();
                begin += token.bytes.len();
                inside
            });
        }
        if !step.text.is_empty() {
            self.send_delta(step.text);
        }
        if step.stopped
            || self
                .constraint
                .as_ref()
                .is_some_and(Constraint::is_complete)
        {
            return Verdict::Finished(FinishReason::Stop);
        }
        if self.usage.completion_tokens >= self.max_tokens {
            return Verdict::Finished(FinishReason::Length);
        }
        Verdict::Continue(token)
    }

    fn send_delta(&mut self, text: String) {
        let tokens = std::mem::take(&mut self.held);
        // Nobody listens: noticed before the next step.
        let _ = self.events.send(GenerationEvent::Delta { text, tokens });
    }

    fn token_logprob(&self, logits: &[f32], token: TokenId, top: u8) -> TokenLogprob {
        let bytes = |id: TokenId| self.text.tokenizer.token_bytes(id).to_vec();
        let found = logprobs(logits, token, top);
        TokenLogprob {
            token,
            bytes: bytes(token),
            logprob: found.logprob,
            top: found
                .top
                .into_iter()
                .map(|(id, logprob)| (id, bytes(id), logprob))
                .collect(),
        }
    }

    fn clock_token(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.moments.last.replace(now) {
            self.observer.next_token(now.duration_since(last));
        } else {
            self.moments.first = Some(now);
            let waited = now.duration_since(self.moments.submitted);
            self.observer.first_token(waited);
        }
    }

    fn timings(&self) -> Timings {
        let Moments {
            submitted,
            started,
            first,
            last,
        } = self.moments;
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.duration_since(from),
            _ => Duration::ZERO,
        };
        Timings {
            queue: between(Some(submitted), started),
            prefill: between(started, first),
            decode: between(first, last),
        }
    }

    /// The last event: the answer is complete.
    pub(super) fn finish(mut self, reason: FinishReason) {
        // After a stop string both give nothing.
        let mut rest = self.stop.push(&self.detokenizer.finish()).text;
        rest.push_str(&self.stop.finish());
        if !rest.is_empty() || !self.held.is_empty() {
            self.send_delta(rest);
        }
        let timings = self.timings();
        let _ = self.events.send(GenerationEvent::Finished {
            reason,
            usage: self.usage,
            timings,
        });
        self.observer
            .ended(Outcome::Finished(reason), self.usage, timings);
    }

    /// The last event: the answer cannot be completed.
    pub(super) fn fail(self, error: GenerationError) {
        let _ = self.events.send(GenerationEvent::Failed(error));
        self.observer
            .ended(Outcome::Failed, self.usage, self.timings());
    }

    /// Nobody is there to hear a last event.
    pub(super) fn cancel(self) {
        self.observer
            .ended(Outcome::Cancelled, self.usage, self.timings());
    }
}
