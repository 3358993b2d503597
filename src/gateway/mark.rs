//! How an answer that was continued says so: a comment where it was broken (server-sent events),
//! and a field in the last event that tells why it ended.

use bytes::Bytes;
use serde_json::{Value, json};

use super::chunk::{Chunk, Frame};
use super::endpoint::Api;

/// The field's name.
pub const FIELD: &str = "enginewright";

/// What is said about a continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Who went on.
    pub backend: String,
    /// After how many characters of the answer.
    pub after_characters: usize,
    /// What happened.
    pub reason: String,
}

impl Resumed {
    /// The comment, where the framing has comments.
    pub fn comment(&self, api: Api) -> Bytes {
        if !api.is_sse() {
            return Bytes::new();
        }
        let Self {
            backend,
            after_characters,
            ..
        } = self;
        format!(": {FIELD}: resumed on {backend} after {after_characters} characters\n\n").into()
    }

    /// The frame with the field, if it is the one that ends the answer.
    pub fn mark(&self, frame: &Frame) -> Option<Frame> {
        let Frame::Event(text, chunk) = frame else {
            return None;
        };
        let ends = match chunk {
            Chunk::Chat(chunk) => chunk.choices.iter().any(|c| c.finish_reason.is_some()),
            Chunk::Completion(chunk) => chunk.choices.iter().any(|c| c.finish_reason.is_some()),
            Chunk::OllamaChat(chunk) => chunk.done,
            Chunk::OllamaGenerate(chunk) => chunk.done,
            Chunk::Plain(chunk) => chunk.done,
        };
        if !ends {
            return None;
        }
        let mut value: Value = serde_json::from_str(text).ok()?;
        value.as_object_mut()?.insert(
            FIELD.into(),
            json!({ "resumed": {
                "backend": self.backend,
                "after_characters": self.after_characters,
                "reason": self.reason,
            }}),
        );
        Some(Frame::Event(value.to_string(), chunk.clone()))
    }
}
