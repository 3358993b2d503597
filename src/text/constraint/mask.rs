//! Sets of tokens.

use crate::backend::TokenId;

/// The tokens that may come next, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// A mask of exactly `tokens` in a vocabulary of `size`; tokens outside it are left out.
    pub fn of(tokens: &[TokenId], size: u32) -> Self {
        let mut words = vec![0; (size as usize).div_ceil(32)];
        for &token in tokens.iter().filter(|token| **token < size) {
            words[token as usize / 32] |= 1 << (token % 32);
        }
        Self { words }
    }

    pub(super) fn from_words(words: &[u32]) -> Self {
        Self {
            words: words.to_vec(),
        }
    }

    /// Whether `token` may come next.
    pub fn allows(&self, token: TokenId) -> bool {
        self.words
            .get(token as usize / 32)
            .is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Whether no token may come next.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Calls `each` for every token that may come next, ascending.
    pub fn for_each(&self, mut each: impl FnMut(TokenId)) {
        for (base, word) in (0..).step_by(32).zip(&self.words) {
            let mut left = *word;
            while left != 0 {
                each(base + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }

    /// Sets the logits of all other tokens to minus infinity.
    pub fn forbid_others(&self, row: &mut [f32]) {
        for (word, logits) in self.words.iter().zip(row.chunks_mut(32)) {
            if *word == 0 {
                logits.fill(f32::NEG_INFINITY);
            } else if *word != u32::MAX {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let known = self.words.len() * 32;
        if let Some(rest) = row.get_mut(known..) {
            rest.fill(f32::NEG_INFINITY);
        }
    }

    /// The bits, lowest token in the lowest bit of the first word.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_holds_exactly_its_tokens() {
        let mask = TokenMask::of(&[0, 31, 32, 69, 70, 1000], 70);
        let mut seen = Vec::new();
        mask.for_each(|token| seen.push(token));
        assert_eq!(seen, [0, 31, 32, 69]);
        assert!(mask.allows(69) && !mask.allows(70) && !mask.allows(1) && !mask.allows(5000));
        assert!(!mask.is_empty() && TokenMask::of(&[], 70).is_empty());
        assert_eq!(mask.words().len(), 3);

        let mut row = vec![1.0; 120];
        mask.forbid_others(&mut row);
        let left: Vec<usize> = (0..120).filter(|&token| row[token] > 0.0).collect();
        assert_eq!(left, [0, 31, 32, 69]);
    }
}
