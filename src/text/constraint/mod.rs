//! Structured output: answers that follow a grammar, token by token.
//!
//! Decides which tokens may come next. Compiling is bounded in time and memory, so that a hostile
//! schema is an error and not an outage.

mod environment;
mod mask;
mod schema;

pub use mask::TokenMask;

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory, TokenParser};
use schema::Unsupported;
use serde_json::Value;

use crate::backend::TokenId;
use crate::text::tokenizer::Tokenizer;

/// Most bytes of a grammar's text, its schemas included.
const MAX_GRAMMAR_BYTES: usize = 512 * 1024;

/// A grammar to be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a JSON schema.
    JsonSchema(Value),
    /// A grammar in llguidance's dialect of Lark.
    Lark(String),
    /// Such a grammar with a rule `body` of its own: JSON that follows `schema`. Keywords of the
    /// schema that are not supported are ignored. Made by [`crate::text::tools`].
    LarkWithSchema {
        /// The rules without `body`.
        lark: String,
        /// The schema of `body`.
        schema: Value,
    },
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

/// A compiled grammar and how far an answer has followed it.
pub struct Constraint {
    matcher: Matcher,
}

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
        match self.matcher.compute_mask_or_eos() {
            Ok(allowed) => Ok(TokenMask::from_words(allowed.as_slice())),
            Err(error) => Err(ConstraintError::Failed(brief(&error))),
        }
    }

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`], also for a token outside the last mask.
    pub fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        let consumed = self.matcher.consume_token(token);
        consumed.map_err(|error| ConstraintError::Failed(brief(&error)))
    }

    /// Whether the answer is complete: nothing but the end can follow.
    pub fn is_complete(&self) -> bool {
        let reason = self.matcher.stop_reason();
        matches!(reason, StopReason::NoExtension | StopReason::EndOfSentence)
    }

    /// Whether the answer may end here.
    pub fn may_end(&mut self) -> bool {
        self.is_complete() || self.matcher.is_accepting().unwrap_or(false)
    }
}

/// Compiles grammars for one vocabulary.
pub struct ConstraintFactory {
    parsers: ParserFactory,
}

impl std::fmt::Debug for ConstraintFactory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConstraintFactory")
            .finish_non_exhaustive()
    }
}

impl ConstraintFactory {
    /// Prepares a vocabulary: some tens of milliseconds and megabytes.
    ///
    /// # Errors
    /// [`ConstraintError::Failed`] for a vocabulary the library cannot hold.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let prepare = || {
            let environment = environment::build(tokenizer)?;
            ParserFactory::new_simple(&environment)
        };
        let caught = llguidance::panic_utils::catch_unwind(std::panic::AssertUnwindSafe(prepare));
        let mut parsers = caught.map_err(|error| ConstraintError::Failed(brief(&error)))?;
        parsers.quiet();
        let limits = parsers.limits_mut();
        limits.verbose_errors = false;
        // About 2 kB each: at most 50 MB for one answer.
        limits.max_lexer_states = 25_000;
        limits.max_grammar_size = 200_000;
        Ok(Self { parsers })
    }

    /// Compiles a grammar. Takes milliseconds, for the largest schemas some hundreds: not for a
    /// thread that serves others.
    ///
    /// # Errors
    /// [`ConstraintError::Schema`].
    pub fn compile(&self, grammar: &GrammarSpec) -> Result<Constraint, ConstraintError> {
        let grammar = match grammar {
            GrammarSpec::JsonObject => {
                let object = serde_json::json!({ "type": "object" });
                TopLevelGrammar::from_json_schema(schema::prepare(&object, Unsupported::Refuse)?)
            }
            GrammarSpec::JsonSchema(schema) => {
                TopLevelGrammar::from_json_schema(schema::prepare(schema, Unsupported::Refuse)?)
            }
            GrammarSpec::Lark(text) => lark(text.clone())?,
            GrammarSpec::LarkWithSchema {
                lark: rules,
                schema,
            } => {
                let body = schema::prepare(schema, Unsupported::Ignore)?;
                lark(format!("{rules}\nbody: %json {body}\n"))?
            }
        };
        let parse = || self.parsers.create_parser(grammar);
        let parser: anyhow::Result<TokenParser> =
            llguidance::panic_utils::catch_unwind(std::panic::AssertUnwindSafe(parse));
        let parser = parser.map_err(|error| ConstraintError::Schema(brief(&error)))?;
        let mut constraint = Constraint {
            matcher: Matcher::new(Ok(parser)),
        };
        // The first mask shows what compiling alone does not: a grammar without a beginning.
        let first = constraint
            .mask()
            .map_err(|error| ConstraintError::Schema(error.to_string()))?;
        if first.is_empty() {
            return Err(ConstraintError::Schema("no text can satisfy it".into()));
        }
        Ok(constraint)
    }
}

/// The message for a client: one line, without the library's traces.
fn brief(error: &anyhow::Error) -> String {
    const MAX_CHARACTERS: usize = 300;
    let text = format!("{error:#}");
    let text = text.split("\n<").next().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MAX_CHARACTERS)
        .collect()
}

fn lark(text: String) -> Result<TopLevelGrammar, ConstraintError> {
    if text.len() > MAX_GRAMMAR_BYTES {
        let problem = format!(
            "{} bytes, at most {MAX_GRAMMAR_BYTES} are allowed",
            text.len()
        );
        return Err(ConstraintError::Schema(problem));
    }
    Ok(TopLevelGrammar::from_lark(text))
}

#[cfg(test)]
pub(crate) mod tests;
