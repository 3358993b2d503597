//! Turns what the fallback generates into events of the client's own API: one identity, one model
//! name, token counts where the client expects them.

use std::time::Duration;

use serde_json::{Map, Value};

use super::chunk::{Chunk, Frame};
use super::endpoint::Api;
use super::ledger::Ledger;
use super::piece::Piece;
use crate::wire::openai::{
    ChatChunk, ChunkChoice, Completion, CompletionChoice, Delta, FinishReason, FunctionDelta, Role,
    ToolCallDelta, Usage, object,
};
use crate::wire::{generate, ollama, time};

/// Who the answer claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `chatcmpl-…`; of an answer that is continued: the first source's.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The name the client knows.
    pub model: String,
}

/// Writes one answer.
#[derive(Clone, Debug)]
pub struct Emitter {
    api: Api,
    identity: Identity,
    include_usage: bool,
    greeted: bool,
    /// Tokens that another source generated before.
    earlier_tokens: u32,
    /// Ollama's clients get calls whole.
    open_call: Option<(String, String)>,
}

impl Emitter {
    /// For an answer of which the client has seen what is in `ledger`.
    pub fn new(api: Api, identity: Identity, include_usage: bool, ledger: &Ledger) -> Self {
        Self {
            api,
            identity: Identity {
                id: ledger.id.clone().unwrap_or(identity.id),
                created: ledger.created.unwrap_or(identity.created),
                model: identity.model,
            },
            include_usage,
            greeted: ledger.greeted,
            earlier_tokens: ledger.pieces,
            open_call: None,
        }
    }

    /// The events for one piece; `now` is the time since 1970.
    pub fn piece(&mut self, piece: Piece, now: Duration) -> Vec<Frame> {
        match piece {
            Piece::Text(text) if text.is_empty() => Vec::new(),
            Piece::Text(text) => vec![self.text(text, now)],
            Piece::CallStart { index, name } => self.call_start(index, name, now),
            Piece::CallArguments { index, fragment } => self.call_arguments(index, fragment),
            Piece::End { reason, counts } => {
                let mut frames: Vec<Frame> = self.whole_call(now).into_iter().collect();
                frames.extend(self.end(reason, &counts, now));
                frames
            }
        }
    }

    /// What ends the stream when every token was sent but its source did not say goodbye.
    pub fn close(&mut self, ledger: &Ledger, reason: FinishReason, now: Duration) -> Vec<Frame> {
        // Nobody counted: what is not known is not told.
        self.include_usage = false;
        if !ledger.finished {
            return self.end(reason, &ollama::Counts::default(), now);
        }
        match self.api {
            Api::Chat | Api::Completion if !ledger.closed => vec![Frame::Done],
            _ => Vec::new(),
        }
    }

    fn text(&mut self, text: String, now: Duration) -> Frame {
        match self.api {
            Api::Chat => self.delta(
                Delta {
                    content: Some(text),
                    ..Delta::default()
                },
                None,
            ),
            Api::Completion => self.completion(text, None),
            Api::OllamaChat => self.ollama_chat(text, None, now),
            Api::OllamaGenerate => Frame::new(Chunk::OllamaGenerate(ollama::GenerateResponse {
                model: self.identity.model.clone(),
                created_at: time::rfc3339(now),
                response: text,
                done: false,
                done_reason: None,
                counts: ollama::Counts::default(),
            })),
            Api::Plain => Frame::new(Chunk::Plain(generate::StreamPiece {
                response: text,
                done: false,
                finish_reason: None,
                usage: None,
            })),
        }
    }

