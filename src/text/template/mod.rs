//! Chat messages to a prompt, by the template in the model file.
//!
//! Decides the prompt. Text from outside can never become a control token, whatever it looks like;
//! a template can neither loop for ever nor reach anything but what it is given.

mod message;

pub use message::{ChatMessage, ToolCall, ToolDefinition};

use crate::backend::TokenId;
use crate::text::tokenizer::Tokenizer;

/// Why a prompt could not be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template in the model file is not one we can run.
    #[error("the model's chat template cannot be used: {0}")]
    Invalid(String),
    /// The template refused the conversation (`raise_exception`): the client's mistake.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed or used too much time or memory on this conversation.
    #[error("the model's chat template failed on this conversation: {0}")]
    Failed(String),
}

/// What a template renders.
#[derive(Clone, Debug, Default)]
pub struct RenderInput<'a> {
    /// The conversation.
    pub messages: &'a [ChatMessage],
    /// Tools on offer; empty: none.
    pub tools: &'a [ToolDefinition],
    /// End with the opening of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Seconds since 1970 (UTC), for templates that name the date; `None`: the template's own default.
    pub now: Option<i64>,
    /// Further variables (`chat_template_kwargs`).
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate;

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the texts of those tokens; `specials` the names of
    /// control tokens that text from outside must not spell.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`].
    pub fn new(
        source: &str,
        bos: &str,
        eos: &str,
        specials: &[&str],
    ) -> Result<Self, TemplateError> {
        let _ = (source, bos, eos, specials);
        Ok(Self)
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] or [`TemplateError::Failed`].
    pub fn render(&self, input: &RenderInput<'_>) -> Result<ChatPrompt, TemplateError> {
        let _ = input;
        Ok(ChatPrompt)
    }
}

/// A rendered prompt that remembers which of its text came from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt;

impl ChatPrompt {
    /// The prompt as text, for a server that takes raw prompts.
    pub fn text(&self) -> String {
        String::new()
    }

    /// The prompt as tokens, beginning with `bos` where the model wants it.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let _ = tokenizer;
        Vec::new()
    }
}
