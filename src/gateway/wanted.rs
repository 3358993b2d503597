//! What a client wants, in terms of the fallback: messages, tools, options, format. Read only when
//! a request has to be translated or an answer continued, so that the usual path stays a pass-through.
//!
//! Whatever the fallback cannot honour is refused by name; nothing is dropped in silence that would
//! change what the client may rely on.

use serde_json::{Value, json};

use super::ask::Ask;
use super::endpoint::Api;
use crate::text::template::{ChatMessage, ToolCall, ToolDefinition};
use crate::text::tools::ToolChoice;
use crate::wire::ollama::{self, Options};
use crate::wire::openai::{self, Prompt, ResponseFormatKind, Role, ToolChoiceMode};
use crate::wire::{ApiError, generate, json};

/// A request in the fallback's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What to answer.
    pub input: Input,
    /// Tools on offer.
    pub tools: Vec<ToolDefinition>,
    /// Which of them to call.
    pub choice: ToolChoice,
    /// Sampling, limits, stop strings.
    pub options: Options,
    /// `"json"` or a JSON schema.
    pub format: Option<Value>,
    /// A promise that no fallback can keep.
    cannot: Option<&'static str>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Text to go on from, as it stands.
    Raw(String),
    /// A conversation.
    Chat(Vec<ChatMessage>),
}

impl Wanted {
    /// Reads a request.
    ///
    /// # Errors
    /// 400, naming the field, for what no back end here can do.
    pub fn read(ask: &Ask) -> Result<Self, ApiError> {
        match ask.api {
            Api::Chat => chat(json::parse(&ask.body)?),
            Api::Completion => completion(json::parse(&ask.body)?),
            Api::OllamaChat => ollama_chat(json::parse(&ask.body)?),
            Api::OllamaGenerate => ollama_generate(json::parse(&ask.body)?),
            Api::Plain => Ok(plain(json::parse(&ask.body)?)),
        }
    }

    /// What was asked for that the fallback cannot give, however it is asked.
    pub const fn impossible(&self) -> Option<&'static str> {
        self.cannot
    }

    /// Why an answer cannot be gone on with after its first words, if so.
    pub const fn promise_lost_by_continuing(&self) -> Option<&'static str> {
        if self.cannot.is_some() {
            return self.cannot;
        }
        if self.format.is_some() {
            return Some("the rest of the answer could not be held to the requested format");
        }
        if self.is_forced() {
            return Some("the rest of the answer could not be held to the requested tool call");
        }
        None
    }

    /// Whether a tool must be called.
    pub const fn is_forced(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_))
    }

    /// Whether tools may be called.
    pub fn offers_tools(&self) -> bool {
        !self.tools.is_empty() && self.choice != ToolChoice::None
    }

    /// Whether the prompt has to be rendered before an answer can be continued.
    pub const fn needs_template(&self) -> bool {
        matches!(self.input, Input::Chat(_))
    }

    /// The limit of tokens, if one was set.
    pub fn max_tokens(&self) -> Option<u32> {
        self.options
            .num_predict
            .and_then(|limit| u32::try_from(limit).ok())
    }

    fn new(input: Input, options: Options) -> Self {
        Self {
            input,
            tools: Vec::new(),
            choice: ToolChoice::None,
            options,
            format: None,
            cannot: None,
        }
    }
}

/// What OpenAI's API assumes where nothing is said; Ollama would assume something else.
fn openai_options() -> Options {
    Options {
        temperature: Some(1.0),
        top_p: Some(1.0),
        top_k: Some(0),
        min_p: Some(0.0),
        repeat_penalty: Some(1.0),
        ..Options::default()
    }
}

