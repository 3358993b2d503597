//! One event of an answer's stream, in the client's own API: what it says, and how it is framed.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::endpoint::Api;
use crate::wire::{generate, ollama, openai, sse};

/// A typed event.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// `/v1/chat/completions`.
    Chat(openai::ChatChunk),
    /// `/v1/completions`.
    Completion(openai::Completion),
    /// `/api/chat`.
    OllamaChat(ollama::ChatResponse),
    /// `/api/generate`.
    OllamaGenerate(ollama::GenerateResponse),
    /// `/generate_stream`.
    Plain(generate::StreamPiece),
}

/// Why the text of an event is not a [`Chunk`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAChunk {
    /// The upstream says that it failed.
    #[error("{0}")]
    Failure(String),
    /// Something else.
    #[error("the upstream's stream is not understood: {0}")]
    Garbage(String),
}

impl Chunk {
    /// Reads one event's text.
    ///
    /// # Errors
    /// [`NotAChunk`].
    pub fn read(api: Api, text: &str) -> Result<Self, NotAChunk> {
        match api {
            Api::Chat => read(text).map(Self::Chat),
            Api::Completion => read(text).map(Self::Completion),
            Api::OllamaChat => read(text).map(Self::OllamaChat),
            Api::OllamaGenerate => read(text).map(Self::OllamaGenerate),
            Api::Plain => read(text).map(Self::Plain),
        }
    }

    /// The event's text.
    pub fn to_text(&self) -> String {
        let written = match self {
            Self::Chat(chunk) => serde_json::to_string(chunk),
            Self::Completion(chunk) => serde_json::to_string(chunk),
            Self::OllamaChat(chunk) => serde_json::to_string(chunk),
            Self::OllamaGenerate(chunk) => serde_json::to_string(chunk),
            Self::Plain(chunk) => serde_json::to_string(chunk),
        };
        // Serialising to memory fails only for map keys that are not strings: none here.
        written.unwrap_or_default()
    }

    /// Whether something was generated or the answer is over: more than a greeting.
    pub fn is_output(&self) -> bool {
        match self {
            Self::Chat(chunk) => chunk.choices.iter().any(|choice| {
                choice.finish_reason.is_some()
                    || choice.logprobs.is_some()
                    || choice.delta.tool_calls.is_some()
                    || choice
                        .delta
                        .content
                        .as_ref()
                        .is_some_and(|text| !text.is_empty())
            }),
            Self::Completion(chunk) => chunk.choices.iter().any(|choice| {
                choice.finish_reason.is_some()
                    || choice.logprobs.is_some()
                    || !choice.text.is_empty()
            }),
            Self::OllamaChat(chunk) => {
                chunk.done
                    || !chunk.message.content.is_empty()
                    || chunk.message.tool_calls.is_some()
                    || chunk.message.thinking.is_some()
            }
            Self::OllamaGenerate(chunk) => chunk.done || !chunk.response.is_empty(),
            Self::Plain(chunk) => chunk.done || !chunk.response.is_empty(),
        }
    }

    /// Gives the model the name that the client knows.
    pub fn rename(&mut self, model: &str) {
        let name = match self {
            Self::Chat(chunk) => &mut chunk.model,
            Self::Completion(chunk) => &mut chunk.model,
            Self::OllamaChat(chunk) => &mut chunk.model,
            Self::OllamaGenerate(chunk) => &mut chunk.model,
            Self::Plain(_) => return,
        };
        model.clone_into(name);
    }
}

/// Reads an event of any shape; one that has another is an error that the upstream reports, or garbage.
///
/// # Errors
/// [`NotAChunk`].
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, NotAChunk> {
    serde_json::from_str(text).map_err(|problem| match reported_error(text) {
        Some(message) => NotAChunk::Failure(message),
        None => NotAChunk::Garbage(problem.to_string()),
    })
}

/// The message of an error event in any of the APIs' shapes.
pub fn reported_error(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let error = value.get("error")?;
    let message = error.get("message").unwrap_or(error);
    Some(
        message
            .as_str()
            .map_or_else(|| message.to_string(), str::to_owned),
    )
}

/// An event on its way to the client.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every frame is an event, and there is one at a time"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// An event: its text, and what it says.
    Event(String, Chunk),
    /// OpenAI's `[DONE]`.
    Done,
}

impl Frame {
    /// The event for `chunk`.
    pub fn new(chunk: Chunk) -> Self {
        Self::Event(chunk.to_text(), chunk)
    }

    /// The frame as bytes of the client's stream.
    pub fn to_bytes(&self, api: Api) -> Bytes {
        match self {
            Self::Event(text, _) if api.is_sse() => format!("data: {text}\n\n").into(),
            Self::Event(text, _) => format!("{text}\n").into(),
            Self::Done => Bytes::from_static(sse::DONE),
        }
    }
}
