//! One upstream answering one request: its bytes become events of the client's API. Waits no longer
//! than it is told; classifies what goes wrong, decides nothing about it.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::chunk::{Chunk, Frame, NotAChunk};
use super::client::UpstreamBody;
use super::emit::Emitter;
use super::endpoint::Api;
use super::failure::Failure;
use super::piece::Piece;
use super::{fallback, openai};
use crate::wire::{StreamError, ndjson, sse};

/// How long to wait for a source.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the request to the first token.
    pub first_token: Duration,
    /// From token to token.
    pub stall: Duration,
}

/// How an upstream's events become the client's.
#[derive(Debug)]
pub enum Dialect {
    /// They are the client's; only the model may have another name.
    Same {
        /// The client's API.
        api: Api,
        /// The model's name for the client, when it is another.
        rename: Option<String>,
    },
    /// They are of another API.
    Translated(Box<Translation>, Box<Emitter>),
}

/// Reads the events of an API that the client does not speak.
#[derive(Debug)]
pub enum Translation {
    /// Lines of Ollama's native API.
    Ollama(fallback::Reader),
    /// Server-sent events of `OpenAI`'s.
    OpenAi(openai::Reader),
}

impl Translation {
    fn line(&mut self, text: &str) -> Result<Vec<Piece>, NotAChunk> {
        match self {
            Self::Ollama(reader) => reader.line(text),
            Self::OpenAi(reader) => reader.line(text),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Source {
    body: UpstreamBody,
    lines: Lines,
    dialect: Dialect,
    ready: VecDeque<Frame>,
    /// What went wrong after what is ready.
    failed: Option<Failure>,
    patience: Patience,
    deadline: Instant,
    output: bool,
}

#[derive(Debug)]
enum Lines {
    Sse(sse::Decoder),
    Ndjson(ndjson::Decoder),
}

impl Lines {
    /// What is left when the bytes end in order.
    fn rest(&mut self) -> Option<String> {
        match self {
            Self::Sse(_) => None,
            Self::Ndjson(decoder) => std::mem::take(decoder).finish().ok().flatten(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, StreamError> {
        match self {
            Self::Sse(decoder) => {
                let mut events = Vec::new();
                decoder.push(bytes, &mut events)?;
                Ok(events.into_iter().map(|event| event.data).collect())
            }
            Self::Ndjson(decoder) => {
                let mut lines = Vec::new();
                decoder.push(bytes, &mut lines)?;
                Ok(lines)
            }
        }
    }
}

impl Source {
    /// A source whose request was sent at `sent`.
    pub fn new(body: UpstreamBody, dialect: Dialect, patience: Patience, sent: Instant) -> Self {
        let is_sse = match &dialect {
            Dialect::Same { api, .. } => api.is_sse(),
            Dialect::Translated(translation, _) => matches!(**translation, Translation::OpenAi(_)),
        };
        Self {
            body,
            lines: if is_sse {
                Lines::Sse(sse::Decoder::new())
            } else {
                Lines::Ndjson(ndjson::Decoder::new())
            },
            dialect,
            ready: VecDeque::new(),
            failed: None,
            patience,
            deadline: sent + patience.first_token,
            output: false,
        }
    }

    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// [`Failure`]; the end of the bytes is one, since whoever has seen the answer's end stops
    /// asking.
    pub async fn next(&mut self) -> Result<Frame, Failure> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(frame);
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            let bytes = match tokio::time::timeout_at(self.deadline, self.body.frame()).await {
                Err(_) if self.output => return Err(Failure::Stall(self.patience.stall)),
                Err(_) => return Err(Failure::FirstToken(self.patience.first_token)),
                Ok(None) => match self.lines.rest() {
                    // A last line may come without its line feed.
                    Some(line) => {
                        self.failed = self.line(line).err();
                        continue;
                    }
                    None => return Err(Failure::Cut("it was closed".into())),
                },
                Ok(Some(Err(error))) => return Err(Failure::Cut(error.to_string())),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.failed = self.take(&bytes).err();
        }
    }

    /// Reads the end of the body after the last event, so that the connection can serve again.
    pub async fn finish(mut self) {
        let end = async { while let Some(Ok(_)) = self.body.frame().await {} };
        let _in_time = tokio::time::timeout(Duration::from_millis(50), end).await;
    }

    fn take(&mut self, bytes: &Bytes) -> Result<(), Failure> {
        let lines = self
            .lines
            .push(bytes)
            .map_err(|error| Failure::Garbage(error.to_string()))?;
        let mut alive = false;
        for line in lines {
            alive |= self.line(line)?;
        }
        if alive {
            self.output = true;
            self.deadline = Instant::now() + self.patience.stall;
        }
        Ok(())
    }

    /// Takes one event's text; says whether it shows that something is generated.
    fn line(&mut self, text: String) -> Result<bool, Failure> {
        match &mut self.dialect {
            Dialect::Same { .. } if text == sse::DONE_DATA => {
                self.ready.push_back(Frame::Done);
                Ok(true)
            }
            Dialect::Same { api, rename } => {
                let mut chunk = Chunk::read(*api, &text)?;
                let output = chunk.is_output();
                self.ready.push_back(match rename {
                    None => Frame::Event(text, chunk),
                    Some(name) => {
                        chunk.rename(name);
                        Frame::new(chunk)
                    }
                });
                Ok(output)
            }
            Dialect::Translated(translation, emitter) => {
                let now = since_epoch();
                let pieces = translation.line(&text)?;
                for piece in pieces {
                    self.ready.extend(emitter.piece(piece, now));
                }
                // Each line tells that a token was generated, also where its text is held back.
                Ok(true)
            }
        }
    }
}

/// Wall-clock time for what clients see; nothing is decided by it.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
