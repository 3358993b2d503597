//! Byte-level BPE: words to token ids.
//!
//! The merging is the `tokenizers` crate's; this file feeds it words in GPT-2's printable alphabet
//! and treats bytes that the vocabulary lacks as llama.cpp does.

use std::collections::HashSet;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::vocabulary::{PreTokenizer, Vocabulary};
use super::{TokenizerError, words};
use crate::backend::TokenId;

/// Words remembered with their tokens: natural text repeats its words.
const CACHED_WORDS: usize = 20_000;

/// A byte-level BPE model.
pub(super) struct Bpe {
    model: BPE,
    kind: PreTokenizer,
    /// For each byte, whether the vocabulary has a token for it.
    known: [bool; 256],
    whole_words: bool,
}

impl Bpe {
    pub(super) fn new(kind: PreTokenizer, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let ids: Vocab = (0..)
            .zip(&vocabulary.tokens)
            .map(|(id, text)| (text.clone(), id))
            .collect();
        let mut seen = HashSet::new();
        let mut merges = Vec::with_capacity(vocabulary.merges.len());
        for (rank, merge) in vocabulary.merges.iter().enumerate() {
            let (left, right) = split_merge(merge).ok_or_else(|| {
                TokenizerError::Invalid(format!("merge {rank} is {merge:?}, not two tokens"))
            })?;
            // A merge into nothing can never happen; of two equal ones the first counts.
            let product = [left, right].concat();
            if ids.contains_key(left)
                && ids.contains_key(right)
                && ids.contains_key(&product)
                && seen.insert((left, right))
            {
                merges.push((left.to_owned(), right.to_owned()));
            }
        }
        let mut known = [false; 256];
        for byte in 0..=u8::MAX {
            known[usize::from(byte)] = ids.contains_key(printable(byte).encode_utf8(&mut [0; 4]));
        }
        let model = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(vocabulary.ignore_merges)
            .cache_capacity(CACHED_WORDS)
            .build()
            .map_err(|error| TokenizerError::Invalid(error.to_string()))?;
        Ok(Self {
            model,
            kind,
            known,
            whole_words: vocabulary.ignore_merges,
        })
    }

    /// Appends the tokens of `text`, in which no special token is looked for.
    pub(super) fn encode(&self, text: &str, into: &mut Vec<TokenId>) {
        let mut printed = String::new();
        for word in words::words(self.kind, text) {
            printed.clear();
            printed.extend(word.bytes().map(printable));
            if word.bytes().all(|byte| self.known[usize::from(byte)]) || self.is_token(&printed) {
                self.merge(&printed, into);
            } else {
                self.merge_around_unknown(word, into);
            }
        }
    }

    /// Whether the word is a token that is taken as it is.
    fn is_token(&self, printed: &str) -> bool {
        self.whole_words && self.model.token_to_id(printed).is_some()
    }

    /// Bytes without a token give none, and what stands on their two sides is never joined.
    fn merge_around_unknown(&self, word: &str, into: &mut Vec<TokenId>) {
        let bytes = word.as_bytes();
        for part in bytes.split(|byte| !self.known[usize::from(*byte)]) {
            let printed: String = part.iter().copied().map(printable).collect();
            self.merge(&printed, into);
        }
    }

    fn merge(&self, printed: &str, into: &mut Vec<TokenId>) {
        if printed.is_empty() {
            return;
        }
        // Without a token for the unknown the model has no way to fail.
        if let Ok(tokens) = self.model.tokenize(printed) {
            into.extend(tokens.into_iter().map(|token| token.id));
        }
    }
}

/// The two sides of a merge. A token may begin with a space, so the first one does not separate.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let at = first + merge[first..].find(' ')?;
    Some((&merge[..at], &merge[at + 1..]))
}

/// GPT-2's alphabet: bytes that print are themselves, the others follow from U+0100 on.
pub(super) fn printable(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0x00..=0x20 => shifted(u32::from(byte)),
        0x7F..=0xA0 => shifted(u32::from(byte) - 0x7F + 33),
        0xAD => shifted(67),
    }
}

fn shifted(by: u32) -> char {
    char::from_u32(0x100 + by).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `character` prints; `None`: it is not in the alphabet.
pub(super) fn unprintable(character: char) -> Option<u8> {
    let byte = match u32::from(character) {
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        code => code,
    };
    let byte = u8::try_from(byte).ok()?;
    (printable(byte) == character).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printable_alphabet_is_a_bijection_and_is_gpt2s() {
        let mut seen = HashSet::new();
        for byte in 0..=u8::MAX {
            assert!(seen.insert(printable(byte)));
            assert_eq!(unprintable(printable(byte)), Some(byte));
        }
        assert_eq!(printable(b' '), 'Ġ');
        assert_eq!(printable(b'\n'), 'Ċ');
        assert_eq!(printable(0x7F), 'ġ');
        assert_eq!(printable(0xAD), 'Ń');
        assert_eq!(unprintable('中'), None);
        assert_eq!(unprintable(' '), None);
    }

    #[test]
    fn a_merge_may_begin_with_a_space() {
        assert_eq!(split_merge("a b"), Some(("a", "b")));
        assert_eq!(split_merge("  b"), Some((" ", "b")));
        assert_eq!(split_merge("ab"), None);
        assert_eq!(split_merge(""), None);
    }
}
