//! Tokens back to text, one at a time, never cutting a character.
//!
//! Decides when bytes are whole UTF-8 and which tokens a reader sees. It knows nothing of stop
//! strings or requests.

use crate::backend::TokenId;
use crate::text::tokenizer::Tokenizer;

/// Collects the bytes of generated tokens and releases whole characters.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// The start of a character that is not complete yet: at most three bytes between calls.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Starts with nothing pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `token` and returns the text that became complete, which may be empty. Control tokens
    /// the reader must not see (`<|im_end|>`) add nothing.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: TokenId) -> String {
        if !tokenizer.is_visible(token) {
            return String::new();
        }
        self.push_bytes(tokenizer.token_bytes(token))
    }

    /// As [`Detokenizer::push`], for bytes. Bytes that cannot be UTF-8 become U+FFFD.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut used = 0;
        loop {
            match std::str::from_utf8(&self.pending[used..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let valid = used + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[used..valid]));
                    used = valid;
                    let Some(bad) = error.error_len() else {
                        self.pending.drain(..used);
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    used += bad;
                }
            }
        }
    }

    /// The answer is over: an unfinished character becomes one U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.pending.is_empty() {
            return String::new();
        }
        self.pending.clear();
        char::REPLACEMENT_CHARACTER.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_split_over_tokens_appears_once_and_whole() {
        for character in ["é", "€", "🦀", "👩‍👩‍👧"] {
            let mut detokenizer = Detokenizer::new();
            let mut seen = String::new();
            for byte in character.bytes() {
                let delta = detokenizer.push_bytes(&[byte]);
                assert!(!delta.contains(char::REPLACEMENT_CHARACTER));
                seen.push_str(&delta);
            }
            seen.push_str(&detokenizer.finish());
            assert_eq!(seen, character);
        }
    }

    #[test]
    fn any_cut_of_any_bytes_gives_the_text_of_a_lossy_decode() {
        let bytes =
            b"a\xff\xc3\xa9\xe2\x82\xac\xe2\x82z\xf0\x9f\xa6\x80\xc0\x80\xed\xa0\x80\xf0\x9f";
        let expected = String::from_utf8_lossy(bytes);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut detokenizer = Detokenizer::new();
                let mut seen = detokenizer.push_bytes(&bytes[..first]);
                seen.push_str(&detokenizer.push_bytes(&bytes[first..second]));
                seen.push_str(&detokenizer.push_bytes(&bytes[second..]));
                seen.push_str(&detokenizer.finish());
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn an_unfinished_character_at_the_end_is_one_replacement_character() {
        let mut detokenizer = Detokenizer::new();
        assert_eq!(detokenizer.push_bytes(b"ok\xf0\x9f"), "ok");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
        assert_eq!(detokenizer.finish(), "");
    }
}
