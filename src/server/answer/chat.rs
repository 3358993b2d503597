//! OpenAI's chat answers.

use bytes::{Bytes, BytesMut};

use super::{End, Piece, Render, Whole};
use crate::server::generation::TokenLogprob;
use crate::wire::openai::{
    ChatChunk, ChatCompletion, Choice, ChunkChoice, Delta, FinishReason, FunctionCall,
    FunctionDelta, Logprobs, ResponseMessage, Role, ToolCall, ToolCallDelta, TopLogprob, Usage,
    object,
};
use crate::wire::{Protocol, SSE_CONTENT_TYPE, openai, sse};

/// What all chunks of an answer share.
#[derive(Clone, Debug)]
pub struct Heading {
    /// The answer's identity.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The served name.
    pub model: String,
}

/// Renders chat chunks.
#[derive(Debug)]
pub struct ChatChunks {
    heading: Heading,
    include_usage: bool,
    logprobs: bool,
    begun: bool,
}

impl ChatChunks {
    /// Before the first chunk.
    pub const fn new(heading: Heading, include_usage: bool, logprobs: bool) -> Self {
        Self {
            heading,
            include_usage,
            logprobs,
            begun: false,
        }
    }

    fn chunk(
        &self,
        delta: Delta,
        logprobs: Option<Logprobs>,
        finish_reason: Option<FinishReason>,
    ) -> Bytes {
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs,
            finish_reason,
        };
        self.send(vec![choice], None)
    }

    fn send(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Bytes {
        sse::data(&ChatChunk {
            id: self.heading.id.clone(),
            object: object::CHAT_CHUNK.into(),
            created: self.heading.created,
            model: self.heading.model.clone(),
            system_fingerprint: None,
            choices,
            usage,
        })
    }

    /// The role comes once, before everything else.
    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            let delta = Delta {
                role: Some(Role::Assistant),
                content: Some(String::new()),
                tool_calls: None,
            };
            out.extend_from_slice(&self.chunk(delta, None, None));
        }
    }
}

impl Render for ChatChunks {
    const PROTOCOL: Protocol = Protocol::OpenAi;
    const CONTENT_TYPE: &'static str = SSE_CONTENT_TYPE;

    fn piece(&mut self, piece: Piece) -> Bytes {
        let mut out = BytesMut::new();
        self.begin(&mut out);
        let (delta, logprobs) = match piece {
            Piece::Text { text, tokens } if text.is_empty() && tokens.is_empty() => {
                return out.freeze();
            }
            Piece::Text { text, tokens } => {
                let delta = Delta {
                    content: Some(text),
                    ..Delta::default()
                };
                (delta, self.logprobs.then(|| logprobs(tokens)))
            }
            Piece::CallStart { index, id, name } => {
                let function = FunctionDelta {
                    name: Some(name),
                    arguments: Some(String::new()),
                };
                let call = ToolCallDelta {
                    index,
                    id: Some(id),
                    kind: Some("function".into()),
                    function: Some(function),
                };
                (
                    Delta {
                        tool_calls: Some(vec![call]),
                        ..Delta::default()
                    },
                    None,
                )
            }
            Piece::CallArguments { index, fragment } => {
                let function = FunctionDelta {
                    name: None,
                    arguments: Some(fragment),
                };
                let call = ToolCallDelta {
                    index,
                    function: Some(function),
                    ..ToolCallDelta::default()
                };
                (
                    Delta {
                        tool_calls: Some(vec![call]),
                        ..Delta::default()
                    },
                    None,
                )
            }
        };
        out.extend_from_slice(&self.chunk(delta, logprobs, None));
        out.freeze()
    }

    fn end(&mut self, end: &End) -> Bytes {
        let mut out = BytesMut::new();
        self.begin(&mut out);
        out.extend_from_slice(&self.chunk(Delta::default(), None, Some(end.finish_reason())));
        if self.include_usage {
            out.extend_from_slice(&self.send(Vec::new(), Some(end.openai_usage())));
        }
        out.extend_from_slice(sse::DONE);
        out.freeze()
    }
}

/// A whole chat answer.
pub fn whole_chat(heading: Heading, whole: Whole, with_logprobs: bool) -> ChatCompletion {
    let finish_reason = whole.end.finish_reason();
    let calls: Vec<ToolCall> = whole
        .calls
        .into_iter()
        .map(|(id, name, arguments)| ToolCall {
            id,
            kind: "function".into(),
            function: FunctionCall { name, arguments },
        })
        .collect();
    // With calls and nothing else, clients expect null.
    let content = Some(whole.text).filter(|text| calls.is_empty() || !text.trim().is_empty());
    ChatCompletion {
        id: heading.id,
        object: object::CHAT.into(),
        created: heading.created,
        model: heading.model,
        choices: vec![Choice {
            index: 0,
            message: ResponseMessage {
                role: Role::Assistant,
                content,
                refusal: None,
                tool_calls: Some(calls).filter(|calls| !calls.is_empty()),
            },
            logprobs: with_logprobs.then(|| logprobs(whole.tokens)),
            finish_reason: Some(finish_reason),
        }],
        usage: Some(whole.end.openai_usage()),
        system_fingerprint: None,
    }
}

fn logprobs(tokens: Vec<TokenLogprob>) -> Logprobs {
    let content = tokens
        .into_iter()
        .map(|token| openai::TokenLogprob {
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            logprob: token.logprob,
            bytes: Some(token.bytes),
            top_logprobs: token
                .top
                .into_iter()
                .map(|(_, bytes, logprob)| TopLogprob {
                    token: String::from_utf8_lossy(&bytes).into_owned(),
                    logprob,
                    bytes: Some(bytes),
                })
                .collect(),
        })
        .collect();
    Logprobs {
        content: Some(content),
    }
}
