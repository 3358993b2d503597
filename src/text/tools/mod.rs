//! Tool calls: how a model writes them, and how to read them out of a stream.
//!
//! Decides which part of generated text is content and which is a call. Calls get their ids from
//! the caller.

use crate::text::constraint::GrammarSpec;
use crate::text::template::ToolDefinition;

/// How a model writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen, SmolLM.
    Hermes,
    /// `{"name": …, "parameters": {…}}`, optionally after `<|python_tag|>`: Llama 3.
    Llama3,
}

/// Which calls the client wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call.
    None,
    /// At least one call.
    Required,
    /// This tool.
    Named(String),
}

impl ToolFormat {
    /// The format a chat template speaks; `None` where it knows no tools.
    pub fn detect(template: &str) -> Option<Self> {
        if template.is_empty() {
            return None;
        }
        let llama3 = !template.contains("<tool_call>")
            && (template.contains("<|python_tag|>") || template.contains("ipython"));
        Some(if llama3 { Self::Llama3 } else { Self::Hermes })
    }

    /// A grammar under which the answer keeps `choice` and every call is valid for its schema.
    /// `None` where nothing needs to be forced.
    pub fn grammar(
        self,
        tools: &[ToolDefinition],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Option<GrammarSpec> {
        let _ = (tools, choice, parallel);
        None
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolDelta {
    /// Text for the reader.
    Content(String),
    /// A call begins.
    CallStart {
        /// Which call of this answer, from 0.
        index: u32,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments: JSON text.
    CallArguments {
        /// Which call of this answer.
        index: u32,
        /// The next piece.
        fragment: String,
    },
}

/// Reads calls out of generated text as it comes.
#[derive(Clone, Debug)]
pub struct ToolParser {
    format: ToolFormat,
}

impl ToolParser {
    /// Starts an answer.
    pub fn new(format: ToolFormat) -> Self {
        Self { format }
    }

    /// Adds generated text.
    pub fn push(&mut self, text: &str) -> Vec<ToolDelta> {
        let _ = self.format;
        vec![ToolDelta::Content(text.to_owned())]
    }

    /// The answer is over.
    pub fn finish(&mut self) -> Vec<ToolDelta> {
        Vec::new()
    }
}
