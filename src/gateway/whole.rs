//! Puts the events of a stream together into the answer that a client gets who did not ask for a
//! stream.

use std::collections::BTreeMap;

use serde_json::Value;

use super::chunk::{Chunk, Frame};
use crate::wire::openai::{
    ChatChunk, ChatCompletion, Choice, ChunkChoice, Completion, CompletionChoice, FunctionCall,
    Logprobs, ResponseMessage, Role, ToolCall, object,
};
use crate::wire::{generate, ollama};

/// An answer being put together.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
enum Answer {
    Chat(ChatCompletion, BTreeMap<u32, Choice>),
    Completion(Completion, BTreeMap<u32, CompletionChoice>),
    OllamaChat(ollama::ChatResponse),
    OllamaGenerate(ollama::GenerateResponse),
    Plain(generate::Response),
}

impl Whole {
    /// Adds an event.
    pub fn add(&mut self, frame: Frame) {
        let Frame::Event(_, chunk) = frame else {
            return;
        };
        match (&mut self.answer, chunk) {
            (answer @ None, chunk) => *answer = Some(first(chunk)),
            (Some(Answer::Chat(whole, choices)), Chunk::Chat(chunk)) => {
                add_chat(whole, choices, chunk);
            }
            (Some(Answer::Completion(whole, choices)), Chunk::Completion(chunk)) => {
                add_completion(whole, choices, chunk);
            }
            (Some(Answer::OllamaChat(whole)), Chunk::OllamaChat(chunk)) => {
                add_ollama_chat(whole, chunk);
            }
            (Some(Answer::OllamaGenerate(whole)), Chunk::OllamaGenerate(mut chunk)) => {
                chunk.response = std::mem::take(&mut whole.response) + &chunk.response;
                *whole = chunk;
            }
            (Some(Answer::Plain(whole)), Chunk::Plain(chunk)) => add_plain(whole, chunk),
            // One stream has one API.
            (Some(_), _) => {}
        }
    }

    /// The whole answer as JSON; `None` when nothing came.
    pub fn finish(self) -> Option<Value> {
        let written = match self.answer? {
            Answer::Chat(mut whole, choices) => {
                whole.choices = choices.into_values().collect();
                serde_json::to_value(whole)
            }
            Answer::Completion(mut whole, choices) => {
                whole.choices = choices.into_values().collect();
                serde_json::to_value(whole)
            }
            Answer::OllamaChat(whole) => serde_json::to_value(whole),
            Answer::OllamaGenerate(whole) => serde_json::to_value(whole),
            Answer::Plain(whole) => serde_json::to_value(whole),
        };
        written.ok()
    }
}

fn first(chunk: Chunk) -> Answer {
    match chunk {
        Chunk::Chat(chunk) => {
            let mut whole = ChatCompletion {
                id: chunk.id.clone(),
                object: object::CHAT.into(),
                created: chunk.created,
                model: chunk.model.clone(),
                choices: Vec::new(),
                usage: None,
                system_fingerprint: chunk.system_fingerprint.clone(),
            };
            let mut choices = BTreeMap::new();
            add_chat(&mut whole, &mut choices, chunk);
            Answer::Chat(whole, choices)
        }
        Chunk::Completion(chunk) => {
            let mut whole = Completion {
                choices: Vec::new(),
                usage: None,
                ..chunk.clone()
            };
            let mut choices = BTreeMap::new();
            add_completion(&mut whole, &mut choices, chunk);
            Answer::Completion(whole, choices)
        }
        Chunk::OllamaChat(chunk) => Answer::OllamaChat(chunk),
        Chunk::OllamaGenerate(chunk) => Answer::OllamaGenerate(chunk),
        Chunk::Plain(chunk) => {
            let mut whole = generate::Response {
                response: String::new(),
                finish_reason: crate::wire::openai::FinishReason::Stop,
                usage: crate::wire::openai::Usage::default(),
            };
            add_plain(&mut whole, chunk);
            Answer::Plain(whole)
        }
    }
}

