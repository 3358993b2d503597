//! Structured output: answers that follow a grammar, token by token.
//!
//! Decides which tokens may come next. Compiling is bounded in time and memory, so that a hostile
//! schema is an error and not an outage.

use serde_json::Value;

use crate::backend::TokenId;

/// A grammar to be compiled.
#[derive(Clone, Debug, PartialEq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a JSON schema.
    JsonSchema(Value),
    /// A grammar in llguidance's dialect of Lark; made by [`crate::text::tools`].
    Lark(String),
}

/// Why a grammar cannot be used, or stopped being followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The schema cannot be satisfied, is not supported, or is too large: the client's mistake.
    #[error("the schema cannot be used: {0}")]
    Schema(String),
    /// The grammar needed more work than one step may take, or the library failed.
    #[error("the grammar could not be followed: {0}")]
    Failed(String),
}

/// The tokens that may come next, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// A mask of exactly `tokens` in a vocabulary of `size`.
    pub fn of(tokens: &[TokenId], size: u32) -> Self {
        let mut words = vec![0; (size as usize).div_ceil(32)];
        for &token in tokens {
            if let Some(word) = words.get_mut(token as usize / 32) {
                *word |= 1 << (token % 32);
            }
        }
        Self { words }
    }

    /// Whether `token` may come next.
    pub fn allows(&self, token: TokenId) -> bool {
        self.words
            .get(token as usize / 32)
            .is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The bits, lowest token in the lowest bit of the first word.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// A compiled grammar and how far an answer has followed it.
pub struct Constraint {}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Constraint").finish_non_exhaustive()
    }
}

impl Constraint {
    /// Tokens that may come next; end-of-generation tokens are among them where the answer may end.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`].
    pub fn mask(&mut self) -> Result<TokenMask, ConstraintError> {
        Err(ConstraintError::Failed(String::new()))
    }

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`], also for a token outside the last mask.
    pub fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        let _ = token;
        Ok(())
    }

    /// Whether the answer is complete: nothing but the end can follow.
    pub fn is_complete(&self) -> bool {
        false
    }
}

/// Compiles grammars for one vocabulary.
#[derive(Debug)]
pub struct ConstraintFactory {}

impl ConstraintFactory {
    /// Compiles a grammar.
    ///
    /// # Errors
    /// [`ConstraintError::Schema`].
    pub fn compile(&self, grammar: &GrammarSpec) -> Result<Constraint, ConstraintError> {
        let _ = grammar;
        Ok(Constraint {})
    }
}
