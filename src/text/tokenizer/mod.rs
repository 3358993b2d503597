//! Text to tokens, exactly as llama.cpp does it for the same file.
//!
//! Decides token ids. It knows nothing of chat messages: what may be parsed as a special token is
//! said by the caller, and [`Specials::Text`] is the only right choice for text from outside.

mod bpe;
mod partition;
mod spm;
mod unicode;
mod vocabulary;
mod words;

pub use vocabulary::{PreTokenizer, TokenKind, Vocabulary, VocabularyKind};

use std::collections::HashMap;
use std::sync::Arc;

use partition::{Fragment, SpecialTokens};

use crate::backend::TokenId;
use crate::model::gguf::GgufFile;

/// Control tokens that a reader of an answer must see all the same: they open and close what is
/// taken out of the text further on.
const VISIBLE_CONTROL: [&str; 5] = [
    "<|python_tag|>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
];

/// Whether the names of control tokens in a text mean those tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// They are ordinary text: for everything that comes from outside.
    Text,
    /// They are tokens: for text written by the model's own template.
    Parse,
}

/// Why a model's vocabulary cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file does not state something that is needed, or states nonsense.
    #[error("the tokenizer in the model file cannot be used: {0}")]
    Invalid(String),
    /// An algorithm this program does not implement.
    #[error("the model's tokenizer is of a kind that is not supported: {0}")]
    Unsupported(String),
}

/// A model's tokenizer: immutable, cheap to clone, usable from many threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocabulary: Vocabulary,
    ids: HashMap<Box<str>, TokenId>,
    specials: SpecialTokens,
    algorithm: Algorithm,
    /// Bytes of all tokens one after the other.
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    visible: Vec<bool>,
}

