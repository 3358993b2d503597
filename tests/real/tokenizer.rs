//! Our tokens are llama.cpp's tokens, on the vocabulary of a real model and on the same vocabulary
//! under every algorithm we implement.

use std::collections::HashSet;
use std::path::Path;

use enginewright::model::gguf::writer::GgufWriter;
use enginewright::model::gguf::{GgufArray, GgufFile, GgufValue};
use enginewright::text::tokenizer::{Specials, Tokenizer};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;

use crate::tools;

/// On the real model.
const STRINGS: usize = 10_000;
/// For each of the other algorithms.
const FEWER_STRINGS: usize = 4_000;

fn llama() -> &'static LlamaBackend {
    enginewright::backend::llama::library().unwrap()
}

/// llama.cpp's side: only the vocabulary is loaded.
fn reference(path: &Path) -> LlamaModel {
    let params = LlamaModelParams::default().with_vocab_only(true);
    LlamaModel::load_from_file(llama(), path, &params).unwrap()
}

fn ids(tokens: Vec<LlamaToken>) -> Vec<u32> {
    tokens
        .into_iter()
        .map(|token| u32::try_from(token.0).unwrap())
        .collect()
}

/// A small generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn one<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// Any character of any plane, assigned or not.
    fn character(&mut self) -> char {
        let plane = match self.below(6) {
            0 => 0x80,
            1 => 0x800,
            2 | 3 => 0x1_0000,
            _ => 0x11_0000,
        };
        loop {
            if let Some(found) = char::from_u32(u32::try_from(self.below(plane)).unwrap()) {
                return found;
            }
        }
    }
}

const SPACES: [&str; 12] = [
    " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "\u{85}", "\u{2028}", "\u{b}",
];
const WORDS: [&str; 20] = [
    "the",
    "Hello",
    "don't",
    "I'LL",
    "we've",
    "it'S",
    "O'Re",
    "l'eau",
    "straße",
    "Ελλάδα",
    "日本語",
    "नमस्ते",
    "e\u{301}",
    "fn main() {",
    "x_1 += 0x1F;",
    "<html>",
    "...",
    "—",
    "👩‍👩‍👧",
    "ſ'ſ",
];
const DIGITS: [&str; 8] = ["1", "42", "123", "1234", "1234567", "٣٤", "Ⅷ", "½²"];
const SPECIALS: [&str; 14] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|",
    "im_end|>",
    "<|im_<|im_end|>",
    "<s>",
    "</s>",
    "<unk>",
    "<repo_name>",
    "<file_sep>",
    "<0x0A>",
    "<tool_call>",
    "▁",
];

/// Words, runs of white space, numbers, names of special tokens and any characters at all.
fn text(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..dice.below(16) {
        match dice.below(8) {
            0 => text.push_str(dice.one(&SPECIALS)),
            1 | 2 => {
                for _ in 0..=dice.below(4) {
                    text.push_str(dice.one(&SPACES));
                }
            }
            3 => text.push_str(dice.one(&DIGITS)),
            4 => {
                for _ in 0..dice.below(6) {
                    text.push(dice.character());
                }
            }
            _ => {
                text.push_str(dice.one(&["", " "]));
                text.push_str(dice.one(&WORDS));
            }
        }
    }
    text
}

/// Compares the two sides on generated strings and on every single token.
fn assert_equal(path: &Path, strings: usize, seed: u64) {
    let model = reference(path);
    let vocab = model.vocab();
    let ours = Tokenizer::from_gguf(&GgufFile::open(path).unwrap()).unwrap();
    let mut dice = Dice(seed);
    let mut tokens = 0;
    for _ in 0..strings {
        let text = text(&mut dice);
        for (specials, parse) in [(Specials::Text, false), (Specials::Parse, true)] {
            let expected = ids(vocab.tokenize(text.as_bytes(), false, parse));
            assert_eq!(
                ours.encode(&text, specials),
                expected,
                "{specials:?} {text:?}"
            );
            tokens += expected.len();
        }
    }
    assert!(
        tokens > 10 * strings,
        "the strings are not trivial: {tokens}"
    );

    for id in 0..ours.vocabulary_size() {
        let token = LlamaToken(i32::try_from(id).unwrap());
        let name = ours.token_text(id).to_owned();
        assert_eq!(
            ours.is_end_of_generation(id),
            vocab.is_eog(token),
            "{name:?}"
        );
        assert_eq!(
            ours.token_bytes(id),
            vocab.token_to_piece(token, true, None),
            "{name:?}"
        );
    }
}

