//! Finding special tokens in text, longest first, as llama.cpp does.

use super::Specials;
use super::vocabulary::{TokenKind, Vocabulary};
use crate::backend::TokenId;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Ordinary text, not empty.
    Text(&'t str),
    /// A special token.
    Token(TokenId),
}

/// The tokens that are looked for in text before everything else.
pub(super) struct SpecialTokens {
    /// Longest first.
    tokens: Vec<Special>,
    /// Bytes that any of them has first and second.
    first: [bool; 256],
    second: [bool; 256],
}

struct Special {
    id: TokenId,
    text: String,
    /// Only the template may spell it.
    control: bool,
}

impl SpecialTokens {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let kinds = vocabulary.kinds.iter();
        let mut tokens: Vec<Special> = (0..)
            .zip(vocabulary.tokens.iter().zip(kinds))
            .filter_map(|(id, (text, kind))| {
                let control = match kind {
                    TokenKind::Control | TokenKind::Unknown => true,
                    TokenKind::UserDefined => false,
                    TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
                };
                (!text.is_empty()).then(|| Special {
                    id,
                    text: text.clone(),
                    control,
                })
            })
            .collect();
        tokens.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let (mut first, mut second) = ([false; 256], [false; 256]);
        for special in &tokens {
            match special.text.as_bytes() {
                [] => {}
                [only] => {
                    first[usize::from(*only)] = true;
                    second = [true; 256];
                }
                [one, two, ..] => {
                    first[usize::from(*one)] = true;
                    second[usize::from(*two)] = true;
                }
            }
        }
        Self {
            tokens,
            first,
            second,
        }
    }

    /// Names of the tokens that only a template may spell.
    pub(super) fn control_names(&self) -> impl Iterator<Item = &str> {
        self.tokens
            .iter()
            .filter(|special| special.control)
            .map(|special| special.text.as_str())
    }

    /// Cuts `text` at its special tokens.
    pub(super) fn partition<'t>(&self, text: &'t str, specials: Specials) -> Vec<Fragment<'t>> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut fragments = vec![Fragment::Text(text)];
        for special in self.present(text, specials) {
            let mut next = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(part) => special.cut(part, &mut next),
                    token @ Fragment::Token(_) => next.push(token),
                }
            }
            fragments = next;
        }
        fragments
    }

    /// The tokens that occur in `text` at all, longest first: one pass, so that the hundreds of
    /// reserved tokens of a vocabulary cost nothing.
    fn present(&self, text: &str, specials: Specials) -> Vec<&Special> {
        let mut found = vec![false; self.tokens.len()];
        let bytes = text.as_bytes();
        let may_begin = |at: &usize| {
            let second = bytes.get(at + 1).copied().unwrap_or(0);
            self.first[usize::from(bytes[*at])] && self.second[usize::from(second)]
        };
        for at in (0..bytes.len()).filter(may_begin) {
            for (special, found) in self.tokens.iter().zip(&mut found) {
                if !*found && bytes[at..].starts_with(special.text.as_bytes()) {
                    *found = true;
                }
            }
        }
        let wanted = |special: &Special| specials == Specials::Parse || !special.control;
        let tokens = self.tokens.iter().zip(found);
        tokens
            .filter(|(special, found)| *found && wanted(special))
            .map(|(s, _)| s)
            .collect()
    }
}

impl Special {
    fn cut<'t>(&self, text: &'t str, into: &mut Vec<Fragment<'t>>) {
        let mut parts = text.split(self.text.as_str()).peekable();
        while let Some(part) = parts.next() {
            if !part.is_empty() {
                into.push(Fragment::Text(part));
            }
            if parts.peek().is_some() {
                into.push(Fragment::Token(self.id));
            }
        }
    }
}
