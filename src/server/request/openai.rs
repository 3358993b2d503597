//! OpenAI's requests as tasks.

use serde_json::Value;

use super::sampling::{self, Drawing, in_range};
use super::{Chat, Form, Input, Limit, Task};
use crate::text::sampling::SamplingParams;
use crate::text::template::{ChatMessage, ToolCall, ToolDefinition};
use crate::text::tools::ToolChoice;
use crate::wire::ApiError;
use crate::wire::openai::{
    self, ChatCompletionRequest, CompletionRequest, Content, Message, Prompt, ResponseFormat,
    ResponseFormatKind, Role, Sampling, Tool, ToolChoiceMode,
};

/// Most tools of a request.
pub(super) const MAX_TOOLS: usize = 128;
/// OpenAI's default for completions.
const COMPLETION_TOKENS: u32 = 16;

/// Checks a chat request.
///
/// # Errors
/// 400 naming the field.
pub fn chat(mut request: ChatCompletionRequest) -> Result<Task, ApiError> {
    let drawing = drawing(request.take_sampling())?;
    sampling::single("n", request.n)?;
    let from_model = "is not accepted: the chat template comes with the model";
    sampling::refuse("chat_template", request.chat_template.as_ref(), from_model)?;
    sampling::refuse(
        "chat_template_kwargs",
        request.chat_template_kwargs.as_ref(),
        from_model,
    )?;
    sampling::refuse(
        "functions",
        request.functions.as_ref(),
        "is obsolete: use tools",
    )?;
    if request
        .modalities
        .is_some_and(|all| all.iter().any(|kind| kind != "text"))
    {
        return Err(ApiError::field("modalities", "this model writes only text"));
    }
    let limit = match (request.max_completion_tokens, request.max_tokens) {
        (Some(tokens), _) => exactly("max_completion_tokens", tokens)?,
        (None, Some(tokens)) => exactly("max_tokens", tokens)?,
        (None, None) => Limit::Context,
    };
    let top_logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (true, count) => Some(sampling::alternatives("top_logprobs", count.unwrap_or(0))?),
        (false, None | Some(0)) => None,
        (false, Some(_)) => return Err(ApiError::field("top_logprobs", "needs logprobs: true")),
    };
    let chat = Chat {
        messages: messages(request.messages)?,
        tools: tools(request.tools.unwrap_or_default())?,
        tool_choice: match request.tool_choice {
            None | Some(openai::ToolChoice::Mode(ToolChoiceMode::Auto)) => ToolChoice::Auto,
            Some(openai::ToolChoice::Mode(ToolChoiceMode::None)) => ToolChoice::None,
            Some(openai::ToolChoice::Mode(ToolChoiceMode::Required)) => ToolChoice::Required,
            Some(openai::ToolChoice::Function(name)) => ToolChoice::Named(name),
        },
        parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
    };
    let form = form(request.response_format)?;
    check_tools(&chat, &form)?;
    Ok(Task {
        input: Input::Chat(chat),
        drawing,
        limit,
        stop: sampling::stop("stop", request.stop.map(|stop| stop.0))?,
        form,
        top_logprobs,
        ignore_eos: request.ignore_eos.unwrap_or(false),
    })
}

