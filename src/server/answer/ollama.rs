//! Ollama's answers: `/api/chat` and `/api/generate` differ only in where the text stands. Tool
//! calls appear whole, because their arguments are an object there.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

use super::{End, Piece, Render, Whole};
use crate::server::generation::FinishReason;
use crate::wire::ollama::{
    ChatResponse, Counts, GenerateResponse, Message, ToolCall, ToolCallFunction,
};
use crate::wire::openai::Role;
use crate::wire::{NDJSON_CONTENT_TYPE, Protocol, ndjson, time::rfc3339};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OllamaShape {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// Renders lines.
#[derive(Debug)]
pub struct OllamaLines {
    shape: OllamaShape,
    /// The name the client asked for.
    model: String,
    clock: fn() -> Duration,
    /// The call that is being written: which, name, arguments so far.
    open: Option<(u32, String, String)>,
}

impl OllamaLines {
    /// Before the first line.
    pub const fn new(shape: OllamaShape, model: String, clock: fn() -> Duration) -> Self {
        Self {
            shape,
            model,
            clock,
            open: None,
        }
    }

    fn line(&self, text: String, calls: Option<Vec<ToolCall>>) -> Bytes {
        ndjson::line(&answer(
            self.shape,
            &self.model,
            (self.clock)(),
            text,
            calls,
            None,
        ))
    }

    fn close_call(&mut self) -> Bytes {
        match self.open.take() {
            None => Bytes::new(),
            Some((index, name, arguments)) => match call(index, name, &arguments) {
                Ok(call) => self.line(String::new(), Some(vec![call])),
                Err(text) => self.line(text, None),
            },
        }
    }
}

impl Render for OllamaLines {
    const PROTOCOL: Protocol = Protocol::Ollama;
    const CONTENT_TYPE: &'static str = NDJSON_CONTENT_TYPE;

    fn piece(&mut self, piece: Piece) -> Bytes {
        match piece {
            Piece::Text { text, .. } if text.is_empty() => Bytes::new(),
            Piece::Text { text, .. } => {
                let mut out = BytesMut::from(&self.close_call()[..]);
                out.extend_from_slice(&self.line(text, None));
                out.freeze()
            }
            Piece::CallStart { index, name, .. } => {
                let before = self.close_call();
                self.open = Some((index, name, String::new()));
                before
            }
            Piece::CallArguments { fragment, .. } => {
                if let Some((_, _, arguments)) = &mut self.open {
                    arguments.push_str(&fragment);
                }
                Bytes::new()
            }
        }
    }

    fn end(&mut self, end: &End) -> Bytes {
        let mut out = BytesMut::from(&self.close_call()[..]);
        let last = answer(
            self.shape,
            &self.model,
            (self.clock)(),
            String::new(),
            None,
            Some(end),
        );
        out.extend_from_slice(&ndjson::line(&last));
        out.freeze()
    }
}

/// A whole answer.
pub fn whole_ollama(shape: OllamaShape, model: &str, now: Duration, whole: Whole) -> Value {
    let mut text = whole.text;
    let mut calls = Vec::new();
    for (index, (_, name, arguments)) in (0..).zip(whole.calls) {
        match call(index, name, &arguments) {
            Ok(call) => calls.push(call),
            Err(unfinished) => text.push_str(&unfinished),
        }
    }
    let calls = Some(calls).filter(|calls| !calls.is_empty());
    answer(shape, model, now, text, calls, Some(&whole.end))
}

/// The answer to a request that only wants the model to be loaded.
pub fn loaded(shape: OllamaShape, model: &str, now: Duration, reason: &str) -> Value {
    let mut value = answer(shape, model, now, String::new(), None, None);
    value["done"] = true.into();
    value["done_reason"] = reason.into();
    value
}

fn answer(
    shape: OllamaShape,
    model: &str,
    now: Duration,
    text: String,
    tool_calls: Option<Vec<ToolCall>>,
    end: Option<&End>,
) -> Value {
    let (model, created_at) = (model.to_owned(), rfc3339(now));
    let done_reason = end.map(|end| {
        match end.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
        .to_owned()
    });
    let counts = end.map_or_else(Counts::default, counts);
    let done = end.is_some();
    let value = match shape {
        OllamaShape::Generate => serde_json::to_value(GenerateResponse {
            model,
            created_at,
            response: text,
            done,
            done_reason,
            counts,
        }),
        OllamaShape::Chat => serde_json::to_value(ChatResponse {
            model,
            created_at,
            message: Message {
                role: Role::Assistant,
                content: text,
                thinking: None,
                images: None,
                tool_calls,
                tool_name: None,
            },
            done,
            done_reason,
            counts,
        }),
    };
    // Only maps with keys that are not strings fail, and there are none.
    value.unwrap_or_default()
}

fn counts(end: &End) -> Counts {
    let nanos = |duration: Duration| Some(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    let timings = end.timings;
    Counts {
        total_duration: nanos(timings.queue + timings.prefill + timings.decode),
        load_duration: nanos(timings.queue),
        prompt_eval_count: Some(end.usage.prompt_tokens),
        prompt_eval_duration: nanos(timings.prefill),
        eval_count: Some(end.usage.completion_tokens),
        eval_duration: nanos(timings.decode),
    }
}

/// A call with its arguments as an object; if they are none, because the answer was cut, the text
/// as it stands.
fn call(index: u32, name: String, arguments: &str) -> Result<ToolCall, String> {
    let arguments = if arguments.trim().is_empty() {
        "{}"
    } else {
        arguments
    };
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(arguments) => Ok(ToolCall {
            function: ToolCallFunction {
                index: Some(index),
                name,
                arguments,
            },
        }),
        Err(_) => Err(format!(
            "{{\"name\": \"{name}\", \"arguments\": {arguments}"
        )),
    }
}
