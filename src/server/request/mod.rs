//! From what a client wrote to what the engine runs, in two steps: each dialect's request becomes
//! one neutral [`Task`] (here its fields are checked, and errors name them); then [`prepare`] makes
//! tokens and a grammar of it with the served model. No HTTP, no clock, no engine.

pub mod defaults;
pub mod ollama;
pub mod openai;
pub mod plain;
mod prepare;
mod sampling;

pub use prepare::{Prepared, Surroundings, prepare};
pub use sampling::Drawing;

use serde_json::Value;

use crate::text::template::{ChatMessage, ToolDefinition};
use crate::text::tools::ToolChoice;

/// What a client wants, whatever its dialect.
#[derive(Clone, Debug)]
pub struct Task {
    /// What to answer or continue.
    pub input: Input,
    /// How tokens are drawn.
    pub drawing: Drawing,
    /// Most tokens of the answer.
    pub limit: Limit,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// The form of the answer.
    pub form: Form,
    /// Alternatives to report per token; `None`: no log-probabilities.
    pub top_logprobs: Option<u8>,
    /// Go on after the model's own end.
    pub ignore_eos: bool,
}

/// What to answer or continue.
#[derive(Clone, Debug)]
pub enum Input {
    /// A conversation, rendered by the model's chat template.
    Chat(Chat),
    /// Text as it stands; names of special tokens in it are those tokens.
    Text(String),
    /// Tokens as they stand.
    Tokens(Vec<u32>),
}

/// A conversation.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// What the model may call.
    pub tools: Vec<ToolDefinition>,
    /// Whether it must.
    pub tool_choice: ToolChoice,
    /// Whether it may call several at once.
    pub parallel_tool_calls: bool,
}

/// Most tokens of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Until the context is full.
    Context,
    /// This many; it is an error when they do not fit behind the prompt.
    Exactly {
        /// The field that said so.
        field: &'static str,
        /// Tokens.
        tokens: u32,
    },
    /// At most this many, fewer where the context is full before.
    AtMost(u32),
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// The field that holds the schema.
        field: &'static str,
        /// The schema.
        schema: Value,
    },
}

#[cfg(test)]
mod tests;
