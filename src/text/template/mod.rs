//! Chat messages to a prompt, by the template in the model file.
//!
//! Decides the prompt. Text from outside can never become a control token, whatever it looks like;
//! a template can neither loop for ever, nor exhaust memory or stack, nor reach anything but what
//! it is given.

mod date;
mod functions;
mod json;
pub mod known;
mod message;
mod run;
mod sentinel;
mod tool_prompt;
mod values;

pub use message::{ChatMessage, ToolCall, ToolDefinition};

use crate::backend::TokenId;
use crate::model::gguf::GgufFile;
use crate::text::tokenizer::{Specials, Tokenizer};
use run::Program;
use sentinel::Names;

/// The format of models that state no template but know its tokens.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// For models that were never trained to chat.
const PLAIN: &str = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + \
    '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";

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
    /// Seconds since 1970 (UTC), for templates that name the date; `None`: the template's own
    /// default.
    pub now: Option<i64>,
    /// Further variables (`chat_template_kwargs`); they cannot replace the ones above.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    usual: Program,
    /// Some models state another template for conversations with tools.
    with_tools: Option<Program>,
    declared: bool,
    bos: String,
    eos: String,
    names: Names,
}

impl ChatTemplate {
    /// The template of a model file; one that fits the vocabulary where it states none.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`].
    pub fn from_gguf(file: &GgufFile, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let source = file.str("tokenizer.chat_template").unwrap_or_default();
        let with_tools = file.str("tokenizer.chat_template.tool_use");
        Self::for_tokenizer(source, with_tools, tokenizer)
    }

    /// Compiles `source` (empty: a default) for the tokens of `tokenizer`, and `with_tools` for
    /// conversations with tools.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`].
    pub fn for_tokenizer(
        source: &str,
        with_tools: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TemplateError> {
        let text = |id: Option<TokenId>| id.map_or("", |id| tokenizer.token_text(id));
        let names: Vec<&str> = tokenizer.control_names().collect();
        let mut template = Self::new(source, text(tokenizer.bos()), text(tokenizer.eos()), &names)?;
        template.with_tools = with_tools.map(Program::new).transpose()?;
        Ok(template)
    }

    /// Compiles `source`; empty: a default. `bos` and `eos` are the texts of those tokens;
    /// `specials` the names of control tokens that text from outside must not spell.
    ///
    /// # Errors
    /// [`TemplateError::Invalid`].
    pub fn new(
        source: &str,
        bos: &str,
        eos: &str,
        specials: &[&str],
    ) -> Result<Self, TemplateError> {
        let declared = !source.is_empty();
        let source = match declared {
            true => source,
            false if specials.contains(&"<|im_start|>") => CHATML,
            false => PLAIN,
        };
        Ok(Self {
            usual: Program::new(source)?,
            with_tools: None,
            declared,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            names: Names::new(specials),
        })
    }

    /// The template's source as the model states it; empty where it states none.
    pub fn source(&self) -> &str {
        match (self.declared, &self.with_tools) {
            (false, _) => "",
            (true, Some(program)) => program.source(),
            (true, None) => self.usual.source(),
        }
    }

    /// Renders a conversation. Where the template knows no tools, they are described in the system
    /// message, and calls and their answers become text in the same format.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] or [`TemplateError::Failed`].
    pub fn render(&self, input: &RenderInput<'_>) -> Result<ChatPrompt, TemplateError> {
        let with_tools = self.with_tools.as_ref().filter(|_| !input.tools.is_empty());
        let program = with_tools.unwrap_or(&self.usual);
        let rewritten;
        let input = if program.knows_tools() || !tool_prompt::is_needed(input) {
            input
        } else {
            rewritten = tool_prompt::as_text(input);
            &RenderInput {
                messages: &rewritten,
                tools: &[],
                add_generation_prompt: input.add_generation_prompt,
                now: input.now,
                variables: input.variables.clone(),
            }
        };
        let sentinel = sentinel::choose(&self.names, input);
        let breaker = sentinel.map(|sentinel| sentinel::Breaker::new(&self.names, sentinel));
        let values = values::Values {
            breaker: breaker.as_ref(),
            bos: &self.bos,
            eos: &self.eos,
        };
        let text = program.run(input, &values)?;
        Ok(ChatPrompt { text, sentinel })
    }
}

/// A rendered prompt that remembers which of its text came from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    text: String,
    /// Breaks the names of control tokens that came from outside.
    sentinel: Option<char>,
}

impl ChatPrompt {
    /// The prompt as text, for a server that takes raw prompts.
    pub fn text(&self) -> String {
        match self.sentinel {
            Some(sentinel) => self.text.replace(sentinel, ""),
            None => self.text.clone(),
        }
    }

    /// The prompt as tokens, beginning with `bos` where the model wants it.
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let mut tokens = match self.sentinel {
            Some(sentinel) => tokenizer.encode_broken(&self.text, sentinel),
            None => tokenizer.encode(&self.text, Specials::Parse),
        };
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        if let Some(bos) = bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        tokens
    }
}

#[cfg(test)]
mod tests;
