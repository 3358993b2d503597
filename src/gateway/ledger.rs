//! What the client has seen of an answer, and what can be done when its source fails.
//!
//! Pure: the shell shows it each event that is sent on, and asks [`Ledger::after_failure`] when
//! there will be no more of them.

use super::chunk::{Chunk, Frame};
use super::wanted::Wanted;
use crate::wire::openai::ToolCallDelta;

/// The answer so far.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says that one part of the protocol was sent; they do not exclude each other"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The answer's id (OpenAI).
    pub id: Option<String>,
    /// When it was begun (OpenAI).
    pub created: Option<u64>,
    /// Text of the only choice.
    pub text: String,
    /// Events with text: at most the number of tokens generated.
    pub pieces: u32,
    /// The role was announced (chat).
    pub greeted: bool,
    /// The reason of the end was sent.
    pub finished: bool,
    /// Token counts were sent.
    pub counted: bool,
    /// The stream's last event was sent.
    pub closed: bool,
    output: bool,
    unrepeatable: Option<&'static str>,
}

/// What to do when the source of an answer fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The client has seen nothing: the same request goes to the next upstream.
    Restart,
    /// The next upstream goes on from the text so far, with at most so many tokens.
    Continue {
        /// `None`: no limit was asked for.
        tokens_left: Option<u32>,
    },
    /// Every token was seen; only the stream's end is missing.
    Close,
    /// The limit of tokens was reached with the last one seen.
    CloseAtLimit,
    /// Going on would break what was promised; the reason is for the client.
    GiveUp(String),
}

impl Ledger {
    /// Takes note of an event that is sent to the client.
    pub fn observe(&mut self, frame: &Frame) {
        match frame {
            Frame::Done => self.closed = true,
            Frame::Event(_, chunk) => {
                self.output |= chunk.is_output();
                self.observe_chunk(chunk);
            }
        }
    }

    /// Whether the client has seen more than a greeting.
    pub const fn has_output(&self) -> bool {
        self.output
    }

    fn observe_chunk(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Chat(chunk) => {
                self.identify(&chunk.id, chunk.created);
                self.counted |= chunk.usage.is_some();
                for choice in &chunk.choices {
                    self.several(choice.index);
                    self.greeted |= choice.delta.role.is_some();
                    self.add(choice.delta.content.as_deref().unwrap_or_default());
                    self.calls(choice.delta.tool_calls.as_deref().unwrap_or_default());
                    self.finished |= choice.finish_reason.is_some();
                }
            }
            Chunk::Completion(chunk) => {
                self.identify(&chunk.id, chunk.created);
                self.counted |= chunk.usage.is_some();
                for choice in &chunk.choices {
                    self.several(choice.index);
                    self.add(&choice.text);
                    self.finished |= choice.finish_reason.is_some();
                }
            }
            Chunk::OllamaChat(chunk) => {
                self.add(&chunk.message.content);
                if chunk
                    .message
                    .tool_calls
                    .as_ref()
                    .is_some_and(|calls| !calls.is_empty())
                {
                    self.unrepeatable = Some("a tool call was already sent");
                }
                if chunk
                    .message
                    .thinking
                    .as_ref()
                    .is_some_and(|text| !text.is_empty())
                {
                    self.unrepeatable = Some("thoughts were already sent");
                }
                self.end(chunk.done);
            }
            Chunk::OllamaGenerate(chunk) => {
                self.add(&chunk.response);
                self.end(chunk.done);
            }
            Chunk::Plain(chunk) => {
                self.add(&chunk.response);
                self.end(chunk.done);
            }
        }
    }

    fn identify(&mut self, id: &str, created: u64) {
        if self.id.is_none() {
            self.id = Some(id.to_owned());
            self.created = Some(created);
        }
    }

    fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.pieces += 1;
        }
    }

    const fn several(&mut self, index: u32) {
        if index > 0 {
            self.unrepeatable = Some("several answers were being written");
        }
    }

    const fn calls(&mut self, calls: &[ToolCallDelta]) {
        if !calls.is_empty() {
            self.unrepeatable = Some("a tool call was already being written");
        }
    }

    const fn end(&mut self, done: bool) {
        self.finished |= done;
        self.counted |= done;
        self.closed |= done;
    }

    /// What to do when the source fails now. `wanted` is what the client asked for, or why that
    /// cannot be told; `template`: whether prompts can be rendered here.
    pub fn after_failure(&self, wanted: Result<&Wanted, &str>, template: bool) -> Next {
        if !self.output {
            return Next::Restart;
        }
        if self.finished {
            return Next::Close;
        }
        if let Some(reason) = self.unrepeatable {
            return Next::GiveUp(reason.to_owned());
        }
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(problem) => return Next::GiveUp(problem.to_owned()),
        };
        if let Some(promise) = wanted.promise_lost_by_continuing() {
            return Next::GiveUp(promise.to_owned());
        }
        if wanted.chat().is_some() && !template {
            return Next::GiveUp("the model's chat template is not known here".to_owned());
        }
        match wanted.max_tokens() {
            Some(limit) if limit <= self.pieces => Next::CloseAtLimit,
            Some(limit) => Next::Continue {
                tokens_left: Some(limit - self.pieces),
            },
            None => Next::Continue { tokens_left: None },
        }
    }
}
