//! What a client wants, in terms of the fallback. Read only when a request has to be translated or
//! an answer continued, so that the usual path stays a pass-through.
//!
//! The request is checked by the same code as in the engine's server, so that a mistake gets the
//! same answer whoever is there. Whatever the fallback cannot honour is refused by name; nothing is
//! dropped in silence that the client may rely on.

use bytes::Bytes;
use serde_json::Value;

use super::ask::Ask;
use super::endpoint::Api;
use crate::server::request::{self, Chat, Form, Input, Limit, Task};
use crate::text::tools::ToolChoice;
use crate::wire::ollama::Options;
use crate::wire::openai::{CompletionRequest, Stop};
use crate::wire::{ApiError, ErrorKind, json};

/// What to send to an upstream that speaks another dialect than the client, and how to read the answer.
#[derive(Debug)]
pub struct Call<R> {
    /// The path.
    pub path: &'static str,
    /// The body.
    pub body: Bytes,
    /// For the lines or events that come back.
    pub reader: R,
}

/// The text a continuation goes on from.
#[derive(Clone, Copy, Debug)]
pub struct SoFar<'a> {
    /// What the client has read.
    pub text: &'a str,
    /// Most tokens to add.
    pub tokens_left: Option<u32>,
}

/// A promise that nobody who is left can keep.
pub fn unavailable(reason: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        format!("the engine does not answer, and {reason}"),
    )
}

/// A request in the fallback's terms.
#[derive(Clone, Debug)]
pub struct Wanted {
    task: Task,
    /// A promise that no fallback can keep.
    cannot: Option<&'static str>,
}

impl Wanted {
    /// Reads a request; `None`: the client only wants the model to be loaded.
    ///
    /// # Errors
    /// 400, naming the field.
    pub fn read(ask: &Ask) -> Result<Option<Self>, ApiError> {
        let body = &ask.body;
        let task = match ask.api {
            Api::Chat => Some(request::openai::chat(json::parse(body)?)?),
            Api::Completion => return completion(json::parse(body)?).map(Some),
            Api::OllamaChat => request::ollama::chat(json::parse(body)?)?,
            Api::OllamaGenerate => request::ollama::generate(json::parse(body)?)?,
            Api::Plain => Some(request::plain::generate(json::parse(body)?)?),
        };
        Ok(task.map(Self::new))
    }

    fn new(task: Task) -> Self {
        let cannot = if task.top_logprobs.is_some() {
            Some("the fallback cannot report log-probabilities")
        } else if !task.drawing.params.logit_bias.is_empty() {
            Some("the fallback cannot bias single tokens")
        } else if task.ignore_eos {
            Some("the fallback cannot go on after the model's own end")
        } else if matches!(task.input, Input::Tokens(_)) {
            Some("the fallback takes prompts as text only")
        } else {
            None
        };
        Self { task, cannot }
    }

    /// What was asked for that the fallback cannot give, however it is asked.
    pub const fn impossible(&self) -> Option<&'static str> {
        self.cannot
    }

    /// Why an answer cannot be gone on with after its first words, if so.
    pub fn promise_lost_by_continuing(&self) -> Option<&'static str> {
        if self.cannot.is_some() {
            return self.cannot;
        }
        if self.task.form != Form::Text {
            return Some("the rest of the answer could not be held to the requested format");
        }
        if self.is_forced() {
            return Some("the rest of the answer could not be held to the requested tool call");
        }
        None
    }

    /// The text to go on from, where it is no conversation.
    pub const fn raw_prompt(&self) -> Option<&String> {
        match &self.task.input {
            Input::Text(text) => Some(text),
            Input::Chat(_) | Input::Tokens(_) => None,
        }
    }

    /// The conversation.
    pub const fn chat(&self) -> Option<&Chat> {
        match &self.task.input {
            Input::Chat(chat) => Some(chat),
            Input::Text(_) | Input::Tokens(_) => None,
        }
    }

    /// Whether a tool must be called.
    pub fn is_forced(&self) -> bool {
        self.chat().is_some_and(|chat| {
            matches!(
                chat.tool_choice,
                ToolChoice::Required | ToolChoice::Named(_)
            )
        })
    }

    /// Whether tools may be called.
    pub fn offers_tools(&self) -> bool {
        self.chat()
            .is_some_and(|chat| !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None)
    }

    /// The limit of tokens, if one was set.
    pub const fn max_tokens(&self) -> Option<u32> {
        match self.task.limit {
            Limit::Context => None,
            Limit::Exactly { tokens, .. } | Limit::AtMost(tokens) => Some(tokens),
        }
    }

    /// The form of the answer, as Ollama's `format`.
    pub fn format(&self) -> Option<Value> {
        match &self.task.form {
            Form::Text => None,
            Form::JsonObject => Some("json".into()),
            Form::JsonSchema { schema, .. } => Some(schema.clone()),
        }
    }

    /// Sampling, limit and stop strings, each said, since Ollama's defaults are not everybody's. Of an
    /// answer that is continued, the limit is what is left of it.
    ///
    /// # Errors
    /// 503 for what is [`Self::impossible`].
    pub fn options(&self, so_far: Option<SoFar<'_>>) -> Result<Options, ApiError> {
        if let Some(reason) = self.impossible() {
            return Err(unavailable(reason));
        }
        let tokens = so_far
            .and_then(|so_far| so_far.tokens_left)
            .or_else(|| self.max_tokens());
        let params = &self.task.drawing.params;
        Ok(Options {
            num_predict: tokens.map(i64::from),
            temperature: Some(params.temperature),
            top_k: Some(i64::from(params.top_k)),
            top_p: Some(params.top_p),
            min_p: Some(params.min_p),
            repeat_penalty: Some(params.repetition_penalty),
            repeat_last_n: Some(params.repetition_window.map_or(-1, i64::from)),
            presence_penalty: Some(params.presence_penalty),
            frequency_penalty: Some(params.frequency_penalty),
            // Ollama reads a signed number; the same bits are the same seed.
            seed: self.task.drawing.seed.map(u64::cast_signed),
            stop: (!self.task.stop.is_empty()).then(|| Stop(self.task.stop.clone())),
            num_ctx: None,
        })
    }
}

fn completion(request: CompletionRequest) -> Result<Wanted, ApiError> {
    let echo = request.echo == Some(true);
    let mut wanted = Wanted::new(request::openai::completion(request)?);
    if echo {
        wanted.cannot = Some("the fallback cannot echo the prompt");
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests;
