//! A server that speaks only `OpenAI`'s API: what it is asked where the client speaks another one, or
//! where an answer is continued, and what its events mean.
//!
//! A client of the same API is passed through elsewhere. Conversations are rendered by the server's
//! own template; only a continuation needs the model's template here, since the text so far has to
//! follow the rendered prompt.
//!
//! Pure: the shell sends [`Call`]s and feeds events to [`Reader`].

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::chunk::{NotAChunk, read};
use super::piece::{Piece, calls_in};
use super::prompt::PromptTemplate;
use super::routes::Upstream;
use super::wanted::{Call, SoFar, Wanted, unavailable};
use crate::server::request::Chat;
use crate::text::tools::{ToolChoice, ToolDelta, ToolParser};
use crate::wire::openai::FinishReason;
use crate::wire::{ApiError, ollama, sse};

/// The request for `wanted`. `now`: seconds since 1970, for templates that name the date.
///
/// # Errors
/// 503 for a promise that cannot be kept, 400 for what the template refuses.
pub fn call(
    wanted: &Wanted,
    upstream: &Upstream,
    template: Option<&PromptTemplate>,
    so_far: Option<SoFar<'_>>,
    now: i64,
) -> Result<Call<Reader>, ApiError> {
    let mut body = sampling(&wanted.options(so_far)?);
    body.insert("model".into(), upstream.model.as_str().into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({ "include_usage": true }));
    if let Some(format) = wanted.format() {
        body.insert("response_format".into(), response_format(&format));
    }
    let tools = wanted.offers_tools();
    match (wanted.chat(), so_far) {
        (None, so_far) => {
            let mut prompt = wanted.raw_prompt().cloned().unwrap_or_default();
            prompt.push_str(so_far.map_or("", |so_far| so_far.text));
            Ok(completion(body, prompt, None))
        }
        (Some(chat), Some(so_far)) => {
            let Some(template) = template else {
                return Err(unavailable("the model's chat template is not known here"));
            };
            let offered = if tools { chat.tools.as_slice() } else { &[] };
            let mut prompt = template.render(&chat.messages, offered, now)?;
            prompt.push_str(so_far.text);
            let mut parser = tools.then(|| ToolParser::new(template.tool_format()));
            if let Some(parser) = &mut parser {
                // It must know that the answer began with words; the client has them already.
                let _seen = parser.push(so_far.text);
            }
            Ok(completion(body, prompt, parser))
        }
        (Some(chat), None) => {
            body.insert("messages".into(), messages(chat));
            if tools {
                with_tools(&mut body, chat);
            }
            Ok(Call {
                path: "/v1/chat/completions",
                body: to_bytes(body),
                reader: Reader::default(),
            })
        }
    }
}

fn completion(
    mut body: Map<String, Value>,
    prompt: String,
    parser: Option<ToolParser>,
) -> Call<Reader> {
    body.insert("prompt".into(), prompt.into());
    Call {
        path: "/v1/completions",
        body: to_bytes(body),
        reader: Reader {
            parser,
            ..Reader::default()
        },
    }
}

fn to_bytes(body: Map<String, Value>) -> Bytes {
    Bytes::from(Value::Object(body).to_string())
}

/// `OpenAI`'s own fields always; of the common extensions only those that change something, since a
/// strict server refuses fields it does not know.
fn sampling(options: &ollama::Options) -> Map<String, Value> {
    let fields = json!({
        "temperature": options.temperature,
        "top_p": options.top_p,
        "presence_penalty": options.presence_penalty.filter(|value| *value != 0.0),
        "frequency_penalty": options.frequency_penalty.filter(|value| *value != 0.0),
        "top_k": options.top_k.filter(|count| *count > 0),
        "min_p": options.min_p.filter(|value| *value > 0.0),
        "repetition_penalty": options.repeat_penalty.filter(|value| (*value - 1.0).abs() > f32::EPSILON),
        "seed": options.seed,
        "stop": options.stop.as_ref().map(|stop| &stop.0),
        "max_tokens": options.num_predict.filter(|tokens| *tokens >= 0),
    });
    let Value::Object(mut fields) = fields else {
        return Map::new();
    };
    fields.retain(|_, value| !value.is_null());
    fields
}

/// From Ollama's `format`.
fn response_format(format: &Value) -> Value {
    if *format == "json" {
        return json!({ "type": "json_object" });
    }
    let schema = json!({ "name": "answer", "strict": true, "schema": format });
    json!({ "type": "json_schema", "json_schema": schema })
}