/// Checks a completion request.
///
/// # Errors
/// 400 naming the field.
pub fn completion(mut request: CompletionRequest) -> Result<Task, ApiError> {
    let drawing = drawing(request.take_sampling())?;
    sampling::single("n", request.n)?;
    sampling::single("best_of", request.best_of)?;
    let suffix = request.suffix.filter(|suffix| !suffix.is_empty());
    sampling::refuse(
        "suffix",
        suffix.as_ref(),
        "this model cannot fill in the middle",
    )?;
    let echo = request.echo.unwrap_or(false);
    if echo && request.logprobs.is_some() {
        return Err(ApiError::field("echo", "cannot be combined with logprobs"));
    }
    let input = match request.prompt {
        Prompt::Text(text) => Input::Text(text),
        Prompt::Tokens(tokens) => Input::Tokens(tokens),
        Prompt::Texts(mut texts) if texts.len() == 1 => Input::Text(texts.remove(0)),
        Prompt::TokenLists(mut lists) if lists.len() == 1 => Input::Tokens(lists.remove(0)),
        Prompt::Texts(_) | Prompt::TokenLists(_) => {
            return Err(ApiError::field(
                "prompt",
                "only one prompt per request is supported",
            ));
        }
    };
    Ok(Task {
        input,
        drawing,
        limit: exactly(
            "max_tokens",
            request.max_tokens.unwrap_or(COMPLETION_TOKENS),
        )?,
        stop: sampling::stop("stop", request.stop.map(|stop| stop.0))?,
        form: Form::Text,
        top_logprobs: request
            .logprobs
            .map(|count| sampling::alternatives("logprobs", count))
            .transpose()?,
        ignore_eos: request.ignore_eos.unwrap_or(false),
    })
}

/// OpenAI's ranges and defaults.
fn drawing(asked: Sampling) -> Result<Drawing, ApiError> {
    Ok(Drawing {
        params: SamplingParams {
            temperature: in_range("temperature", asked.temperature, (0.0, 2.0), 1.0)?,
            top_k: asked.top_k.unwrap_or(0),
            top_p: in_range("top_p", asked.top_p, (0.0, 1.0), 1.0)?,
            min_p: in_range("min_p", asked.min_p, (0.0, 1.0), 0.0)?,
            repetition_penalty: in_range(
                "repetition_penalty",
                asked.repetition_penalty,
                (0.1, 10.0),
                1.0,
            )?,
            presence_penalty: penalty("presence_penalty", asked.presence_penalty)?,
            frequency_penalty: penalty("frequency_penalty", asked.frequency_penalty)?,
            logit_bias: sampling::logit_bias(asked.logit_bias)?,
            ..SamplingParams::default()
        },
        seed: asked.seed.map(sampling::seed),
    })
}

fn penalty(field: &str, value: Option<f32>) -> Result<f32, ApiError> {
    in_range(field, value, (-2.0, 2.0), 0.0)
}

fn exactly(field: &'static str, tokens: u32) -> Result<Limit, ApiError> {
    if tokens == 0 {
        return Err(ApiError::field(field, "must be at least 1"));
    }
    Ok(Limit::Exactly { field, tokens })
}

fn messages(messages: Vec<Message>) -> Result<Vec<ChatMessage>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field(
            "messages",
            "must hold at least one message",
        ));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| checked(index, message))
        .collect()
}

fn checked(index: usize, message: Message) -> Result<ChatMessage, ApiError> {
    let path = |rest: &str| format!("messages[{index}].{rest}");
    let calls = message.tool_calls.unwrap_or_default();
    if !calls.is_empty() && message.role != Role::Assistant {
        return Err(ApiError::field(
            path("tool_calls"),
            "only an assistant calls tools",
        ));
    }
    let content = message
        .content
        .map(|content| text_of(index, content))
        .transpose()?;
    if content.is_none() && calls.is_empty() {
        return Err(ApiError::field(path("content"), "is required"));
    }
    let tool_calls = calls
        .into_iter()
        .enumerate()
        .map(|(call, it)| {
            let arguments = call_arguments(&it.function.arguments).map_err(|problem| {
                ApiError::field(
                    path(&format!("tool_calls[{call}].function.arguments")),
                    problem,
                )
            })?;
            Ok(ToolCall {
                id: it.id,
                name: it.function.name,
                arguments,
            })
        })
        .collect::<Result<_, ApiError>>()?;
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

fn text_of(message: usize, content: Content) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let mut all = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let path = format!("messages[{message}].content[{index}]");
        if part.kind != "text" {
            let kind: String = part.kind.chars().take(40).collect();
            return Err(ApiError::field(
                format!("{path}.type"),
                format!("this model reads only text, not `{kind}`"),
            ));
        }
        all.push(
            part.text
                .ok_or_else(|| ApiError::field(format!("{path}.text"), "is required"))?,
        );
    }
    Ok(all.join("\n"))
}

