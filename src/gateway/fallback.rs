//! The fallback's side of a translated request: what Ollama is asked, and what its lines mean.
//!
//! With the model's own template at hand the prompt is rendered here and sent raw, so that the
//! fallback reads the same prompt as the engine and its calls of tools are read by the same parser.
//! Without it Ollama's own template has to do, and an answer cannot be continued.
//!
//! Pure: the shell sends [`Call`]s and feeds lines to [`Reader`].

use bytes::Bytes;
use serde_json::{Value, json};

use super::chunk::{NotAChunk, reported_error};
use super::emit::Piece;
use super::prompt::PromptTemplate;
use super::routes::Upstream;
use super::wanted::{Input, Wanted};
use crate::text::tools::{ToolChoice, ToolDelta, ToolParser};
use crate::wire::openai::FinishReason;
use crate::wire::{ApiError, ErrorKind, ollama};

/// What to send to Ollama (or to our server, which speaks the same), and how to read the answer.
#[derive(Debug)]
pub struct Call {
    /// The path.
    pub path: &'static str,
    /// The body.
    pub body: Bytes,
    /// For the lines that come back.
    pub reader: Reader,
}

/// The text a continuation goes on from.
#[derive(Clone, Copy, Debug)]
pub struct SoFar<'a> {
    /// What the client has read.
    pub text: &'a str,
    /// Most tokens to add.
    pub tokens_left: Option<u32>,
}

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
) -> Result<Call, ApiError> {
    if let Some(reason) = wanted.impossible() {
        return Err(unavailable(reason));
    }
    let mut options = wanted.options.clone();
    options.num_ctx = upstream.context_tokens.map(i64::from);
    if let Some(so_far) = so_far
        && let Some(left) = so_far.tokens_left
    {
        options.num_predict = Some(i64::from(left));
    }
    match (&wanted.input, template) {
        (Input::Raw(prompt), _) => Ok(raw(wanted, upstream, options, prompt.clone(), so_far, None)),
        (Input::Chat(messages), Some(template)) => {
            let tools = if wanted.offers_tools() {
                wanted.tools.as_slice()
            } else {
                &[]
            };
            let prompt = template.render(messages, tools, now)?;
            Ok(raw(
                wanted,
                upstream,
                options,
                prompt,
                so_far,
                Some(template),
            ))
        }
        (Input::Chat(_), None) if wanted.is_forced() => Err(unavailable(
            "the fallback cannot be made to call a tool while the model's chat template is unknown",
        )),
        (Input::Chat(_), None) if so_far.is_some() => {
            Err(unavailable("the model's chat template is not known here"))
        }
        (Input::Chat(_), None) => Ok(templated(wanted, upstream, options)),
    }
}

fn unavailable(reason: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        format!("the engine does not answer, and {reason}"),
    )
}

fn raw(
    wanted: &Wanted,
    upstream: &Upstream,
    options: ollama::Options,
    mut prompt: String,
    so_far: Option<SoFar<'_>>,
    template: Option<&PromptTemplate>,
) -> Call {
    let mut tools = match template.and_then(PromptTemplate::tool_format) {
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
        wanted.format.clone()
    };
    let body = ollama::GenerateRequest {
        model: upstream.model.clone(),
        prompt: Some(prompt),
        raw: Some(true),
        stream: Some(true),
        format,
        options: Some(options),
        ..ollama::GenerateRequest::default()
    };
    Call {
        path: "/api/generate",
        body: to_bytes(&body),
        reader: Reader::new(tools),
    }
}

fn templated(wanted: &Wanted, upstream: &Upstream, options: ollama::Options) -> Call {
    let Input::Chat(messages) = &wanted.input else {
        // Callers match on it.
        return raw(wanted, upstream, options, String::new(), None, None);
    };
    let messages: Vec<Value> = messages
        .iter()
        .map(|message| {
            let mut told = json!({
                "role": message.role,
                "content": message.content.as_deref().unwrap_or_default(),
            });
            if !message.tool_calls.is_empty() {
                let calls = message.tool_calls.iter();
                told["tool_calls"] = calls
                    .map(|call| {
                        json!({ "function": { "name": call.name, "arguments": call.arguments } })
                    })
                    .collect();
            }
            if let Some(name) = &message.name {
                told["tool_name"] = name.as_str().into();
            }
            told
        })
        .collect();
    let mut body = json!({
        "model": upstream.model, "messages": messages, "stream": true,
        "options": serde_json::to_value(options).unwrap_or_default(),
    });
    if let Some(format) = &wanted.format {
        body["format"] = format.clone();
    }
    if wanted.offers_tools() {
        body["tools"] = wanted
            .tools
            .iter()
            .map(|tool| json!({ "type": "function", "function": tool }))
            .collect();
    }
    Call {
        path: "/api/chat",
        body: to_bytes(&body),
        reader: Reader::new(Tools::None),
    }
}

fn to_bytes<T: serde::Serialize>(body: &T) -> Bytes {
    // Serialising to memory fails only for map keys that are not strings: none here.
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// The schema of one call of one of the tools that may be called.
fn call_schema(wanted: &Wanted) -> Value {
    let allowed = |name: &str| match &wanted.choice {
        ToolChoice::Named(wanted) => wanted == name,
        _ => true,
    };
    let mut calls: Vec<Value> = wanted
        .tools
        .iter()
        .filter(|tool| allowed(&tool.name))
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
}

impl Reader {
    const fn new(tools: Tools) -> Self {
        Self { tools, calls: 0 }
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
        let line: Line = serde_json::from_str(line).map_err(|problem| {
            reported_error(line).map_or_else(
                || NotAChunk::Garbage(problem.to_string()),
                NotAChunk::Failure,
            )
        })?;
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
        let pieces = deltas.into_iter().map(|delta| match delta {
            ToolDelta::Content(text) => Piece::Text(text),
            ToolDelta::CallStart { index, name } => {
                self.calls = self.calls.max(index + 1);
                Piece::CallStart { index, name }
            }
            ToolDelta::CallArguments { index, fragment } => {
                Piece::CallArguments { index, fragment }
            }
        });
        pieces.collect()
    }

    fn call(&mut self, name: String, arguments: String) -> Vec<Piece> {
        let index = self.calls;
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