enum Algorithm {
    Bpe(Box<bpe::Bpe>),
    SentencePiece(Box<spm::SentencePiece>),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tokenizer")
            .field("kind", &self.0.vocabulary.kind)
            .field("tokens", &self.0.vocabulary.tokens.len())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer of a model file.
    ///
    /// # Errors
    /// When the file states none, or one that is not supported or contradicts itself.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::from_gguf(file)?)
    }

    /// Builds a tokenizer.
    ///
    /// # Errors
    /// When the vocabulary contradicts itself.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        let vocabulary = vocabulary.completed()?;
        let ids = (0..)
            .zip(&vocabulary.tokens)
            .map(|(id, text)| (text.as_str().into(), id))
            .collect();
        let algorithm = match vocabulary.kind {
            VocabularyKind::ByteLevelBpe(kind) => {
                Algorithm::Bpe(Box::new(bpe::Bpe::new(kind, &vocabulary)?))
            }
            VocabularyKind::SentencePiece { space_prefix } => Algorithm::SentencePiece(Box::new(
                spm::SentencePiece::new(space_prefix, &vocabulary),
            )),
        };
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(vocabulary.tokens.len());
        let mut visible = Vec::with_capacity(vocabulary.tokens.len());
        for (text, kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
            append_bytes(vocabulary.kind, text, *kind, &mut bytes);
            ends.push(bytes.len());
            let hidden = matches!(kind, TokenKind::Control | TokenKind::Unknown);
            visible.push(!hidden || VISIBLE_CONTROL.contains(&text.as_str()));
        }
        let specials = SpecialTokens::new(&vocabulary);
        let inner = Inner {
            vocabulary,
            ids,
            specials,
            algorithm,
            bytes,
            ends,
            visible,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Tokens of `text`, without a beginning-of-sequence token.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        self.encode_parts(self.0.specials.partition(text, specials), true, &mut tokens);
        tokens
    }

    /// Tokens of text that stands inside an answer: as [`Specials::Text`], and no space is put
    /// before it.
    pub(crate) fn encode_inner(&self, text: &str) -> Vec<TokenId> {
        let mut tokens = Vec::new();
        let parts = self.0.specials.partition(text, Specials::Text);
        self.encode_parts(parts, false, &mut tokens);
        tokens
    }

    /// Tokens of a text in which `sentinel` breaks the names of control tokens that must stay
    /// text. Names that are whole mean the tokens; then the sentinel is taken out.
    pub(crate) fn encode_broken(&self, text: &str, sentinel: char) -> Vec<TokenId> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        let mut after_special = true;
        for fragment in self.0.specials.partition(text, Specials::Parse) {
            match fragment {
                Fragment::Text(part) => {
                    let clean = part.replace(sentinel, "");
                    let parts = self.0.specials.partition(&clean, Specials::Text);
                    after_special = self.encode_parts(parts, after_special, &mut tokens);
                }
                Fragment::Token(id) => {
                    tokens.push(id);
                    after_special = true;
                }
            }
        }
        tokens
    }

    /// Appends tokens; says whether the last one was a special token.
    fn encode_parts(
        &self,
        fragments: Vec<Fragment<'_>>,
        mut after_special: bool,
        into: &mut Vec<TokenId>,
    ) -> bool {
        for fragment in fragments {
            match fragment {
                Fragment::Token(id) => into.push(id),
                Fragment::Text(part) => match &self.0.algorithm {
                    Algorithm::Bpe(bpe) => bpe.encode(part, into),
                    Algorithm::SentencePiece(spm) => spm.encode(part, after_special, into),
                },
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        after_special
    }

    /// The bytes `id` stands for; the name of a control token; empty where `id` is out of range.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.0.ends.get(index) else {
            return &[];
        };
        let start = index.checked_sub(1).map_or(0, |before| self.0.ends[before]);
        &self.0.bytes[start..end]
    }

    /// The token as the vocabulary writes it; empty where `id` is out of range.
    pub fn token_text(&self, id: TokenId) -> &str {
        self.0
            .vocabulary
            .tokens
            .get(id as usize)
            .map_or("", String::as_str)
    }

    /// The token written `text` in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<TokenId> {
        self.0.ids.get(text).copied()
    }

    /// Whether a reader of the answer sees this token. Control tokens are hidden, but for those
    /// that open a tool call.
    pub fn is_visible(&self, id: TokenId) -> bool {
        self.0.visible.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether `id` is a control token, which only a template may produce.
    pub fn is_control(&self, id: TokenId) -> bool {
        matches!(
            self.0.vocabulary.kinds.get(id as usize),
            Some(TokenKind::Control | TokenKind::Unknown)
        )
    }

    /// Names of the tokens that only a template may produce.
    pub fn control_names(&self) -> impl Iterator<Item = &str> {
        self.0.specials.control_names()
    }

    /// Beginning of a sequence.
    pub fn bos(&self) -> Option<TokenId> {
        self.0.vocabulary.bos
    }

    /// End of a sequence.
    pub fn eos(&self) -> Option<TokenId> {
        self.0.vocabulary.eos
    }

    /// Whether `id` ends an answer: end of sequence, of turn, of message.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.0.vocabulary.ends.binary_search(&id).is_ok()
    }

    /// Tokens that end an answer, ascending.
    pub fn ends_of_generation(&self) -> &[TokenId] {
        &self.0.vocabulary.ends
    }

    /// Whether the model wants [`Tokenizer::bos`] before every prompt.
    pub fn adds_bos(&self) -> bool {
        self.0.vocabulary.add_bos
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> u32 {
        u32::try_from(self.0.vocabulary.tokens.len()).unwrap_or(u32::MAX)
    }
}

/// Appends what the token `text` stands for.
fn append_bytes(vocabulary: VocabularyKind, text: &str, kind: TokenKind, into: &mut Vec<u8>) {
    match (kind, vocabulary) {
        (TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined, _) => {
            into.extend_from_slice(text.as_bytes());
        }
        (TokenKind::Byte, _) => {
            let digits = text
                .strip_prefix("<0x")
                .and_then(|rest| rest.strip_suffix('>'));
            into.extend(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()));
        }
        (TokenKind::Unused, _) => {}
        (TokenKind::Normal, VocabularyKind::ByteLevelBpe(_)) => {
            for character in text.chars() {
                match bpe::unprintable(character) {
                    Some(byte) => into.push(byte),
                    None => into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
        }
        (TokenKind::Normal, VocabularyKind::SentencePiece { .. }) => {
            into.extend_from_slice(text.replace(spm::SPACE, " ").as_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