/// The arguments of an earlier call, which the client sends back as text.
fn call_arguments(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    match crate::wire::json::parse::<Value>(text.as_bytes()) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err("must be a JSON object, as text".into()),
        Err(error) => Err(format!("must be a JSON object, as text: {error}")),
    }
}

/// Checks the tools of a request; also Ollama's, which have the same form.
///
/// # Errors
/// 400 naming the field.
pub(super) fn tools(tools: Vec<Tool>) -> Result<Vec<ToolDefinition>, ApiError> {
    if tools.len() > MAX_TOOLS {
        return Err(ApiError::field(
            "tools",
            format!("has at most {MAX_TOOLS} entries"),
        ));
    }
    let mut checked: Vec<ToolDefinition> = Vec::with_capacity(tools.len());
    for (index, tool) in tools.into_iter().enumerate() {
        let path = |rest: &str| format!("tools[{index}].{rest}");
        if tool.kind != "function" {
            return Err(ApiError::field(
                path("type"),
                "only \"function\" is supported",
            ));
        }
        let function = tool.function;
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if function.name.is_empty()
            || function.name.len() > 64
            || !function.name.chars().all(in_name)
        {
            let problem = "must have 1 to 64 letters, digits, '_', '-' or '.'";
            return Err(ApiError::field(path("function.name"), problem));
        }
        if checked.iter().any(|other| other.name == function.name) {
            return Err(ApiError::field(path("function.name"), "is there twice"));
        }
        let parameters = function.parameters.unwrap_or_else(|| serde_json::json!({}));
        let Value::Object(mut schema) = parameters else {
            return Err(ApiError::field(
                path("function.parameters"),
                "must be a JSON schema object",
            ));
        };
        if schema.get("type").is_some_and(|kind| kind != "object") {
            return Err(ApiError::field(
                path("function.parameters.type"),
                "must be \"object\"",
            ));
        }
        schema.entry("type").or_insert_with(|| "object".into());
        schema
            .entry("properties")
            .or_insert_with(|| serde_json::json!({}));
        checked.push(ToolDefinition {
            name: function.name,
            description: function.description,
            parameters: Value::Object(schema),
        });
    }
    Ok(checked)
}

fn form(format: Option<ResponseFormat>) -> Result<Form, ApiError> {
    let Some(format) = format else {
        return Ok(Form::Text);
    };
    match format.kind {
        ResponseFormatKind::Text => Ok(Form::Text),
        ResponseFormatKind::JsonObject => Ok(Form::JsonObject),
        ResponseFormatKind::JsonSchema => {
            let missing = |field: &str| ApiError::field(field, "is required");
            let schema = format
                .json_schema
                .ok_or_else(|| missing("response_format.json_schema"))?
                .schema
                .ok_or_else(|| missing("response_format.json_schema.schema"))?;
            Ok(Form::JsonSchema {
                field: "response_format.json_schema.schema",
                schema,
            })
        }
    }
}

/// Tools, their choice and the form of the answer must not contradict each other.
fn check_tools(chat: &Chat, form: &Form) -> Result<(), ApiError> {
    match &chat.tool_choice {
        ToolChoice::Required if chat.tools.is_empty() => {
            return Err(ApiError::field("tool_choice", "\"required\" needs tools"));
        }
        ToolChoice::Named(name) if !chat.tools.iter().any(|tool| tool.name == *name) => {
            let name: String = name.chars().take(64).collect();
            return Err(ApiError::field(
                "tool_choice",
                format!("no tool is named `{name}`"),
            ));
        }
        _ => {}
    }
    if !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None && *form != Form::Text {
        return Err(ApiError::field(
            "response_format",
            "cannot be combined with tools that may be called: set tool_choice to \"none\"",
        ));
    }
    Ok(())
}
