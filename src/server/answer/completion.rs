//! OpenAI's plain completions.

use bytes::{Bytes, BytesMut};

use super::chat::Heading;
use super::{End, Piece, Render, Whole};
use crate::server::generation::TokenLogprob;
use crate::wire::openai::{
    Completion, CompletionChoice, CompletionLogprobs, FinishReason, Usage, object,
};
use crate::wire::{Protocol, SSE_CONTENT_TYPE, sse};

/// Renders completion chunks.
#[derive(Debug)]
pub struct CompletionChunks {
    heading: Heading,
    include_usage: bool,
    logprobs: bool,
    /// The prompt, when the answer begins with it.
    echo: Option<String>,
    /// Characters of the answer sent so far.
    sent: usize,
}

impl CompletionChunks {
    /// Before the first chunk.
    pub const fn new(
        heading: Heading,
        include_usage: bool,
        logprobs: bool,
        echo: Option<String>,
    ) -> Self {
        Self {
            heading,
            include_usage,
            logprobs,
            echo,
            sent: 0,
        }
    }

    fn send(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Bytes {
        sse::data(&Completion {
            id: self.heading.id.clone(),
            object: object::COMPLETION.into(),
            created: self.heading.created,
            model: self.heading.model.clone(),
            system_fingerprint: None,
            choices,
            usage,
        })
    }

    fn text(&mut self, text: String, tokens: &[TokenLogprob]) -> Bytes {
        let logprobs = self.logprobs.then(|| logprobs(tokens, self.sent));
        self.sent += text.chars().count();
        self.send(
            vec![CompletionChoice {
                text,
                index: 0,
                logprobs,
                finish_reason: None,
            }],
            None,
        )
    }
}

impl Render for CompletionChunks {
    const PROTOCOL: Protocol = Protocol::OpenAi;
    const CONTENT_TYPE: &'static str = SSE_CONTENT_TYPE;

    fn piece(&mut self, piece: Piece) -> Bytes {
        let Piece::Text { text, tokens } = piece else {
            return Bytes::new();
        };
        let text = self
            .echo
            .take()
            .map_or_else(|| text.clone(), |echo| echo + &text);
        if text.is_empty() && tokens.is_empty() {
            Bytes::new()
        } else {
            self.text(text, &tokens)
        }
    }

    fn end(&mut self, end: &End) -> Bytes {
        let mut out = BytesMut::new();
        let choice = CompletionChoice {
            text: self.echo.take().unwrap_or_default(),
            index: 0,
            logprobs: None,
            finish_reason: Some(end.finish_reason()),
        };
        out.extend_from_slice(&self.send(vec![choice], None));
        if self.include_usage {
            out.extend_from_slice(&self.send(Vec::new(), Some(end.openai_usage())));
        }
        out.extend_from_slice(sse::DONE);
        out.freeze()
    }
}

/// A whole completion.
pub fn whole_completion(
    heading: Heading,
    whole: &Whole,
    with_logprobs: bool,
    echo: Option<String>,
) -> Completion {
    let finish_reason: FinishReason = whole.end.finish_reason();
    Completion {
        id: heading.id,
        object: object::COMPLETION.into(),
        created: heading.created,
        model: heading.model,
        system_fingerprint: None,
        choices: vec![CompletionChoice {
            logprobs: with_logprobs.then(|| logprobs(&whole.tokens, 0)),
            text: echo.unwrap_or_default() + &whole.text,
            index: 0,
            finish_reason: Some(finish_reason),
        }],
        usage: Some(whole.end.openai_usage()),
    }
}

fn logprobs(tokens: &[TokenLogprob], mut offset: usize) -> CompletionLogprobs {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = CompletionLogprobs::default();
    for token in tokens {
        let own = text(&token.bytes);
        all.text_offset.push(offset);
        offset += own.chars().count();
        all.tokens.push(own);
        all.token_logprobs.push(Some(token.logprob));
        let top = token
            .top
            .iter()
            .map(|(_, bytes, logprob)| (text(bytes), *logprob));
        all.top_logprobs.push(top.collect());
    }
    all
}
