//! Character classes as the pre-tokenizers see them.
//!
//! The classes are those of Unicode 15.1, which llama.cpp's tables hold: a newer table would cut
//! words differently and give other tokens than the model's other users see.

use std::sync::OnceLock;

/// What a pre-tokenizer wants to know of a character; every character is in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Everything else, unassigned characters too.
    Other,
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`: `White_Space`.
    Space,
    /// `\p{P}`.
    Punctuation,
}

/// Bits of a code point inside a block.
const BLOCK_BITS: u32 = 8;
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCKS: usize = 0x11_0000 >> BLOCK_BITS;

/// Two-stage table: equal blocks of 256 characters are stored once.
struct Table {
    block_of: Vec<u16>,
    blocks: Vec<[Class; BLOCK]>,
}

static TABLE: OnceLock<Table> = OnceLock::new();

/// The class of `character`.
pub(super) fn class(character: char) -> Class {
    let table = TABLE.get_or_init(Table::build);
    let code = character as usize;
    let block = usize::from(table.block_of[code >> BLOCK_BITS]);
    table.blocks[block][code & (BLOCK - 1)]
}

impl Table {
    fn build() -> Self {
        let mut flat = vec![Class::Other; BLOCKS * BLOCK];
        let classes = [
            (r"[\p{L}&&\p{age:15.1}]", Class::Letter),
            (r"[\p{N}&&\p{age:15.1}]", Class::Number),
            (r"[\p{P}&&\p{age:15.1}]", Class::Punctuation),
            (r"\p{White_Space}", Class::Space),
        ];
        for (expression, class) in classes {
            for (first, last) in ranges(expression) {
                flat[first as usize..=last as usize].fill(class);
            }
        }
        let mut block_of = Vec::with_capacity(BLOCKS);
        let mut blocks: Vec<[Class; BLOCK]> = Vec::new();
        for chunk in flat.chunks_exact(BLOCK) {
            let known = blocks.iter().position(|block| block.as_slice() == chunk);
            let index = known.unwrap_or_else(|| {
                let mut block = [Class::Other; BLOCK];
                block.copy_from_slice(chunk);
                blocks.push(block);
                blocks.len() - 1
            });
            block_of.push(u16::try_from(index).unwrap_or(0));
        }
        Self { block_of, blocks }
    }
}

/// The ranges of a class expression. The expressions are constants of this file and parse.
fn ranges(expression: &str) -> Vec<(char, char)> {
    use regex_syntax::hir::{Class as HirClass, HirKind};
    match regex_syntax::parse(expression).map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(HirClass::Unicode(class))) => class
            .ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_unicode_15_1() {
        let count = |class_wanted| {
            let all = '\0'..=char::MAX;
            all.filter(|&character| class(character) == class_wanted)
                .count()
        };
        // The sums of llama.cpp's own table (unicode-data.cpp).
        assert_eq!(count(Class::Letter), 136_726);
        assert_eq!(count(Class::Number), 1_831);
        assert_eq!(count(Class::Punctuation), 842);
        assert_eq!(count(Class::Space), 25);
    }

    #[test]
    fn single_characters_have_the_expected_class() {
        for (character, expected) in [
            ('a', Class::Letter),
            ('ſ', Class::Letter),
            ('中', Class::Letter),
            ('7', Class::Number),
            ('Ⅷ', Class::Number),
            ('\u{85}', Class::Space),
            ('\u{3000}', Class::Space),
            ('\u{1c}', Class::Other),
            ('_', Class::Punctuation),
            ('$', Class::Other),
            ('\u{1f980}', Class::Other),
            ('\u{e000}', Class::Other),
            ('\u{1c89}', Class::Other), // a letter since Unicode 16
        ] {
            assert_eq!(class(character), expected, "{character:?}");
        }
    }
}