fn chat(request: openai::ChatCompletionRequest) -> Result<Wanted, ApiError> {
    let messages = request
        .messages
        .into_iter()
        .enumerate()
        .map(|(at, message)| openai_message(at, message))
        .collect::<Result<_, _>>()?;
    let base = openai_options();
    let options = Options {
        num_predict: request
            .max_completion_tokens
            .or(request.max_tokens)
            .map(i64::from),
        temperature: request.temperature.or(base.temperature),
        top_p: request.top_p.or(base.top_p),
        top_k: request.top_k.map(i64::from).or(base.top_k),
        min_p: request.min_p.or(base.min_p),
        repeat_penalty: request.repetition_penalty.or(base.repeat_penalty),
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        seed: request.seed,
        stop: request.stop,
        ..base
    };
    let mut wanted = Wanted::new(Input::Chat(messages), options);
    wanted.tools = tools(request.tools.unwrap_or_default());
    wanted.choice = match request.tool_choice {
        None | Some(openai::ToolChoice::Mode(ToolChoiceMode::Auto)) => ToolChoice::Auto,
        Some(openai::ToolChoice::Mode(ToolChoiceMode::None)) => ToolChoice::None,
        Some(openai::ToolChoice::Mode(ToolChoiceMode::Required)) => ToolChoice::Required,
        Some(openai::ToolChoice::Function(name)) => ToolChoice::Named(name),
    };
    check_choice(&wanted)?;
    wanted.format = match request.response_format {
        None => None,
        Some(format) => match format.kind {
            ResponseFormatKind::Text => None,
            ResponseFormatKind::JsonObject => Some("json".into()),
            ResponseFormatKind::JsonSchema => Some(
                format
                    .json_schema
                    .and_then(|named| named.schema)
                    .unwrap_or_else(|| json!({})),
            ),
        },
    };
    wanted.cannot = if request.logprobs == Some(true) {
        Some("the fallback cannot report log-probabilities")
    } else {
        unusual(
            request.logit_bias.is_some_and(|bias| !bias.is_empty()),
            request.n,
        )
    };
    Ok(wanted)
}

fn completion(request: openai::CompletionRequest) -> Result<Wanted, ApiError> {
    let prompt = match request.prompt {
        Prompt::Text(text) => text,
        Prompt::Texts(mut texts) if texts.len() == 1 => texts.remove(0),
        Prompt::Texts(_) | Prompt::Tokens(_) | Prompt::TokenLists(_) => {
            let mut wanted = Wanted::new(Input::Raw(String::new()), Options::default());
            wanted.cannot = Some("the fallback takes one prompt, as text");
            return Ok(wanted);
        }
    };
    let base = openai_options();
    let options = Options {
        // OpenAI's default for this API.
        num_predict: Some(request.max_tokens.map_or(16, i64::from)),
        temperature: request.temperature.or(base.temperature),
        top_p: request.top_p.or(base.top_p),
        top_k: request.top_k.map(i64::from).or(base.top_k),
        min_p: request.min_p.or(base.min_p),
        repeat_penalty: request.repetition_penalty.or(base.repeat_penalty),
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        seed: request.seed,
        stop: request.stop,
        ..base
    };
    let mut wanted = Wanted::new(Input::Raw(prompt), options);
    wanted.cannot = if request.logprobs.is_some() {
        Some("the fallback cannot report log-probabilities")
    } else if request.echo == Some(true) {
        Some("the fallback cannot echo the prompt")
    } else if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        Some("the fallback cannot write in front of a suffix")
    } else {
        let bias = request.logit_bias.is_some_and(|bias| !bias.is_empty());
        unusual(bias, request.n.max(request.best_of))
    };
    Ok(wanted)
}

fn ollama_chat(request: ollama::ChatRequest) -> Result<Wanted, ApiError> {
    let messages = request.messages.unwrap_or_default();
    let images = messages.iter().any(|message| message.images.is_some());
    let messages = messages.into_iter().map(ollama_message).collect();
    let mut wanted = Wanted::new(Input::Chat(messages), own_options(request.options));
    wanted.tools = tools(request.tools.unwrap_or_default());
    wanted.choice = ToolChoice::Auto;
    wanted.format = format(request.format)?;
    wanted.cannot = images.then_some("images cannot be read here");
    Ok(wanted)
}

fn ollama_generate(request: ollama::GenerateRequest) -> Result<Wanted, ApiError> {
    if request
        .template
        .is_some_and(|template| !template.is_empty())
    {
        return Err(ApiError::field(
            "template",
            "templates come from the model file only",
        ));
    }
    let prompt = request.prompt.unwrap_or_default();
    let input = if request.raw == Some(true) {
        Input::Raw(prompt)
    } else {
        Input::Chat(with_system(request.system, &prompt))
    };
    let mut wanted = Wanted::new(input, own_options(request.options));
    wanted.format = format(request.format)?;
    wanted.cannot = if request.images.is_some_and(|images| !images.is_empty()) {
        Some("images cannot be read here")
    } else if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        Some("the fallback cannot write in front of a suffix")
    } else {
        None
    };
    Ok(wanted)
}

