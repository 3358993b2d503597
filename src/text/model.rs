//! Everything about text that one model file says.

use crate::model::gguf::GgufFile;
use crate::text::constraint::{ConstraintError, ConstraintFactory};
use crate::text::template::{ChatTemplate, TemplateError};
use crate::text::tokenizer::{Tokenizer, TokenizerError};
use crate::text::tools::ToolFormat;

/// Tokenizer, template, tool format and grammar compiler of one model; share it in an `Arc`.
#[derive(Debug)]
pub struct TextModel {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Messages to prompts.
    pub template: ChatTemplate,
    /// How the model calls tools; `None`: it has no chat template.
    pub tool_format: Option<ToolFormat>,
    /// Structured output.
    pub constraints: ConstraintFactory,
}

/// Why a model file's text parts cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextModelError {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The vocabulary, for grammars.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

impl TextModel {
    /// Builds everything from a model file, whose vocabulary must have been kept.
    ///
    /// # Errors
    /// When a part is missing or cannot be used; the message names it.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TextModelError> {
        let tokenizer = Tokenizer::from_gguf(file)?;
        let template = ChatTemplate::from_gguf(file, &tokenizer)?;
        Self::new(tokenizer, template)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// When the vocabulary is not one that grammars can be compiled for.
    pub fn new(tokenizer: Tokenizer, template: ChatTemplate) -> Result<Self, TextModelError> {
        let constraints = ConstraintFactory::new(&tokenizer)?;
        let tool_format = ToolFormat::detect(template.source());
        Ok(Self {
            tokenizer,
            template,
            tool_format,
            constraints,
        })
    }
}
