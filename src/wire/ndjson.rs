//! Newline-delimited JSON, both ways, incrementally. Knows framing only.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::{MAX_EVENT_BYTES, StreamError};

/// One line with `value` as JSON.
pub fn line<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(256).writer();
    // Serialising to memory fails only for map keys that are not strings, which no wire type has.
    if let Err(error) = serde_json::to_writer(&mut out, value) {
        tracing::error!(%error, "a line was not serialised");
    }
    let mut out = out.into_inner();
    out.put_u8(b'\n');
    out.freeze()
}

/// Splits bytes, in pieces of any size, into lines.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the lines that they complete to `lines`; empty ones are
    /// dropped.
    ///
    /// # Errors
    /// [`StreamError`] when a line is too long or not UTF-8; the stream is then lost.
    pub fn push(&mut self, bytes: &[u8], lines: &mut Vec<String>) -> Result<(), StreamError> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.len() + piece.len() > MAX_EVENT_BYTES {
                return Err(StreamError::TooLong {
                    limit: MAX_EVENT_BYTES,
                });
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let text = std::str::from_utf8(&self.partial)
                    .map_err(|_| StreamError::NotUtf8)?
                    .trim();
                if !text.is_empty() {
                    lines.push(text.to_owned());
                }
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Whether the stream, if it ended now, would end inside a line.
    pub fn is_inside_line(&self) -> bool {
        !self.partial.is_empty()
    }

    /// At the end of the stream: the last line, if it came without its line feed.
    ///
    /// # Errors
    /// [`StreamError::NotUtf8`].
    pub fn finish(self) -> Result<Option<String>, StreamError> {
        let text = String::from_utf8(self.partial).map_err(|_| StreamError::NotUtf8)?;
        let text = text.trim();
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_last_line_without_line_feed_is_kept_apart() {
        let mut decoder = Decoder::new();
        let mut lines = Vec::new();
        decoder.push(b"{\"a\":1}\r\n\n{\"b\"", &mut lines).unwrap();
        assert_eq!(lines, ["{\"a\":1}"]);
        assert!(decoder.is_inside_line());
        assert_eq!(decoder.finish().unwrap().as_deref(), Some("{\"b\""));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::new();
        let mut lines = Vec::new();
        let piece = vec![b'x'; 1024 * 1024];
        let outcome = (0..20).try_for_each(|_| decoder.push(&piece, &mut lines));
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
            let bytes: Vec<u8> = texts.iter().flat_map(|text| line(text).to_vec()).collect();
            let mut decoder = Decoder::new();
            let mut lines = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece, &mut lines).unwrap();
            }
            let expected: Vec<String> =
                texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
