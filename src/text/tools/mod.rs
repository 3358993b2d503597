//! Tool calls: how a model writes them, and how to read them out of a stream.
//!
//! Decides which part of generated text is content and which is a call. Calls get their ids from
//! the caller.

mod call;
mod grammar;
mod parser;

pub use parser::{ToolDelta, ToolParser};

use crate::text::constraint::GrammarSpec;
use crate::text::template::ToolDefinition;

/// How a model writes tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen, `SmolLM`.
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
    /// The format a chat template speaks. Where the template knows no tools it is Hermes, in which
    /// [`crate::text::template::ChatTemplate`] then describes them. `None`: there is no template.
    pub fn detect(template: &str) -> Option<Self> {
        if template.is_empty() {
            return None;
        }
        let llama3 = !template.contains("<tool_call>")
            && (template.contains("<|python_tag|>") || template.contains("ipython"));
        Some(if llama3 { Self::Llama3 } else { Self::Hermes })
    }

    /// A grammar under which the answer keeps `choice` and every call names a tool on offer, with
    /// arguments that follow its schema. `parallel`: more than one call is allowed, where the
    /// format can write them. `None`: no call can be made, nothing needs to be forced. A name that
    /// is not on offer gives a grammar that cannot be compiled.
    pub fn grammar(
        self,
        tools: &[ToolDefinition],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Option<GrammarSpec> {
        grammar::build(self, tools, choice, parallel)
    }
}

#[cfg(test)]
mod tests;
