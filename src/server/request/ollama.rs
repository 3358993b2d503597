//! Ollama's requests as tasks. Defaults are Ollama's, so that an answer from here reads like one
//! from there.

use serde_json::Value;

use super::sampling::{self, Drawing, in_range};
use super::{Chat, Form, Input, Limit, Task, openai};
use crate::text::sampling::SamplingParams;
use crate::text::template::{ChatMessage, ToolCall};
use crate::text::tools::ToolChoice;
use crate::wire::ApiError;
use crate::wire::ollama::{ChatRequest, GenerateRequest, Message, Options};
use crate::wire::openai::Role;

/// Checks a chat request; `None`: the client only wants the model to be loaded.
///
/// # Errors
/// 400 naming the field.
pub fn chat(request: ChatRequest) -> Result<Option<Task>, ApiError> {
    let messages = request.messages.unwrap_or_default();
    if messages.is_empty() {
        return Ok(None);
    }
    no_thinking(request.think.as_ref())?;
    let tools = openai::tools(request.tools.unwrap_or_default())?;
    let form = form(request.format)?;
    if !tools.is_empty() && form != Form::Text {
        return Err(ApiError::field("format", "cannot be combined with tools"));
    }
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| checked(index, message))
        .collect::<Result<_, _>>()?;
    let chat = Chat {
        messages,
        tools,
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
    };
    task(Input::Chat(chat), request.options, form).map(Some)
}

/// Checks a generate request; `None`: the client only wants the model to be loaded.
///
/// # Errors
/// 400 naming the field.
pub fn generate(request: GenerateRequest) -> Result<Option<Task>, ApiError> {
    let prompt = request.prompt.unwrap_or_default();
    if prompt.is_empty() {
        return Ok(None);
    }
    no_thinking(request.think.as_ref())?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let suffix = given(request.suffix);
    sampling::refuse(
        "suffix",
        suffix.as_ref(),
        "this model cannot fill in the middle",
    )?;
    let template = given(request.template);
    let from_model = "is not accepted: the chat template comes with the model";
    sampling::refuse("template", template.as_ref(), from_model)?;
    let context = request.context.filter(|context| !context.is_empty());
    let use_chat = "is not supported: send the conversation to /api/chat";
    sampling::refuse("context", context.as_ref(), use_chat)?;
    no_images("images", request.images.as_ref())?;
    let system = given(request.system);
    let input = if request.raw.unwrap_or(false) {
        sampling::refuse("system", system.as_ref(), "has no place in a raw prompt")?;
        Input::Text(prompt)
    } else {
        let system = system.map(|text| ChatMessage::new("system", &text));
        let user = ChatMessage::new("user", &prompt);
        Input::Chat(Chat {
            messages: system.into_iter().chain([user]).collect(),
            ..Chat::default()
        })
    };
    task(input, request.options, form(request.format)?).map(Some)
}

fn task(input: Input, options: Option<Options>, form: Form) -> Result<Task, ApiError> {
    let options = options.unwrap_or_default();
    let limit = match options.num_predict {
        Some(tokens) if tokens >= 0 => {
            Limit::AtMost(u32::try_from(tokens.max(1)).unwrap_or(u32::MAX))
        }
        _ => Limit::Context,
    };
    Ok(Task {
        input,
        limit,
        stop: sampling::stop("options.stop", options.stop.clone().map(|stop| stop.0))?,
        drawing: drawing(&options)?,
        form,
        top_logprobs: None,
        ignore_eos: false,
    })
}

fn drawing(options: &Options) -> Result<Drawing, ApiError> {
    let repetition_window = match options.repeat_last_n {
        Some(-1) => None,
        Some(count) if count < 0 => {
            return Err(ApiError::field(
                "options.repeat_last_n",
                "must be at least -1",
            ));
        }
        Some(count) => Some(u32::try_from(count).unwrap_or(u32::MAX)),
        None => Some(64),
    };
    let params = SamplingParams {
        temperature: in_range(
            "options.temperature",
            options.temperature,
            (0.0, 100.0),
            0.8,
        )?,
        top_k: options
            .top_k
            .map_or(40, |k| u32::try_from(k.max(0)).unwrap_or(u32::MAX)),
        top_p: in_range("options.top_p", options.top_p, (0.0, 1.0), 0.9)?,
        min_p: in_range("options.min_p", options.min_p, (0.0, 1.0), 0.0)?,
        repetition_penalty: in_range(
            "options.repeat_penalty",
            options.repeat_penalty,
            (0.1, 10.0),
            1.1,
        )?,
        repetition_window,
        presence_penalty: in_range(
            "options.presence_penalty",
            options.presence_penalty,
            (-2.0, 2.0),
            0.0,
        )?,
        frequency_penalty: in_range(
            "options.frequency_penalty",
            options.frequency_penalty,
            (-2.0, 2.0),
            0.0,
        )?,
        ..SamplingParams::default()
    };
    // Ollama's -1 means "any".
    let seed = options.seed.filter(|seed| *seed != -1).map(sampling::seed);
    Ok(Drawing { params, seed })
}

fn checked(index: usize, message: Message) -> Result<ChatMessage, ApiError> {
    no_images(
        &format!("messages[{index}].images"),
        message.images.as_ref(),
    )?;
    let calls = message.tool_calls.unwrap_or_default();
    if !calls.is_empty() && message.role != Role::Assistant {
        let path = format!("messages[{index}].tool_calls");
        return Err(ApiError::field(path, "only an assistant calls tools"));
    }
    let role = if message.role == Role::Developer {
        Role::System
    } else {
        message.role
    };
    Ok(ChatMessage {
        role: role.as_str().to_owned(),
        content: Some(message.content),
        name: message.tool_name,
        tool_calls: calls
            .into_iter()
            .enumerate()
            .map(|(call, it)| ToolCall {
                id: format!("call_{index}_{call}"),
                name: it.function.name,
                arguments: Value::Object(it.function.arguments),
            })
            .collect(),
        tool_call_id: None,
    })
}

fn form(format: Option<Value>) -> Result<Form, ApiError> {
    match format {
        None | Some(Value::Null) => Ok(Form::Text),
        Some(Value::String(word)) if word.is_empty() => Ok(Form::Text),
        Some(Value::String(word)) if word == "json" => Ok(Form::JsonObject),
        Some(schema @ Value::Object(_)) => Ok(Form::JsonSchema {
            field: "format",
            schema,
        }),
        Some(_) => Err(ApiError::field(
            "format",
            "must be \"json\" or a JSON schema",
        )),
    }
}

fn no_images(field: &str, images: Option<&Vec<String>>) -> Result<(), ApiError> {
    let images = images.filter(|images| !images.is_empty());
    sampling::refuse(field, images, "this model reads only text")
}

fn no_thinking(think: Option<&Value>) -> Result<(), ApiError> {
    match think {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(Value::Bool(true) | Value::String(_)) => Err(ApiError::field(
            "think",
            "this model does not support thinking",
        )),
        Some(_) => Err(ApiError::field("think", "must be true, false or a level")),
    }
}
