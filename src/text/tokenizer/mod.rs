//! Text to tokens, exactly as llama.cpp does it for the same file.
//!
//! Decides token ids. It knows nothing of chat messages: what may be parsed as a special token is
//! said by the caller, and [`Specials::Text`] is the only right choice for text from outside.

mod vocabulary;

pub use vocabulary::{PreTokenizer, TokenKind, Vocabulary, VocabularyKind};

use crate::backend::TokenId;

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

/// A model's tokenizer. Cheap to share (`Arc`), immutable, usable from many threads.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
}

impl Tokenizer {
    /// Builds a tokenizer.
    ///
    /// # Errors
    /// When the vocabulary contradicts itself.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        Ok(Self { vocabulary })
    }

    /// Tokens of `text`, without a beginning-of-sequence token.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<TokenId> {
        let _ = (text, specials);
        Vec::new()
    }

    /// The bytes `id` stands for; the name of a control token; empty where `id` is out of range.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        let _ = id;
        &[]
    }

    /// The token as the vocabulary writes it; empty where `id` is out of range.
    pub fn token_text(&self, id: TokenId) -> &str {
        self.vocabulary
            .tokens
            .get(id as usize)
            .map_or("", String::as_str)
    }

    /// The token written `text` in the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<TokenId> {
        let _ = text;
        None
    }

    /// Whether a reader of the answer sees this token. Control tokens are hidden, but for those
    /// that open a tool call.
    pub fn is_visible(&self, id: TokenId) -> bool {
        let _ = id;
        true
    }

    /// Whether `id` is a control token, which only a template may produce.
    pub fn is_control(&self, id: TokenId) -> bool {
        matches!(
            self.vocabulary.kinds.get(id as usize),
            Some(TokenKind::Control | TokenKind::Unknown)
        )
    }

    /// Beginning of a sequence.
    pub fn bos(&self) -> Option<TokenId> {
        self.vocabulary.bos
    }

    /// End of a sequence.
    pub fn eos(&self) -> Option<TokenId> {
        self.vocabulary.eos
    }

    /// Whether `id` ends an answer: end of sequence, of turn, of message.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.vocabulary.ends.contains(&id)
    }

    /// Tokens that end an answer, ascending.
    pub fn ends_of_generation(&self) -> &[TokenId] {
        &self.vocabulary.ends
    }

    /// Whether the model wants [`Tokenizer::bos`] before every prompt.
    pub fn adds_bos(&self) -> bool {
        self.vocabulary.add_bos
    }

    /// Number of tokens.
    pub fn vocabulary_size(&self) -> u32 {
        u32::try_from(self.vocabulary.tokens.len()).unwrap_or(u32::MAX)
    }
}
