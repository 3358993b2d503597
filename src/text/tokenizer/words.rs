//! Pre-tokenization: cutting text into the words that byte-level BPE works on.
//!
//! Each rule is a regular expression of the model's original tokenizer, written by hand so that it
//! takes linear time on any text and equals llama.cpp's reading of the expression.

use std::ops::Range;

use super::unicode::{Class, class};
use super::vocabulary::PreTokenizer;

/// Cuts `text` into words; together they are the text.
pub(super) fn words(kind: PreTokenizer, text: &str) -> Vec<&str> {
    let scan = Scan::new(text);
    let mut pieces = vec![Range {
        start: 0,
        end: scan.characters.len(),
    }];
    for rule in rules(kind) {
        let mut next = Vec::with_capacity(pieces.len());
        for piece in pieces {
            scan.cut(*rule, piece, &mut next);
        }
        pieces = next;
    }
    pieces
        .into_iter()
        .map(|piece| &text[scan.bytes(&piece)])
        .collect()
}

/// One pass over the pieces of the passes before.
#[derive(Clone, Copy)]
enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|`
    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3 { digits: usize },
    /// `\p{N}`: each number alone.
    EachNumber,
    /// `\p{N}+`: runs of numbers alone.
    Numbers,
    /// `[0-9][0-9][0-9]`: threes of digits alone.
    ThreeDigits,
    /// ``[\p{P}\$\+<=>\^~\|]+``: runs of punctuation alone.
    Punctuation,
}

fn rules(kind: PreTokenizer) -> &'static [Rule] {
    match kind {
        PreTokenizer::Gpt2 => &[Rule::Gpt2],
        PreTokenizer::Smollm => &[Rule::EachNumber, Rule::Gpt2],
        PreTokenizer::Llama3 => &[Rule::Llama3 { digits: 3 }],
        PreTokenizer::Qwen2 => &[Rule::Llama3 { digits: 1 }],
        PreTokenizer::Default => &[
            Rule::Punctuation,
            Rule::Gpt2,
            Rule::Numbers,
            Rule::ThreeDigits,
        ],
    }
}

/// A text with the class of each of its characters.
struct Scan {
    characters: Vec<(char, Class)>,
    /// Where each character begins in the text, and where the text ends.
    offsets: Vec<usize>,
}

impl Scan {
    fn new(text: &str) -> Self {
        let mut characters = Vec::with_capacity(text.len());
        let mut offsets = Vec::with_capacity(text.len() + 1);
        for (offset, character) in text.char_indices() {
            characters.push((character, class(character)));
            offsets.push(offset);
        }
        offsets.push(text.len());
        Self {
            characters,
            offsets,
        }
    }

    fn bytes(&self, piece: &Range<usize>) -> Range<usize> {
        self.offsets[piece.start]..self.offsets[piece.end]
    }

    fn cut(&self, rule: Rule, piece: Range<usize>, into: &mut Vec<Range<usize>>) {
        let is_number = |_, class| class == Class::Number;
        match rule {
            Rule::Gpt2 => self.cut_words(piece, into, gpt2_word),
            Rule::Llama3 { digits } => {
                self.cut_words(piece, into, |view| llama3_word(view, digits));
            }
            Rule::EachNumber => self.isolate(piece, into, 1, 1, is_number),
            Rule::Numbers => self.isolate(piece, into, 1, usize::MAX, is_number),
            Rule::ThreeDigits => {
                self.isolate(piece, into, 3, 3, |character: char, _| {
                    character.is_ascii_digit()
                });
            }
            Rule::Punctuation => self.isolate(piece, into, 1, usize::MAX, |character, class| {
                class == Class::Punctuation || "$+<=>^~|".contains(character)
            }),
        }
    }

    /// Cuts a piece into words whose length `word` gives (0 counts as 1).
    fn cut_words(
        &self,
        piece: Range<usize>,
        into: &mut Vec<Range<usize>>,
        word: impl Fn(View<'_>) -> usize,
    ) {
        let mut start = piece.start;
        while start < piece.end {
            let view = View(&self.characters[start..piece.end]);
            let end = start + word(view).max(1);
            into.push(start..end);
            start = end;
        }
    }

    /// Makes a piece of its own of each run of `at_least..=at_most` characters that `wanted`
    /// accepts, and of what lies between them.
    fn isolate(
        &self,
        piece: Range<usize>,
        into: &mut Vec<Range<usize>>,
        at_least: usize,
        at_most: usize,
        wanted: impl Fn(char, Class) -> bool,
    ) {
        let mut rest = piece.start;
        let mut at = piece.start;
        while at < piece.end {
            let run = self.characters[at..piece.end]
                .iter()
                .take(at_most)
                .take_while(|(character, class)| wanted(*character, *class))
                .count();
            if run < at_least {
                at += 1;
                continue;
            }
            if rest < at {
                into.push(rest..at);
            }
            at += run;
            into.push(at - run..at);
            rest = at;
        }
        if rest < piece.end {
            into.push(rest..piece.end);
        }
    }
}

/// The rest of a piece; past its end there is nothing.
#[derive(Clone, Copy)]
struct View<'a>(&'a [(char, Class)]);

impl View<'_> {
    fn character(self, at: usize) -> Option<char> {
        self.0.get(at).map(|(character, _)| *character)
    }

    fn class(self, at: usize) -> Option<Class> {
        self.0.get(at).map(|(_, class)| *class)
    }

    fn is(self, at: usize, class: Class) -> bool {
        self.class(at) == Some(class)
    }

    /// `[^\s\p{L}\p{N}]`.
    fn is_symbol(self, at: usize) -> bool {
        matches!(self.class(at), Some(Class::Other | Class::Punctuation))
    }

    fn is_line_end(self, at: usize) -> bool {
        matches!(self.character(at), Some('\r' | '\n'))
    }

    /// End of the run from `start` on that `accept` takes.
    fn run(self, start: usize, accept: impl Fn(Self, usize) -> bool) -> usize {
        let mut end = start;
        while accept(self, end) {
            end += 1;
        }
        end
    }

    /// Length of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` here; 0: none.
    fn contraction(self, fold: fn(char) -> char) -> usize {
        if self.character(0) != Some('\'') {
            return 0;
        }
        match (self.character(1).map(fold), self.character(2).map(fold)) {
            (Some('s' | 't' | 'm' | 'd'), _) => 2,
            (Some('r' | 'v'), Some('e')) | (Some('l'), Some('l')) => 3,
            _ => 0,
        }
    }

    /// `\s+(?!\S)|\s+`: leaves the last of several spaces to the word that follows.
    fn spaces(self) -> usize {
        let spaces = self.run(0, |view, at| view.is(at, Class::Space));
        if spaces > 1 && self.character(spaces).is_some() {
            spaces - 1
        } else {
            spaces
        }
    }
}

