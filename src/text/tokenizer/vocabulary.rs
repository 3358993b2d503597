//! The vocabulary of a model as its file states it, checked and completed.
//!
//! Decides what kind each token is, which tokens end an answer and which pre-tokenizer the model
//! was trained with, by the same rules as llama.cpp, so that both count the same tokens.

use crate::backend::TokenId;

/// What a token is for; the numbers are those of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularyKind {
    /// Byte-level BPE with merges (`gpt2`).
    ByteLevelBpe(PreTokenizer),
    /// SentencePiece BPE with scores (`llama`).
    SentencePiece {
        /// Put a space before the first word.
        space_prefix: bool,
    },
}

/// How text is cut into words before byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {
    /// GPT-2's own expression.
    Gpt2,
    /// Each digit alone, then GPT-2's expression: SmolLM, StarCoder, Command-R.
    Smollm,
    /// Llama 3: digits in groups of three, contractions in any case.
    Llama3,
    /// Qwen 2: as Llama 3 with each digit alone.
    Qwen2,
    /// llama.cpp's default for files that name none.
    Default,
}

/// Everything a tokenizer is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// The algorithm.
    pub kind: VocabularyKind,
    /// Text of every token; byte-level tokens in GPT-2's printable alphabet.
    pub tokens: Vec<String>,
    /// Kind of every token, as long as `tokens`.
    pub kinds: Vec<TokenKind>,
    /// Scores of a SentencePiece vocabulary, as long as `tokens`; empty for BPE.
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