fn plain(request: generate::Request) -> Wanted {
    let input = if request.raw == Some(true) {
        Input::Raw(request.prompt)
    } else {
        Input::Chat(with_system(request.system, &request.prompt))
    };
    let base = openai_options();
    let options = Options {
        num_predict: request.max_tokens.map(i64::from),
        temperature: request.temperature.or(base.temperature),
        top_p: request.top_p.or(base.top_p),
        seed: request.seed,
        stop: request.stop,
        ..base
    };
    Wanted::new(input, options)
}

fn with_system(system: Option<String>, prompt: &str) -> Vec<ChatMessage> {
    let system = system.filter(|text| !text.is_empty());
    system
        .map(|text| ChatMessage::new("system", &text))
        .into_iter()
        .chain([ChatMessage::new("user", prompt)])
        .collect()
}

/// A client's Ollama options without those that would make Ollama load the model anew.
fn own_options(options: Option<Options>) -> Options {
    Options {
        num_ctx: None,
        ..options.unwrap_or_default()
    }
}

const fn unusual(bias: bool, answers: Option<u32>) -> Option<&'static str> {
    if bias {
        return Some("the fallback cannot bias single tokens");
    }
    match answers {
        None | Some(0 | 1) => None,
        Some(_) => Some("the fallback writes one answer per request"),
    }
}

fn format(format: Option<Value>) -> Result<Option<Value>, ApiError> {
    match format {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text == "json" => Ok(Some(text.into())),
        Some(schema @ Value::Object(_)) => Ok(Some(schema)),
        Some(_) => Err(ApiError::field(
            "format",
            "must be \"json\" or a JSON schema",
        )),
    }
}

fn tools(tools: Vec<openai::Tool>) -> Vec<ToolDefinition> {
    tools
        .into_iter()
        .map(|tool| ToolDefinition {
            name: tool.function.name,
            description: tool.function.description,
            parameters: tool
                .function
                .parameters
                .unwrap_or_else(|| json!({ "type": "object", "properties": {} })),
        })
        .collect()
}

fn check_choice(wanted: &Wanted) -> Result<(), ApiError> {
    match &wanted.choice {
        ToolChoice::Named(name) if !wanted.tools.iter().any(|tool| &tool.name == name) => Err(
            ApiError::field("tool_choice", format!("{name:?} is not one of the tools")),
        ),
        ToolChoice::Required if wanted.tools.is_empty() => Err(ApiError::field(
            "tool_choice",
            "\"required\" needs at least one tool",
        )),
        _ => Ok(()),
    }
}

fn openai_message(at: usize, message: openai::Message) -> Result<ChatMessage, ApiError> {
    let content = match message.content {
        None => None,
        Some(openai::Content::Text(text)) => Some(text),
        Some(openai::Content::Parts(parts)) => Some(joined(at, parts)?),
    };
    let tool_calls = message
        .tool_calls
        .unwrap_or_default()
        .into_iter()
        .map(|call| ToolCall {
            id: call.id,
            arguments: serde_json::from_str(&call.function.arguments)
                .unwrap_or(Value::String(call.function.arguments)),
            name: call.function.name,
        })
        .collect();
    let role = if message.role == Role::Developer {
        Role::System
    } else {
        message.role
    };
    Ok(ChatMessage {
        role: role.as_str().to_owned(),
        content,
        name: message.name,
        tool_calls,
        tool_call_id: message.tool_call_id,
    })
}

fn joined(at: usize, parts: Vec<openai::ContentPart>) -> Result<String, ApiError> {
    let texts = parts.into_iter().enumerate().map(|(part_at, part)| {
        if part.kind == "text" {
            return Ok(part.text.unwrap_or_default());
        }
        let path = format!("messages[{at}].content[{part_at}].type");
        Err(ApiError::field(
            path,
            format!("{:?} cannot be read here; allowed: text", part.kind),
        ))
    });
    texts.collect()
}

fn ollama_message(message: ollama::Message) -> ChatMessage {
    let tool_calls = message
        .tool_calls
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(at, call)| ToolCall {
            id: format!("call_{at}"),
            name: call.function.name,
            arguments: Value::Object(call.function.arguments),
        })
        .collect();
    ChatMessage {
        role: message.role.as_str().to_owned(),
        content: Some(message.content),
        name: message.tool_name,
        tool_calls,
        tool_call_id: None,
    }
}

#[cfg(test)]
mod tests;