fn gpt2_word(view: View<'_>) -> usize {
    let contraction = view.contraction(|character| character);
    if contraction > 0 {
        return contraction;
    }
    let word = usize::from(view.character(0) == Some(' '));
    match view.class(word) {
        Some(Class::Letter) => view.run(word, |view, at| view.is(at, Class::Letter)),
        Some(Class::Number) => view.run(word, |view, at| view.is(at, Class::Number)),
        Some(Class::Other | Class::Punctuation) => view.run(word, View::is_symbol),
        Some(Class::Space) | None => view.spaces(),
    }
}

fn llama3_word(view: View<'_>, digits: usize) -> usize {
    let contraction = view.contraction(|character| character.to_ascii_lowercase());
    if contraction > 0 {
        return contraction;
    }
    let letters = |view: View<'_>| view.run(1, |view, at| view.is(at, Class::Letter));
    if view.is(0, Class::Letter) {
        return letters(view);
    }
    if view.is(0, Class::Number) {
        return view.run(0, |view, at| at < digits && view.is(at, Class::Number));
    }
    if !view.is_line_end(0) && view.is(1, Class::Letter) {
        return letters(view);
    }
    let word = usize::from(view.character(0) == Some(' '));
    if view.is_symbol(word) {
        let end = view.run(word, View::is_symbol);
        return view.run(end, View::is_line_end);
    }
    let spaces = view.run(0, |view, at| view.is(at, Class::Space));
    match (0..spaces).rev().find(|&at| view.is_line_end(at)) {
        Some(last) => last + 1,
        None => view.spaces(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(kind: PreTokenizer, text: &str) -> Vec<&str> {
        let pieces = words(kind, text);
        assert_eq!(pieces.concat(), text);
        pieces
    }

    #[test]
    fn gpt2_keeps_a_space_with_its_word() {
        assert_eq!(
            cut(PreTokenizer::Gpt2, "I'll  go\n\n home, don't I? 12 34x"),
            [
                "I", "'ll", " ", " go", "\n\n", " home", ",", " don", "'t", " I", "?", " 12",
                " 34", "x"
            ]
        );
    }

    #[test]
    fn smollm_takes_digits_one_by_one() {
        assert_eq!(
            cut(PreTokenizer::Smollm, "a 123"),
            ["a", " ", "1", "2", "3"]
        );
    }

    #[test]
    fn llama3_groups_digits_by_three_and_folds_contractions() {
        assert_eq!(
            cut(PreTokenizer::Llama3, "It'S 12345\r\n\t x!!\n\ny  z"),
            [
                "It", "'S", " ", "123", "45", "\r\n", "\t", " x", "!!\n\n", "y", " ", " z"
            ]
        );
    }

    #[test]
    fn qwen2_takes_digits_one_by_one() {
        assert_eq!(
            cut(PreTokenizer::Qwen2, "(word 42"),
            ["(word", " ", "4", "2"]
        );
    }

    #[test]
    fn default_isolates_punctuation_and_threes_of_digits() {
        assert_eq!(
            cut(PreTokenizer::Default, "a<=b 12345"),
            ["a", "<=", "b", " ", "123", "45"]
        );
    }

    #[test]
    fn a_long_run_takes_linear_time() {
        for character in [" ", "a", "1", "'", "\n", "!", "é"] {
            let text = character.repeat(300_000);
            for kind in [
                PreTokenizer::Gpt2,
                PreTokenizer::Llama3,
                PreTokenizer::Default,
            ] {
                assert!(!words(kind, &text).is_empty());
            }
        }
    }
}
