//! Everything about text that one model file says.

use crate::text::constraint::ConstraintFactory;
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::text::tools::ToolFormat;

/// Tokenizer, template, tool format and grammar compiler of one model; share it in an `Arc`.
#[derive(Debug)]
pub struct TextModel {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Messages to prompts.
    pub template: ChatTemplate,
    /// How the model calls tools; `None`: it was not trained to.
    pub tool_format: Option<ToolFormat>,
    /// Structured output.
    pub constraints: ConstraintFactory,
}