fn with_tools(body: &mut Map<String, Value>, chat: &Chat) {
    let tools = chat.tools.iter();
    let tools: Value = tools
        .map(|tool| json!({ "type": "function", "function": tool }))
        .collect();
    body.insert("tools".into(), tools);
    let choice = match &chat.tool_choice {
        ToolChoice::Auto => "auto".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    };
    body.insert("tool_choice".into(), choice);
    if !chat.parallel_tool_calls {
        body.insert("parallel_tool_calls".into(), false.into());
    }
}

/// Ollama's clients do not name calls: results follow the calls in their order.
fn messages(chat: &Chat) -> Value {
    let mut open = std::collections::VecDeque::new();
    let told = chat.messages.iter().enumerate().map(|(at, message)| {
        let mut told = json!({ "role": message.role, "content": message.content });
        if !message.tool_calls.is_empty() {
            open.clear();
            let calls = message.tool_calls.iter().enumerate().map(|(index, call)| {
                let id = if call.id.is_empty() {
                    format!("call_{at}_{index}")
                } else {
                    call.id.clone()
                };
                open.push_back(id.clone());
                let arguments = call.arguments.to_string();
                json!({ "id": id, "type": "function",
                    "function": { "name": call.name, "arguments": arguments } })
            });
            told["tool_calls"] = calls.collect();
        }
        if message.role == "tool" {
            let next = open.pop_front();
            let id = message.tool_call_id.clone().or(next);
            told["tool_call_id"] = id.unwrap_or_else(|| format!("call_{at}")).into();
        }
        told
    });
    told.collect()
}

/// Reads the events of a chat or a completion.
#[derive(Debug, Default)]
pub struct Reader {
    /// Finds calls of tools in plain text; a server's own chat API has found them already.
    parser: Option<ToolParser>,
    calls: u32,
    /// How it ended; told once the counts are there, which come after it.
    ended: Option<FinishReason>,
    counts: ollama::Counts,
}

#[derive(serde::Deserialize)]
struct Event {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(serde::Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<crate::wire::openai::Delta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(serde::Deserialize)]
struct Counts {
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

impl Reader {
    /// What one event says.
    ///
    /// # Errors
    /// [`NotAChunk`].
    pub fn line(&mut self, text: &str) -> Result<Vec<Piece>, NotAChunk> {
        if text == sse::DONE_DATA {
            return Ok(self.end().into_iter().collect());
        }
        let event: Event = read(text)?;
        let mut pieces = Vec::new();
        for choice in event.choices {
            pieces.extend(self.choice(choice));
        }
        if let Some(counts) = event.usage {
            self.counts.prompt_eval_count = Some(counts.prompt_tokens);
            self.counts.eval_count = Some(counts.completion_tokens);
        }
        Ok(pieces)
    }

    fn choice(&mut self, choice: Choice) -> Vec<Piece> {
        let delta = choice.delta.unwrap_or_default();
        let mut pieces = Vec::new();
        for text in choice.text.into_iter().chain(delta.content) {
            pieces.extend(self.text(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let function = call.function.unwrap_or_default();
            let index = call.index;
            if let Some(name) = function.name.filter(|name| !name.is_empty()) {
                self.calls = self.calls.max(index + 1);
                pieces.push(Piece::CallStart { index, name });
            }
            if let Some(fragment) = function.arguments.filter(|text| !text.is_empty()) {
                pieces.push(Piece::CallArguments { index, fragment });
            }
        }
        if let Some(reason) = choice.finish_reason {
            let rest = self.parser.as_mut().map(ToolParser::finish);
            pieces.extend(self.deltas(rest.unwrap_or_default()));
            self.ended = Some(match reason.as_str() {
                "length" => FinishReason::Length,
                _ if self.calls > 0 => FinishReason::ToolCalls,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Stop,
            });
        }
        pieces
    }

    fn text(&mut self, text: String) -> Vec<Piece> {
        match &mut self.parser {
            _ if text.is_empty() => Vec::new(),
            None => vec![Piece::Text(text)],
            Some(parser) => {
                let deltas = parser.push(&text);
                self.deltas(deltas)
            }
        }
    }

    fn deltas(&mut self, deltas: Vec<ToolDelta>) -> Vec<Piece> {
        let pieces: Vec<Piece> = deltas.into_iter().map(Piece::from).collect();
        self.calls = self.calls.max(calls_in(&pieces));
        pieces
    }

    /// Without a reason the stream was cut: nothing is claimed, and its end is a failure.
    fn end(&mut self) -> Option<Piece> {
        let reason = self.ended.take()?;
        let counts = std::mem::take(&mut self.counts);
        Some(Piece::End { reason, counts })
    }
}

#[cfg(test)]
mod tests;