/// The real model's metadata with the tokenizer's entries changed by `change`; no tensors.
fn rewritten(
    change: impl Fn(&str, &GgufValue) -> Option<GgufValue>,
    more: Vec<(&str, GgufValue)>,
) -> tempfile::NamedTempFile {
    let file = GgufFile::open(&tools::model()).unwrap();
    let mut writer = GgufWriter::default();
    for (key, value) in file.metadata() {
        if let Some(value) = change(key, value) {
            writer = writer.entry(key, value);
        }
    }
    for (key, value) in more {
        writer = writer.entry(key, value);
    }
    let out = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(out.path(), writer.bytes()).unwrap();
    out
}

#[test]
fn ten_thousand_strings_give_llama_cpps_tokens_on_the_real_model() {
    assert_equal(&tools::model(), STRINGS, 1);
}

#[test]
fn every_pre_tokenizer_gives_llama_cpps_tokens() {
    for (seed, name) in (2..).zip(["llama-bpe", "qwen2", "gpt-2", "default", "dbrx"]) {
        let name = GgufValue::String(name.to_owned());
        let others =
            |key: &str, value: &GgufValue| (key != "tokenizer.ggml.pre").then(|| value.clone());
        let file = rewritten(others, vec![("tokenizer.ggml.pre", name)]);
        assert_equal(file.path(), FEWER_STRINGS, seed);
    }
}

/// The real vocabulary as a `SentencePiece` one, with many equal scores.
fn sentence_piece(space_prefix: bool) -> tempfile::NamedTempFile {
    let source = Tokenizer::from_gguf(&GgufFile::open(&tools::model()).unwrap()).unwrap();
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<|im_start|>", "<tool_call>"]
        .map(str::to_owned)
        .to_vec();
    let mut kinds = vec![2, 3, 3, 3, 4];
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), 6);
    let mut seen: HashSet<String> = tokens.iter().cloned().collect();
    for id in 0..source.vocabulary_size() {
        if let Ok(text) = std::str::from_utf8(source.token_bytes(id)) {
            let piece = text.replace(' ', "▁");
            if !piece.is_empty() && !piece.contains('\0') && seen.insert(piece.clone()) {
                tokens.push(piece);
            }
        }
    }
    kinds.resize(tokens.len(), 1);
    let scores = (0..tokens.len())
        .map(|index| -f32::from(u16::try_from(index / 16).unwrap()))
        .collect();
    let tokens = tokens.iter().map(String::as_str).collect();
    rewritten(
        |key, value| (!key.starts_with("tokenizer.ggml.")).then(|| value.clone()),
        vec![
            ("tokenizer.ggml.model", GgufValue::String("llama".into())),
            (
                "tokenizer.ggml.tokens",
                GgufValue::Array(GgufArray::Strings(tokens)),
            ),
            (
                "tokenizer.ggml.token_type",
                GgufValue::Array(GgufArray::I32(kinds)),
            ),
            (
                "tokenizer.ggml.scores",
                GgufValue::Array(GgufArray::F32(scores)),
            ),
            (
                "tokenizer.ggml.add_space_prefix",
                GgufValue::Bool(space_prefix),
            ),
            ("tokenizer.ggml.bos_token_id", GgufValue::U32(1)),
            ("tokenizer.ggml.eos_token_id", GgufValue::U32(2)),
        ],
    )
}

#[test]
fn sentence_piece_gives_llama_cpps_tokens() {
    for (seed, space_prefix) in [(20, true), (21, false)] {
        assert_equal(sentence_piece(space_prefix).path(), FEWER_STRINGS, seed);
    }
}
