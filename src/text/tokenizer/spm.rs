//! `SentencePiece` BPE: the vocabulary's scores say which neighbours are joined first.
//!
//! Written after llama.cpp's tokenizer for `llama` vocabularies rather than with the `tokenizers`
//! crate, whose merges cannot express that equal scores are joined from the left.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::vocabulary::Vocabulary;
use crate::backend::TokenId;

/// What `SentencePiece` writes for a space.
pub(super) const SPACE: char = '▁';

/// A `SentencePiece` BPE model.
pub(super) struct SentencePiece {
    ids: HashMap<Box<str>, TokenId>,
    scores: Vec<f32>,
    /// Token of each byte, for characters the vocabulary lacks.
    bytes: [Option<TokenId>; 256],
    space_prefix: bool,
}

/// A piece of the text, linked to its neighbours; `length` 0: joined into the one before.
struct Symbol {
    start: usize,
    length: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that could be joined.
struct Pair {
    left: usize,
    right: usize,
    score: f32,
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self
            .score
            .partial_cmp(&other.score)
            .unwrap_or(Ordering::Equal);
        by_score.then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl SentencePiece {
    pub(super) fn new(space_prefix: bool, vocabulary: &Vocabulary) -> Self {
        let ids: HashMap<Box<str>, TokenId> = (0..)
            .zip(&vocabulary.tokens)
            .map(|(id, text)| (text.as_str().into(), id))
            .collect();
        let mut bytes = [None; 256];
        for byte in 0..=u8::MAX {
            let named = ids.get(format!("<0x{byte:02X}>").as_str());
            let plain = || ids.get(char::from(byte).encode_utf8(&mut [0; 4]) as &str);
            let plain = || byte.is_ascii().then(plain).flatten();
            bytes[usize::from(byte)] = named.or_else(plain).copied();
        }
        Self {
            ids,
            scores: vocabulary.scores.clone(),
            bytes,
            space_prefix,
        }
    }

    /// Appends the tokens of `text`; `after_special`: it begins the prompt or follows a special
    /// token, where these models expect a space.
    pub(super) fn encode(&self, text: &str, after_special: bool, into: &mut Vec<TokenId>) {
        let mut escaped = String::with_capacity(text.len() + 3);
        if self.space_prefix && after_special {
            escaped.push(SPACE);
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        for symbol in self.join(&escaped) {
            let piece = &escaped[symbol.start..symbol.start + symbol.length];
            match self.ids.get(piece) {
                Some(id) => into.push(*id),
                None => into.extend(
                    piece
                        .bytes()
                        .filter_map(|byte| self.bytes[usize::from(byte)]),
                ),
            }
        }
    }

    /// Joins neighbours, best score first, until nothing can be joined; what is left, in order.
    fn join(&self, text: &str) -> Vec<Symbol> {
        let count = text.chars().count();
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, character))| Symbol {
                start,
                length: character.len_utf8(),
                previous: index.checked_sub(1),
                next: (index + 1 < count).then_some(index + 1),
            })
            .collect();
        let mut pairs = BinaryHeap::new();
        for right in 1..symbols.len() {
            pairs.extend(self.pair(text, &symbols, Some(right - 1), Some(right)));
        }
        while let Some(Pair {
            left,
            right,
            length,
            ..
        }) = pairs.pop()
        {
            if symbols[left].length == 0
                || symbols[right].length == 0
                || symbols[left].length + symbols[right].length != length
            {
                continue;
            }
            symbols[left].length = length;
            symbols[right].length = 0;
            let next = symbols[right].next;
            symbols[left].next = next;
            if let Some(next) = next {
                symbols[next].previous = Some(left);
            }
            pairs.extend(self.pair(text, &symbols, symbols[left].previous, Some(left)));
            pairs.extend(self.pair(text, &symbols, Some(left), next));
        }
        symbols.retain(|symbol| symbol.length > 0);
        symbols
    }

    fn pair(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: Option<usize>,
        right: Option<usize>,
    ) -> Option<Pair> {
        let (left, right) = (left?, right?);
        let start = symbols[left].start;
        let length = symbols[left].length + symbols[right].length;
        let id = *self.ids.get(&text[start..start + length])?;
        let score = self.scores.get(id as usize).copied().unwrap_or(0.0);
        Some(Pair {
            left,
            right,
            score,
            length,
        })
    }
}
