//! Reads an answer from the engine: tells text from tool calls, watches the deadline, and turns
//! what went wrong into an error for the client.

use std::collections::VecDeque;

use tokio::time::{Instant, timeout_at};

use super::{End, Piece, Step};
use crate::server::generation::{GenerationError, GenerationEvent, TokenLogprob};
use crate::server::worker::GenerationStream;
use crate::text::tools::{ToolDelta, ToolParser};
use crate::wire::{ApiError, ErrorKind};

/// Reads one answer. Dropping it cancels the generation.
#[derive(Debug)]
pub struct AnswerReader {
    stream: GenerationStream,
    tools: Option<ToolParser>,
    deadline: Instant,
    /// Prefix of the identities of calls; unique per answer.
    call_prefix: String,
    calls: u32,
    queue: VecDeque<Piece>,
    end: Option<Step>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// The text.
    pub text: String,
    /// The tokens, if log-probabilities were asked for.
    pub tokens: Vec<TokenLogprob>,
    /// The calls: identity, name, arguments.
    pub calls: Vec<(String, String, String)>,
    /// How it ended.
    pub end: End,
}

impl AnswerReader {
    /// Reads `stream` until `deadline`.
    pub fn new(
        stream: GenerationStream,
        tools: Option<ToolParser>,
        deadline: Instant,
        id: &str,
    ) -> Self {
        Self {
            stream,
            tools,
            deadline,
            call_prefix: id.to_owned(),
            calls: 0,
            queue: VecDeque::new(),
            end: None,
        }
    }

    /// The next step; after `End` or `Failed` there is none, and `Failed` is repeated.
    pub async fn next(&mut self) -> Step {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Step::Piece(piece);
            }
            if let Some(end) = &self.end {
                return end.clone();
            }
            match timeout_at(self.deadline, self.stream.next()).await {
                Ok(event) => self.take(event),
                Err(_) => self.end = Some(Step::Failed(too_late())),
            }
        }
    }

    /// Reads on to the end.
    ///
    /// # Errors
    /// When the answer cannot be completed.
    pub async fn whole(mut self) -> Result<Whole, ApiError> {
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut calls: Vec<(String, String, String)> = Vec::new();
        loop {
            match self.next().await {
                Step::Piece(Piece::Text {
                    text: more,
                    tokens: more_tokens,
                }) => {
                    text.push_str(&more);
                    tokens.extend(more_tokens);
                }
                Step::Piece(Piece::CallStart { id, name, .. }) => {
                    calls.push((id, name, String::new()));
                }
                Step::Piece(Piece::CallArguments { fragment, .. }) => {
                    if let Some((_, _, arguments)) = calls.last_mut() {
                        arguments.push_str(&fragment);
                    }
                }
                Step::End(end) => {
                    return Ok(Whole {
                        text,
                        tokens,
                        calls,
                        end,
                    });
                }
                Step::Failed(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, event: Option<GenerationEvent>) {
        match event {
            Some(GenerationEvent::Delta { text, tokens }) => self.take_text(text, tokens),
            Some(GenerationEvent::Finished {
                reason,
                usage,
                timings,
            }) => {
                if let Some(mut tools) = self.tools.take() {
                    let rest = tools.finish();
                    self.take_deltas(rest, Vec::new());
                }
                let calls_tools = self.calls > 0;
                self.end = Some(Step::End(End {
                    reason,
                    calls_tools,
                    usage,
                    timings,
                }));
            }
            Some(GenerationEvent::Failed(error)) => self.end = Some(Step::Failed(failure(error))),
            None => {
                let message = "the engine ended the answer without saying why";
                self.end = Some(Step::Failed(ApiError::new(ErrorKind::Internal, message)));
            }
        }
    }

    fn take_text(&mut self, text: String, tokens: Vec<TokenLogprob>) {
        match &mut self.tools {
            None => self.queue.push_back(Piece::Text { text, tokens }),
            Some(tools) => {
                let deltas = tools.push(&text);
                self.take_deltas(deltas, tokens);
            }
        }
    }

    /// Tokens go with the first content, or alone: their text may be held back or be part of a
    /// call.
    fn take_deltas(&mut self, deltas: Vec<ToolDelta>, tokens: Vec<TokenLogprob>) {
        let mut tokens = Some(tokens).filter(|tokens| !tokens.is_empty());
        for delta in deltas {
            let piece = match delta {
                ToolDelta::Content(text) => Piece::Text {
                    text,
                    tokens: tokens.take().unwrap_or_default(),
                },
                ToolDelta::CallStart { index, name } => {
                    self.calls += 1;
                    let id = format!("call_{}_{index}", self.call_prefix);
                    Piece::CallStart { index, id, name }
                }
                ToolDelta::CallArguments { index, fragment } => {
                    Piece::CallArguments { index, fragment }
                }
            };
            self.queue.push_back(piece);
        }
        if let Some(tokens) = tokens {
            self.queue.push_back(Piece::Text {
                text: String::new(),
                tokens,
            });
        }
    }
}

fn too_late() -> ApiError {
    ApiError::new(
        ErrorKind::DeadlineExceeded,
        "the answer was not complete before its deadline",
    )
}

fn failure(error: GenerationError) -> ApiError {
    match error {
        GenerationError::Engine(reason) => {
            ApiError::new(ErrorKind::Internal, "the engine failed").diagnostic(reason)
        }
        GenerationError::Request(reason) => ApiError::new(
            ErrorKind::Internal,
            format!("this request failed: {reason}"),
        ),
        GenerationError::ShuttingDown => {
            ApiError::new(ErrorKind::Unavailable, "the server is shutting down")
                .retry_after(std::time::Duration::from_secs(1))
        }
    }
}
