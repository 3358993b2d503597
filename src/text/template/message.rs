//! Chat messages as a template sees them.

use serde::Serialize;
use serde_json::Value;

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`. Must be checked by the caller: templates build
    /// special tokens from it.
    pub role: String,
    /// The text; several text parts are joined by the caller. `None` for an assistant's message
    /// that only calls tools.
    pub content: Option<String>,
    /// Name of the speaker, or of the tool that answered.
    pub name: Option<String>,
    /// Calls made by an assistant's message.
    pub tool_calls: Vec<ToolCall>,
    /// The call a tool's message answers.
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message that is only text.
    pub fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: Some(content.to_owned()),
            ..Self::default()
        }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Chosen by whoever made the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, an object; where a client sent a string of JSON the caller has parsed it.
    pub arguments: Value,
}

/// A tool the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolDefinition {
    /// What the model writes to call it.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Value,
}