    fn call_start(&mut self, index: u32, name: String, now: Duration) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.whole_call(now).into_iter().collect();
        if self.api == Api::Chat {
            let tail = self
                .identity
                .id
                .rsplit('-')
                .next()
                .unwrap_or_default()
                .to_owned();
            frames.push(self.call_delta(ToolCallDelta {
                index,
                id: Some(format!("call_{tail}_{index}")),
                kind: Some("function".into()),
                function: Some(FunctionDelta {
                    name: Some(name),
                    arguments: Some(String::new()),
                }),
            }));
        } else {
            self.open_call = Some((name, String::new()));
        }
        frames
    }

    fn call_arguments(&mut self, index: u32, fragment: String) -> Vec<Frame> {
        if self.api == Api::Chat {
            return vec![self.call_delta(ToolCallDelta {
                index,
                function: Some(FunctionDelta {
                    name: None,
                    arguments: Some(fragment),
                }),
                ..ToolCallDelta::default()
            })];
        }
        if let Some((_, arguments)) = &mut self.open_call {
            arguments.push_str(&fragment);
        }
        Vec::new()
    }

    fn call_delta(&mut self, call: ToolCallDelta) -> Frame {
        self.delta(
            Delta {
                tool_calls: Some(vec![call]),
                ..Delta::default()
            },
            None,
        )
    }

    fn whole_call(&mut self, now: Duration) -> Option<Frame> {
        let (name, arguments) = self.open_call.take()?;
        let arguments: Map<String, Value> = serde_json::from_str(&arguments).unwrap_or_default();
        let function = ollama::ToolCallFunction {
            index: None,
            name,
            arguments,
        };
        Some(self.ollama_chat(
            String::new(),
            Some(vec![ollama::ToolCall { function }]),
            now,
        ))
    }

    fn end(&mut self, reason: FinishReason, counts: &ollama::Counts, now: Duration) -> Vec<Frame> {
        let usage = self.usage(counts);
        let counted = counts.eval_count.is_some();
        match self.api {
            Api::Chat | Api::Completion => {
                let mut frames = vec![if self.api == Api::Chat {
                    self.delta(Delta::default(), Some(reason))
                } else {
                    self.completion(String::new(), Some(reason))
                }];
                if self.include_usage {
                    frames.push(self.usage_event(usage));
                }
                frames.push(Frame::Done);
                frames
            }
            Api::OllamaChat => {
                let counts = self.whole_counts(counts);
                let mut message = ollama_message(String::new());
                message.tool_calls = None;
                vec![Frame::new(Chunk::OllamaChat(ollama::ChatResponse {
                    model: self.identity.model.clone(),
                    created_at: time::rfc3339(now),
                    message,
                    done: true,
                    done_reason: Some(ollama_reason(reason).into()),
                    counts,
                }))]
            }
            Api::OllamaGenerate => {
                let counts = self.whole_counts(counts);
                vec![Frame::new(Chunk::OllamaGenerate(
                    ollama::GenerateResponse {
                        model: self.identity.model.clone(),
                        created_at: time::rfc3339(now),
                        response: String::new(),
                        done: true,
                        done_reason: Some(ollama_reason(reason).into()),
                        counts,
                    },
                ))]
            }
            Api::Plain => vec![Frame::new(Chunk::Plain(generate::StreamPiece {
                response: String::new(),
                done: true,
                finish_reason: Some(reason),
                usage: counted.then_some(usage),
            }))],
        }
    }

    /// The counts of the whole answer: what an earlier source generated was part of the last
    /// one's prompt.
    fn whole_counts(&self, counts: &ollama::Counts) -> ollama::Counts {
        let earlier = self.earlier_tokens;
        ollama::Counts {
            prompt_eval_count: counts.prompt_eval_count.map(|n| n.saturating_sub(earlier)),
            eval_count: counts.eval_count.map(|n| n + earlier),
            ..counts.clone()
        }
    }

    fn usage(&self, counts: &ollama::Counts) -> Usage {
        let whole = self.whole_counts(counts);
        let prompt_tokens = whole.prompt_eval_count.unwrap_or(0);
        let completion_tokens = whole.eval_count.unwrap_or(0);
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: None,
        }
    }

    fn delta(&mut self, mut delta: Delta, finish_reason: Option<FinishReason>) -> Frame {
        if !std::mem::replace(&mut self.greeted, true) {
            delta.role = Some(Role::Assistant);
        }
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs: None,
            finish_reason,
        };
        self.chat(vec![choice], None)
    }

    fn chat(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Frame {
        Frame::new(Chunk::Chat(ChatChunk {
            id: self.identity.id.clone(),
            object: object::CHAT_CHUNK.into(),
            created: self.identity.created,
            model: self.identity.model.clone(),
            system_fingerprint: None,
            choices,
            usage,
        }))
    }

    fn completion(&self, text: String, finish_reason: Option<FinishReason>) -> Frame {
        let choice = CompletionChoice {
            text,
            index: 0,
            logprobs: None,
            finish_reason,
        };
        self.completion_event(vec![choice], None)
    }

    fn completion_event(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Frame {
        Frame::new(Chunk::Completion(Completion {
            id: self.identity.id.clone(),
            object: object::COMPLETION.into(),
            created: self.identity.created,
            model: self.identity.model.clone(),
            system_fingerprint: None,
            choices,
            usage,
        }))
    }

    fn usage_event(&self, usage: Usage) -> Frame {
        if self.api == Api::Chat {
            self.chat(Vec::new(), Some(usage))
        } else {
            self.completion_event(Vec::new(), Some(usage))
        }
    }

    fn ollama_chat(
        &self,
        content: String,
        tool_calls: Option<Vec<ollama::ToolCall>>,
        now: Duration,
    ) -> Frame {
        let mut message = ollama_message(content);
        message.tool_calls = tool_calls;
        Frame::new(Chunk::OllamaChat(ollama::ChatResponse {
            model: self.identity.model.clone(),
            created_at: time::rfc3339(now),
            message,
            done: false,
            done_reason: None,
            counts: ollama::Counts::default(),
        }))
    }
}

const fn ollama_message(content: String) -> ollama::Message {
    ollama::Message {
        role: Role::Assistant,
        content,
        thinking: None,
        images: None,
        tool_calls: None,
        tool_name: None,
    }
}

/// Ollama knows two reasons: a tool call ends with `stop`.
const fn ollama_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ => "stop",
    }
}
