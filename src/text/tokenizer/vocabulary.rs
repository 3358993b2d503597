//! The vocabulary of a model as its file states it, checked and completed.
//!
//! Decides what kind each token is, which tokens end an answer and which pre-tokenizer the model
//! was trained with, by the same rules as llama.cpp, so that both count the same tokens.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::TokenizerError;
use crate::backend::TokenId;
use crate::model::gguf::GgufFile;

/// What a token is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TokenKind {
    /// Ordinary text.
    Normal,
    /// Stands for text the vocabulary cannot express.
    Unknown,
    /// Structure of a prompt (`<|im_start|>`): never produced from user text.
    Control,
    /// Added to the vocabulary; found in any text before everything else.
    UserDefined,
    /// Reserved, never used.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VocabularyKind {
    /// Byte-level BPE with merges (`gpt2`).
    ByteLevelBpe(PreTokenizer),
    /// `SentencePiece` BPE with scores (`llama`).
    #[serde(rename_all = "camelCase")]
    SentencePiece {
        /// Put a space before the first word.
        space_prefix: bool,
    },
}

/// How text is cut into words before byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PreTokenizer {
    /// GPT-2's own expression.
    Gpt2,
    /// Each digit alone, then GPT-2's expression: `SmolLM`, `StarCoder`, Command-R.
    Smollm,
    /// Llama 3: digits in groups of three, contractions in any case.
    Llama3,
    /// Qwen 2: as Llama 3 with each digit alone.
    Qwen2,
    /// llama.cpp's default for files that name none.
    Default,
}

/// Everything a tokenizer is built from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vocabulary {
    /// The algorithm.
    pub kind: VocabularyKind,
    /// Text of every token; byte-level tokens in GPT-2's printable alphabet.
    pub tokens: Vec<String>,
    /// Kind of every token, as long as `tokens`.
    pub kinds: Vec<TokenKind>,
    /// Scores of a `SentencePiece` vocabulary, as long as `tokens`; empty for BPE.
    pub scores: Vec<f32>,
    /// Merges of a BPE vocabulary, best first, each two tokens with a space between them.
    pub merges: Vec<String>,
    /// Whole words that are tokens are taken as they are, before any merge.
    pub ignore_merges: bool,
    /// Beginning of a sequence.
    pub bos: Option<TokenId>,
    /// End of a sequence.
    pub eos: Option<TokenId>,
    /// Further tokens that end an answer, beside the well-known ones found by their text.
    pub ends: Vec<TokenId>,
    /// The model wants `bos` before every prompt.
    pub add_bos: bool,
}

/// Tokens that end an answer whatever else the file says, found by their text.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Fill-in-the-middle tokens that also end an answer; of each group only the first found.
const FILL_ENDS: [&[&str]; 3] = [
    &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    &[
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
    ],
    &["<|file_sep|>"],
];

