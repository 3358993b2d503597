//! Answers of `/generate` and `/generate_stream`.

use bytes::Bytes;

use super::{End, Piece, Render, Whole};
use crate::wire::generate::{Response, StreamPiece};
use crate::wire::{Protocol, SSE_CONTENT_TYPE, sse};

/// Renders the events of `/generate_stream`.
#[derive(Debug)]
pub struct PlainEvents;

impl Render for PlainEvents {
    const PROTOCOL: Protocol = Protocol::Plain;
    const CONTENT_TYPE: &'static str = SSE_CONTENT_TYPE;

    fn piece(&mut self, piece: Piece) -> Bytes {
        match piece {
            Piece::Text { text, .. } if !text.is_empty() => sse::data(&StreamPiece {
                response: text,
                done: false,
                finish_reason: None,
                usage: None,
            }),
            _ => Bytes::new(),
        }
    }

    fn end(&mut self, end: &End) -> Bytes {
        sse::data(&StreamPiece {
            response: String::new(),
            done: true,
            finish_reason: Some(end.finish_reason()),
            usage: Some(end.openai_usage()),
        })
    }
}

/// The answer of `/generate`.
pub fn whole_plain(whole: Whole) -> Response {
    Response {
        finish_reason: whole.end.finish_reason(),
        usage: whole.end.openai_usage(),
        response: whole.text,
    }
}