fn add_chat(whole: &mut ChatCompletion, choices: &mut BTreeMap<u32, Choice>, chunk: ChatChunk) {
    if chunk.usage.is_some() {
        whole.usage = chunk.usage;
    }
    for part in chunk.choices {
        let choice = choices.entry(part.index).or_insert_with(|| Choice {
            index: part.index,
            message: ResponseMessage {
                role: Role::Assistant,
                content: None,
                refusal: None,
                tool_calls: None,
            },
            logprobs: None,
            finish_reason: None,
        });
        add_choice(choice, part);
    }
}

fn add_choice(choice: &mut Choice, part: ChunkChoice) {
    if let Some(text) = part.delta.content.filter(|text| !text.is_empty()) {
        choice
            .message
            .content
            .get_or_insert_default()
            .push_str(&text);
    }
    for call in part.delta.tool_calls.unwrap_or_default() {
        let calls = choice.message.tool_calls.get_or_insert_default();
        let at = call.index as usize;
        // An index far beyond the calls so far is nonsense: it must not make us allocate.
        if at > calls.len() {
            continue;
        }
        if at == calls.len() {
            calls.push(ToolCall {
                id: String::new(),
                kind: "function".into(),
                function: FunctionCall {
                    name: String::new(),
                    arguments: String::new(),
                },
            });
        }
        let whole = &mut calls[at];
        if let Some(id) = call.id {
            whole.id = id;
        }
        let function = call.function.unwrap_or_default();
        if let Some(name) = function.name {
            whole.function.name.push_str(&name);
        }
        if let Some(arguments) = function.arguments {
            whole.function.arguments.push_str(&arguments);
        }
    }
    if let Some(Logprobs {
        content: Some(more),
    }) = part.logprobs
    {
        let logprobs = choice.logprobs.get_or_insert_default();
        logprobs.content.get_or_insert_default().extend(more);
    }
    if part.finish_reason.is_some() {
        choice.finish_reason = part.finish_reason;
        // An answer without words is an empty text, unless it is a call.
        if choice.message.tool_calls.is_none() {
            choice.message.content.get_or_insert_default();
        }
    }
}

fn add_completion(
    whole: &mut Completion,
    choices: &mut BTreeMap<u32, CompletionChoice>,
    chunk: Completion,
) {
    if chunk.usage.is_some() {
        whole.usage = chunk.usage;
    }
    for part in chunk.choices {
        let choice = choices
            .entry(part.index)
            .or_insert_with(|| CompletionChoice {
                text: String::new(),
                index: part.index,
                logprobs: None,
                finish_reason: None,
            });
        choice.text.push_str(&part.text);
        if let Some(more) = part.logprobs {
            let all = choice.logprobs.get_or_insert_default();
            all.tokens.extend(more.tokens);
            all.token_logprobs.extend(more.token_logprobs);
            all.top_logprobs.extend(more.top_logprobs);
            all.text_offset.extend(more.text_offset);
        }
        if part.finish_reason.is_some() {
            choice.finish_reason = part.finish_reason;
        }
    }
}

fn add_ollama_chat(whole: &mut ollama::ChatResponse, mut chunk: ollama::ChatResponse) {
    let before = std::mem::replace(&mut whole.message, ollama_empty());
    chunk.message.content = before.content + &chunk.message.content;
    if let Some(thoughts) = before.thinking {
        chunk.message.thinking = Some(thoughts + &chunk.message.thinking.unwrap_or_default());
    }
    if let Some(mut calls) = before.tool_calls {
        calls.extend(chunk.message.tool_calls.unwrap_or_default());
        chunk.message.tool_calls = Some(calls);
    }
    *whole = chunk;
}

const fn ollama_empty() -> ollama::Message {
    ollama::Message {
        role: Role::Assistant,
        content: String::new(),
        thinking: None,
        images: None,
        tool_calls: None,
        tool_name: None,
    }
}

fn add_plain(whole: &mut generate::Response, chunk: generate::StreamPiece) {
    whole.response.push_str(&chunk.response);
    if let Some(reason) = chunk.finish_reason {
        whole.finish_reason = reason;
    }
    if let Some(usage) = chunk.usage {
        whole.usage = usage;
    }
}