/// Further fill-in-the-middle tokens: control tokens, even where the file calls them text.
const FILL_CONTROL: [&[&str]; 3] = [
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

/// Structure of the harmony format, which is always read as tokens.
const ALWAYS_PARSED: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Vocabulary {
    /// Reads the vocabulary of a model file.
    ///
    /// # Errors
    /// When a part is missing, contradicts another, or is of a kind that is not supported.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TokenizerError> {
        let (kind, llama3) = kind_from_gguf(file)?;
        let tokens: Vec<String> = file
            .strings("tokenizer.ggml.tokens")
            .ok_or_else(|| missing("tokenizer.ggml.tokens"))?
            .iter()
            .map(str::to_owned)
            .collect();
        let kinds = match file.i32s("tokenizer.ggml.token_type") {
            Some(types) => types
                .iter()
                .map(|number| TokenKind::from_number(*number))
                .collect(),
            None => vec![TokenKind::Normal; tokens.len()],
        };
        let sentence_piece = matches!(kind, VocabularyKind::SentencePiece { .. });
        let merges = file.strings("tokenizer.ggml.merges");
        if merges.is_none() && !sentence_piece {
            return Err(missing("tokenizer.ggml.merges"));
        }
        let scores = file
            .f32s("tokenizer.ggml.scores")
            .filter(|_| sentence_piece);
        let id = |name: &str, default: Option<TokenId>| {
            let stated = file.u32(&format!("tokenizer.ggml.{name}_token_id"));
            let fits = |id: &TokenId| (*id as usize) < tokens.len();
            stated.filter(fits).or_else(|| default.filter(fits))
        };
        // llama.cpp's defaults for files that name none.
        let (first, last) = if sentence_piece { (1, 2) } else { (11, 11) };
        let (bos, eos) = (id("bos", Some(first)), id("eos", Some(last)));
        let ends = ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"];
        let ends = ends.into_iter().filter_map(|name| id(name, None)).collect();
        let add_bos = file
            .bool("tokenizer.ggml.add_bos_token")
            .unwrap_or(sentence_piece || llama3);
        Ok(Self {
            kind,
            kinds,
            scores: scores.map(<[f32]>::to_vec).unwrap_or_default(),
            merges: merges
                .map(|list| list.iter().map(str::to_owned).collect())
                .unwrap_or_default(),
            ignore_merges: llama3,
            bos,
            eos,
            ends,
            add_bos,
            tokens,
        })
    }

    /// Checks the parts against each other and finds the tokens that end an answer.
    pub(super) fn completed(mut self) -> Result<Self, TokenizerError> {
        self.check()?;
        for (index, token) in self.tokens.iter_mut().enumerate() {
            if token.is_empty() {
                *token = format!("[EMPTY_{index}]");
            }
        }
        let ids: HashMap<String, TokenId> = (0..)
            .zip(&self.tokens)
            .map(|(id, text)| (text.clone(), id))
            .collect();
        let find = |names: &[&str]| names.iter().find_map(|name| ids.get(*name).copied());
        let mut controls: Vec<TokenId> = ENDS
            .iter()
            .filter_map(|name| ids.get(*name).copied())
            .collect();
        controls.extend(FILL_ENDS.iter().filter_map(|names| find(names)));
        self.ends.extend(&controls);
        self.ends.extend(self.eos);
        controls.extend(FILL_CONTROL.iter().filter_map(|names| find(names)));
        for id in controls {
            self.kinds[id as usize] = TokenKind::Control;
        }
        for name in ALWAYS_PARSED {
            if let Some(id) = ids.get(name) {
                self.kinds[*id as usize] = TokenKind::UserDefined;
            }
        }
        self.remove_false_ends(&ids);
        self.ends.sort_unstable();
        self.ends.dedup();
        Ok(self)
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let count = self.tokens.len();
        let wrong = |text: String| Err(TokenizerError::Invalid(text));
        if count == 0 || u32::try_from(count).is_err() {
            return wrong(format!("it has {count} tokens"));
        }
        if self.kinds.len() != count {
            return wrong(format!(
                "{count} tokens but {} token types",
                self.kinds.len()
            ));
        }
        let sentence_piece = matches!(self.kind, VocabularyKind::SentencePiece { .. });
        if sentence_piece && self.scores.len() != count {
            return wrong(format!("{count} tokens but {} scores", self.scores.len()));
        }
        let ids = self.ends.iter().chain(&self.bos).chain(&self.eos);
        if let Some(id) = ids.copied().find(|id| *id as usize >= count) {
            return wrong(format!("special token {id} is outside the {count} tokens"));
        }
        if self.add_bos && self.bos.is_none() {
            return wrong("a beginning-of-sequence token is to be added, but none is named".into());
        }
        Ok(())
    }

    /// Well-known names that mean something else in some families: in harmony `<|end|>` ends a
    /// message and not an answer; in Gemma 4 and `PLaMo` `</s>` is text.
    fn remove_false_ends(&mut self, ids: &HashMap<String, TokenId>) {
        let has = |name: &str| ids.contains_key(name);
        let mut not_an_end = |name: &str, kind: TokenKind| {
            if let Some(id) = ids.get(name) {
                self.ends.retain(|end| end != id);
                self.kinds[*id as usize] = kind;
            }
        };
        let has_call = has("<|call|>") || has("<|calls|>");
        if has_call && (has("<|return|>") || has("<|flush|>")) {
            not_an_end("<|end|>", TokenKind::UserDefined);
        }
        if has("<|tool_response>") || has("<|plamo:eos|>") {
            not_an_end("</s>", TokenKind::Normal);
        }
    }
}

fn missing(key: &str) -> TokenizerError {
    TokenizerError::Invalid(format!("{key} is missing or of a wrong type"))
}

/// The algorithm, and whether the file's defaults are those of Llama 3: whole words that are
/// tokens are taken as they are, and prompts begin with `bos`.
fn kind_from_gguf(file: &GgufFile) -> Result<(VocabularyKind, bool), TokenizerError> {
    match file
        .str("tokenizer.ggml.model")
        .ok_or_else(|| missing("tokenizer.ggml.model"))?
    {
        "llama" => {
            let space_prefix = file.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
            Ok((VocabularyKind::SentencePiece { space_prefix }, false))
        }
        "gpt2" => {
            let name = file.str("tokenizer.ggml.pre").unwrap_or("default");
            let (kind, llama3) = PreTokenizer::named(name).ok_or_else(|| {
                TokenizerError::Unsupported(format!(
                    "tokenizer.ggml.pre is {name:?}; supported are llama-bpe, qwen2, smollm, \
                     starcoder, gpt-2, default and the names that mean the same"
                ))
            })?;
            Ok((VocabularyKind::ByteLevelBpe(kind), llama3))
        }
        other => Err(TokenizerError::Unsupported(format!(
            "tokenizer.ggml.model is {other:?}; supported are gpt2 and llama"
        ))),
    }
}

impl TokenKind {
    /// Numbers of `tokenizer.ggml.token_type`; unknown ones are never produced from text.
    fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
            _ => Self::Unused,
        }
    }
}

impl PreTokenizer {
    /// The rule that `tokenizer.ggml.pre` names, as llama.cpp groups the names, and whether
    /// Llama 3's defaults come with it.
    fn named(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "default" => (Self::Default, false),
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" | "lfm2" => (Self::Llama3, true),
            "dbrx" | "smaug-bpe" => (Self::Llama3, false),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone"
            | "minerva-7b" | "mellum2" => (Self::Smollm, false),
            "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" | "trillion" | "mellum" | "exaone4"
            | "gigachat" | "a.x-4.0" | "granite-docling" => (Self::Gpt2, false),
            "qwen2" | "stablelm2" | "deepseek-r1-qwen" | "kormo" | "megrez" | "hunyuan"
            | "grok-2" | "solar-open" => (Self::Qwen2, false),
            _ => return None,
        })
    }
}
