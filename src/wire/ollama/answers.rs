//! Answers of `/api/chat` and `/api/generate`: one line, or many.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Message;

/// Counts and times of an answer, in the last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// From the request's arrival to the end, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_duration: Option<u64>,
    /// Waiting before the prompt was read, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_duration: Option<u64>,
    /// Tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_eval_count: Option<u32>,
    /// Reading the prompt, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_eval_duration: Option<u64>,
    /// Tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_count: Option<u32>,
    /// Writing the answer, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_duration: Option<u64>,
}

/// A line of `/api/chat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The name the client asked for.
    pub model: String,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// More of the answer; the whole of it when not streamed.
    pub message: Message,
    /// Whether this is the last line.
    #[serde(default)]
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`, in the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// In the last line.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A line of `/api/generate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateResponse {
    /// The name the client asked for.
    pub model: String,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// More of the answer; the whole of it when not streamed.
    #[serde(default)]
    pub response: String,
    /// Whether this is the last line.
    #[serde(default)]
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`, in the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// In the last line.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A call the model made. It has no identity in Ollama's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The call.
    pub function: ToolCallFunction,
}

/// Name and arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallFunction {
    /// Which of several calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Which function.
    pub name: String,
    /// The arguments, as an object.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}
