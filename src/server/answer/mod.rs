//! From what the engine reports to what the client reads: text and tool calls are told apart here,
//! and each dialect renders the same pieces in its own shape. A dialect's renderer is a plain state
//! machine that turns pieces into bytes; [`stream`] and `whole` are the only async parts.

mod chat;
mod completion;
mod ollama;
mod plain;
mod reader;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};

pub use chat::{ChatChunks, Heading, whole_chat};
pub use completion::{CompletionChunks, whole_completion};
pub use ollama::{OllamaLines, OllamaShape, loaded, whole_ollama};
pub use plain::{PlainEvents, whole_plain};
pub use reader::{AnswerReader, Whole};

use super::generation::{FinishReason, Timings, TokenLogprob, Usage};
use crate::wire::openai;
use crate::wire::{ApiError, Protocol};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// More text, and the tokens that came with it if log-probabilities were asked for.
    Text {
        /// The text; may be empty when there are only tokens.
        text: String,
        /// The tokens.
        tokens: Vec<TokenLogprob>,
    },
    /// A tool call begins.
    CallStart {
        /// Which call, from 0.
        index: u32,
        /// Its identity.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments.
    CallArguments {
        /// Which call.
        index: u32,
        /// JSON text.
        fragment: String,
    },
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: FinishReason,
    /// Whether the answer calls tools.
    pub calls_tools: bool,
    /// Counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
}

impl End {
    /// OpenAI's word for it.
    pub const fn finish_reason(&self) -> openai::FinishReason {
        match self.reason {
            FinishReason::Length => openai::FinishReason::Length,
            FinishReason::Stop if self.calls_tools => openai::FinishReason::ToolCalls,
            FinishReason::Stop => openai::FinishReason::Stop,
        }
    }

    /// OpenAI's counts.
    pub const fn openai_usage(&self) -> openai::Usage {
        let usage = self.usage;
        openai::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: Some(openai::PromptTokensDetails {
                cached_tokens: usage.reused_tokens,
            }),
        }
    }
}

/// What an [`AnswerReader`] gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// More of the answer.
    Piece(Piece),
    /// The answer is complete.
    End(End),
    /// The answer cannot be completed.
    Failed(ApiError),
}

/// A dialect's stream.
pub trait Render: Send + 'static {
    /// The dialect.
    const PROTOCOL: Protocol;
    /// The media type.
    const CONTENT_TYPE: &'static str;
    /// One piece as bytes; may be empty.
    fn piece(&mut self, piece: Piece) -> Bytes;
    /// The end as bytes.
    fn end(&mut self, end: &End) -> Bytes;
}

/// Streams the rest of an answer whose `first` step was already read, so that what fails before
/// the first token is answered with a status and not in a stream.
///
/// # Errors
/// What failed before the first token.
pub fn stream<R: Render>(
    reader: AnswerReader,
    first: Step,
    renderer: R,
) -> Result<Response, ApiError> {
    if let Step::Failed(error) = first {
        return Err(error);
    }
    let state = Streaming {
        reader,
        renderer,
        ready: Some(first),
    };
    let bytes = futures::stream::unfold(Some(state), |state| async {
        let mut state = state?;
        loop {
            let (bytes, over) = state.next().await;
            if over {
                return Some((Ok::<_, std::convert::Infallible>(bytes), None));
            }
            if !bytes.is_empty() {
                return Some((Ok(bytes), Some(state)));
            }
        }
    });
    let mut response = Response::new(Body::from_stream(bytes));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(R::CONTENT_TYPE),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Streaming<R> {
    reader: AnswerReader,
    renderer: R,
    ready: Option<Step>,
}

impl<R: Render> Streaming<R> {
    async fn next(&mut self) -> (Bytes, bool) {
        let step = match self.ready.take() {
            Some(step) => step,
            None => self.reader.next().await,
        };
        match step {
            Step::Piece(piece) => (self.renderer.piece(piece), false),
            Step::End(end) => (self.renderer.end(&end), true),
            Step::Failed(error) => (error.to_stream_event(R::PROTOCOL), true),
        }
    }
}

#[cfg(test)]
mod tests;
