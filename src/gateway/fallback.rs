//! The fallback's side of a translated request: what Ollama is asked, and what its lines mean.
//!
//! With the model's own template at hand the prompt is rendered here and sent raw, so that the
//! fallback reads the same prompt as the engine and its calls of tools are read by the same parser.
//! Without it Ollama's own template has to do, and an answer cannot be continued.
//!
//! Pure: the shell sends [`Call`]s and feeds lines to [`Reader`].

use bytes::Bytes;
use serde_json::{Value, json};

use super::chunk::{NotAChunk, read};
use super::piece::{Piece, calls_in};
use super::prompt::PromptTemplate;
use super::routes::Upstream;
use super::wanted::{Call, SoFar, Wanted, unavailable};
use crate::server::request::Chat;
use crate::text::template::ChatMessage;
use crate::text::tools::{ToolChoice, ToolDelta, ToolFormat, ToolParser};
use crate::wire::openai::FinishReason;
use crate::wire::{ApiError, ollama};

/// The request for `wanted`. `now`: seconds since 1970, for templates that name the date.
///
/// # Errors
/// 503 for a promise that the fallback cannot keep, 400 for what the template refuses.
pub fn call(
    wanted: &Wanted,
    upstream: &Upstream,
    template: Option<&PromptTemplate>,
    so_far: Option<SoFar<'_>>,
    now: i64,
) -> Result<Call<Reader>, ApiError> {
    let options = ollama::Options {
        num_ctx: upstream.context_tokens.map(i64::from),
        ..wanted.options(so_far)?
    };
    let Some(chat) = wanted.chat() else {
        let prompt = wanted.raw_prompt().cloned().unwrap_or_default();
        return Ok(raw(wanted, upstream, options, prompt, so_far, None));
    };
    match template {
        Some(template) => {
            let tools = if wanted.offers_tools() {
                chat.tools.as_slice()
            } else {
                &[]
            };
            let prompt = template.render(&chat.messages, tools, now)?;
            let format = template.tool_format();
            Ok(raw(wanted, upstream, options, prompt, so_far, Some(format)))
        }
        None if wanted.is_forced() => Err(unavailable(
            "the fallback cannot be made to call a tool while the model's chat template is unknown",
        )),
        None if so_far.is_some() => Err(unavailable("the model's chat template is not known here")),
        None => Ok(templated(wanted, chat, upstream, &options)),
    }
}

/// `/api/generate` with a prompt as it stands.
fn raw(
    wanted: &Wanted,
    upstream: &Upstream,
    options: ollama::Options,
    mut prompt: String,
    so_far: Option<SoFar<'_>>,
    tools: Option<ToolFormat>,
) -> Call<Reader> {
    let mut tools = match tools {
        _ if wanted.is_forced() => Tools::Forced(String::new()),
        Some(format) if wanted.offers_tools() => Tools::Parsed(ToolParser::new(format)),
        _ => Tools::None,
    };
    if let Some(so_far) = so_far {
        prompt.push_str(so_far.text);
        if let Tools::Parsed(parser) = &mut tools {
            // It must know that the answer began with words; the client has them already.
            let _seen = parser.push(so_far.text);
        }
    }
    let format = if wanted.is_forced() {
        Some(call_schema(wanted))
    } else {
        wanted.format()
    };
    let body = Generate {
        request: ollama::GenerateRequest {
            model: upstream.model.clone(),
            prompt: Some(prompt),
            raw: Some(true),
            stream: Some(true),
            format,
            options: Some(options),
            ..ollama::GenerateRequest::default()
        },
        truncate: false,
        shift: false,
    };
    Call {
        path: "/api/generate",
        body: to_bytes(&body),
        reader: Reader::new(tools, wanted),
    }
}

/// A request that fails when it does not fit into the context, instead of losing its beginning.
#[derive(serde::Serialize)]
struct Generate {
    #[serde(flatten)]
    request: ollama::GenerateRequest,
    truncate: bool,
    shift: bool,
}

/// `/api/chat`, rendered by Ollama's own template.
fn templated(
    wanted: &Wanted,
    chat: &Chat,
    upstream: &Upstream,
    options: &ollama::Options,
) -> Call<Reader> {
    let messages: Vec<Value> = chat.messages.iter().map(told).collect();
    let mut body = json!({
        "model": upstream.model, "messages": messages, "stream": true,
        "options": options, "truncate": false, "shift": false,
    });
    if let Some(format) = wanted.format() {
        body["format"] = format;
    }
    if wanted.offers_tools() {
        let tools = chat.tools.iter();
        body["tools"] = tools
            .map(|tool| json!({ "type": "function", "function": tool }))
            .collect();
    }
    Call {
        path: "/api/chat",
        body: to_bytes(&body),
        reader: Reader::new(Tools::None, wanted),
    }
}

