//! Server-sent events, both ways, incrementally. Knows framing only.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{MAX_EVENT_BYTES, StreamError};

/// The event that ends OpenAI's streams.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// The data of that event.
pub const DONE_DATA: &str = "[DONE]";

/// One `data:` event with `value` as JSON.
pub fn data<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(256).writer();
    out.get_mut().put_slice(b"data: ");
    // Serialising to memory fails only for map keys that are not strings, which no wire type has.
    if let Err(error) = serde_json::to_writer(&mut out, value) {
        tracing::error!(%error, "an event was not serialised");
    }
    let mut out = out.into_inner();
    out.put_slice(b"\n\n");
    out.freeze()
}

/// A comment, which keeps an idle connection alive and which clients ignore.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field, if any.
    pub name: Option<String>,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// Splits bytes, in pieces of any size, into events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
    size: usize,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the events that they complete to `events`.
    ///
    /// # Errors
    /// [`StreamError`] when an event is too long or not UTF-8; the stream is then lost.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamError> {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(events)?,
                _ => {
                    self.size += 1;
                    if self.size > MAX_EVENT_BYTES {
                        return Err(StreamError::TooLong {
                            limit: MAX_EVENT_BYTES,
                        });
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    /// Whether the stream, if it ended now, would end inside an event.
    pub fn is_inside_event(&self) -> bool {
        !self.line.is_empty() || self.has_data
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), StreamError> {
        if self.line.is_empty() {
            self.size = 0;
            if std::mem::take(&mut self.has_data) {
                events.push(std::mem::take(&mut self.event));
            } else {
                self.event = Event::default();
            }
            return Ok(());
        }
        let line = std::str::from_utf8(&self.line).map_err(|_| StreamError::NotUtf8)?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "event" => self.event.name = Some(value.to_owned()),
            _ => {}
        }
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(piece, &mut events).unwrap();
        }
        events
    }

    fn event(data: &str) -> Event {
        Event {
            name: None,
            data: data.into(),
        }
    }

    #[test]
    fn all_line_ends_comments_names_and_several_data_lines_are_understood() {
        let events =
            decode(&[b"data: a\r\n\r\n: hello\ndata:b\ndata: c\n\nevent: x\rdata: d\r\rid: 1\n\n"]);
        assert_eq!(events[..2], [event("a"), event("b\nc")]);
        assert_eq!(
            events[2],
            Event {
                name: Some("x".into()),
                data: "d".into()
            }
        );
        assert_eq!(events.len(), 3);
    }

    #[test]
    fn a_stream_that_ends_inside_an_event_is_noticed() {
        let mut decoder = Decoder::new();
        let mut events = Vec::new();
        decoder.push(b"data: whole\n\n", &mut events).unwrap();
        assert!(!decoder.is_inside_event());
        decoder.push(b"data: ha", &mut events).unwrap();
        assert!(decoder.is_inside_event());
        decoder.push(b"lf\n", &mut events).unwrap();
        assert!(decoder.is_inside_event());
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut decoder = Decoder::new();
        let piece = vec![b'x'; 1024 * 1024];
        let mut events = Vec::new();
        let outcome = (0..20).try_for_each(|_| decoder.push(&piece, &mut events));
        assert_eq!(
            outcome,
            Err(StreamError::TooLong {
                limit: MAX_EVENT_BYTES
            })
        );
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(texts in prop::collection::vec("\\PC*", 0..8), cut in 1_usize..7) {
            let mut bytes = Vec::new();
            for text in &texts {
                bytes.extend_from_slice(&data(text));
            }
            bytes.extend_from_slice(DONE);
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let mut expected: Vec<Event> = texts
                .iter()
                .map(|text| event(&serde_json::to_string(text).unwrap()))
                .collect();
            expected.push(event(DONE_DATA));
            prop_assert_eq!(decode(&pieces), expected);
        }
    }
}
