//! The model's own chat template, taken from the metadata of its GGUF file. The vocabulary is not
//! kept: the gateway never needs a token's number.

use std::path::Path;

use crate::model::gguf::{GgufError, GgufFile, ReadOptions};
use crate::text::template::{
    ChatMessage, ChatTemplate, RenderInput, TemplateError, ToolDefinition,
};
use crate::text::tools::ToolFormat;
use crate::wire::{ApiError, ErrorKind};

/// Renders prompts as the engine does.
#[derive(Debug)]
pub struct PromptTemplate {
    template: ChatTemplate,
    tool_format: ToolFormat,
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] GgufError),
    /// It has no chat template.
    #[error("the model file has no chat template (tokenizer.chat_template)")]
    Absent,
    /// The template does not compile.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl PromptTemplate {
    /// Reads the metadata of the file at `path`.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn load(path: &Path) -> Result<Self, PromptError> {
        let file = GgufFile::open_with(path, ReadOptions::WITHOUT_VOCABULARY)?;
        let source = file
            .str("tokenizer.chat_template")
            .ok_or(PromptError::Absent)?;
        // Few templates name the end token; only for those is the vocabulary read, and dropped.
        let eos = if source.contains("eos_token") {
            eos_text(path, &file)?.unwrap_or_default()
        } else {
            String::new()
        };
        Ok(Self::new(source, &eos)?)
    }

    /// From a template's source. The begin token is left out: who takes a raw prompt adds it.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn new(source: &str, eos: &str) -> Result<Self, TemplateError> {
        Ok(Self {
            template: ChatTemplate::new(source, "", eos, &[])?,
            // Models that were not trained to call tools are told to do it this way.
            tool_format: ToolFormat::detect(source).unwrap_or(ToolFormat::Hermes),
        })
    }

    /// How the model calls tools.
    pub const fn tool_format(&self) -> ToolFormat {
        self.tool_format
    }

    /// The prompt up to where the answer begins.
    ///
    /// # Errors
    /// 400 when the template refuses the conversation.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[ToolDefinition],
        now: i64,
    ) -> Result<String, ApiError> {
        let input = RenderInput {
            messages,
            tools,
            add_generation_prompt: true,
            now: Some(now),
            ..RenderInput::default()
        };
        match self.template.render(&input) {
            Ok(prompt) => Ok(prompt.text()),
            Err(TemplateError::Invalid(problem)) => {
                Err(ApiError::new(ErrorKind::Unavailable, problem))
            }
            Err(error) => Err(ApiError::field("messages", error.to_string())),
        }
    }
}

fn eos_text(path: &Path, file: &GgufFile) -> Result<Option<String>, GgufError> {
    let Some(id) = file.u32("tokenizer.ggml.eos_token_id") else {
        return Ok(None);
    };
    let whole = GgufFile::open_with(path, ReadOptions::ALL)?;
    let tokens = whole.strings("tokenizer.ggml.tokens");
    Ok(tokens
        .and_then(|tokens| tokens.get(id as usize))
        .map(str::to_owned))
}