fn told(message: &ChatMessage) -> Value {
    let mut told = json!({
        "role": message.role,
        "content": message.content.as_deref().unwrap_or_default(),
    });
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter();
        told["tool_calls"] = calls
            .map(|call| json!({ "function": { "name": call.name, "arguments": call.arguments } }))
            .collect();
    }
    if let Some(name) = &message.name {
        told["tool_name"] = name.as_str().into();
    }
    told
}

fn to_bytes<T: serde::Serialize>(body: &T) -> Bytes {
    // Serialising to memory fails only for map keys that are not strings: none here.
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// The schema of one call of one of the tools that may be called.
fn call_schema(wanted: &Wanted) -> Value {
    let (tools, choice) = wanted.chat().map_or((&[][..], &ToolChoice::None), |chat| {
        (&chat.tools[..], &chat.tool_choice)
    });
    let mut calls: Vec<Value> = tools
        .iter()
        .filter(|tool| !matches!(choice, ToolChoice::Named(name) if *name != tool.name))
        .map(|tool| {
            json!({
                "type": "object",
                "properties": { "name": { "const": tool.name }, "arguments": tool.parameters },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        })
        .collect();
    if calls.len() == 1 {
        calls.remove(0)
    } else {
        json!({ "anyOf": calls })
    }
}

/// How calls of tools come out of the fallback's text.
#[derive(Debug)]
enum Tools {
    None,
    Parsed(ToolParser),
    /// The whole text is one call, held to its schema.
    Forced(String),
}

/// Reads Ollama's lines.
#[derive(Debug)]
pub struct Reader {
    tools: Tools,
    calls: u32,
    most_calls: u32,
}

impl Reader {
    fn new(tools: Tools, wanted: &Wanted) -> Self {
        let parallel = wanted.chat().is_none_or(|chat| chat.parallel_tool_calls);
        Self {
            tools,
            calls: 0,
            most_calls: if parallel { u32::MAX } else { 1 },
        }
    }

    /// What one line says.
    ///
    /// # Errors
    /// [`NotAChunk`].
    pub fn line(&mut self, line: &str) -> Result<Vec<Piece>, NotAChunk> {
        #[derive(serde::Deserialize)]
        struct Line {
            #[serde(default)]
            response: Option<String>,
            #[serde(default)]
            message: Option<ollama::Message>,
            done: bool,
            #[serde(default)]
            done_reason: Option<String>,
            #[serde(flatten)]
            counts: ollama::Counts,
        }
        let line: Line = read(line)?;
        let mut pieces = Vec::new();
        if let Some(message) = line.message {
            pieces.extend(self.text(message.content));
            for call in message.tool_calls.unwrap_or_default() {
                let arguments = Value::Object(call.function.arguments).to_string();
                pieces.extend(self.call(call.function.name, arguments));
            }
        }
        if let Some(text) = line.response {
            pieces.extend(self.text(text));
        }
        if line.done {
            pieces.extend(self.rest()?);
            let reason = match line.done_reason.as_deref() {
                Some("length") => FinishReason::Length,
                _ if self.calls > 0 => FinishReason::ToolCalls,
                _ => FinishReason::Stop,
            };
            pieces.push(Piece::End {
                reason,
                counts: line.counts,
            });
        }
        Ok(pieces)
    }

    fn text(&mut self, text: String) -> Vec<Piece> {
        if text.is_empty() {
            return Vec::new();
        }
        match &mut self.tools {
            Tools::None => vec![Piece::Text(text)],
            Tools::Parsed(parser) => {
                let deltas = parser.push(&text);
                self.deltas(deltas)
            }
            Tools::Forced(whole) => {
                whole.push_str(&text);
                Vec::new()
            }
        }
    }

    fn rest(&mut self) -> Result<Vec<Piece>, NotAChunk> {
        match &mut self.tools {
            Tools::None => Ok(Vec::new()),
            Tools::Parsed(parser) => {
                let deltas = parser.finish();
                Ok(self.deltas(deltas))
            }
            Tools::Forced(whole) => {
                #[derive(serde::Deserialize)]
                struct Whole {
                    name: String,
                    arguments: serde_json::Map<String, Value>,
                }
                let call: Whole = serde_json::from_str(whole).map_err(|_| {
                    NotAChunk::Failure("the fallback did not complete the tool call".into())
                })?;
                Ok(self.call(call.name, Value::Object(call.arguments).to_string()))
            }
        }
    }

    fn deltas(&mut self, deltas: Vec<ToolDelta>) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = deltas.into_iter().map(Piece::from).collect();
        pieces.retain(|piece| piece.call().is_none_or(|index| index < self.most_calls));
        self.calls = self.calls.max(calls_in(&pieces));
        pieces
    }

    fn call(&mut self, name: String, arguments: String) -> Vec<Piece> {
        let index = self.calls;
        if index >= self.most_calls {
            return Vec::new();
        }
        self.calls += 1;
        vec![
            Piece::CallStart { index, name },
            Piece::CallArguments {
                index,
                fragment: arguments,
            },
        ]
    }
}

#[cfg(test)]
mod tests;
