//! Which token comes next.
//!
//! Decides one token from one row of logits, deterministically: same parameters, same rows, same
//! tokens. The seed comes from outside.

use crate::backend::TokenId;
use crate::text::constraint::TokenMask;

/// How tokens are drawn. The default draws from the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most probable token always.
    pub temperature: f32,
    /// Keep this many of the most probable tokens; 0: all.
    pub top_k: u32,
    /// Keep the most probable tokens that together have this probability, `0..=1`.
    pub top_p: f32,
    /// Drop tokens less probable than this fraction of the most probable one, `0..=1`.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens in the answer.
    pub presence_penalty: f32,
    /// Subtracted per occurrence from the logits of tokens in the answer.
    pub frequency_penalty: f32,
    /// How many of the last tokens of prompt and answer `repetition_penalty` looks at; `None`: all.
    pub repetition_window: Option<u32>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_window: None,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter is out of its range; names the field and the range.
    #[error("{field} must be {allowed}")]
    Parameter {
        /// The field of [`SamplingParams`].
        field: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Every token is forbidden or the row holds no number.
    #[error(
        "no token can follow: the constraint forbids all, or the model's output is not a number"
    )]
    NoToken,
}

/// Draws the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
}

impl Sampler {
    /// Starts an answer to `prompt`.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`].
    pub fn new(params: SamplingParams, prompt: &[TokenId]) -> Result<Self, SamplingError> {
        let _ = prompt;
        Ok(Self { params })
    }

    /// Draws the next token from a row of logits. Only tokens in `mask` are drawn where there is
    /// one. Does not count the token: see [`Sampler::accept`].
    ///
    /// # Errors
    /// [`SamplingError::NoToken`].
    pub fn sample(
        &mut self,
        logits: &[f32],
        mask: Option<&TokenMask>,
    ) -> Result<TokenId, SamplingError> {
        let _ = (logits, mask, &self.params);
        Err(SamplingError::NoToken)
    }

    /// Counts a token of the answer for the penalties.
    pub fn accept(&mut self, token: TokenId) {
        let _ = token;
    }
}

/// Log-probabilities of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was asked about.
    pub logprob: f32,
    /// The most probable tokens, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Natural logarithms of the probabilities of `token` and of the `top` most probable tokens under
/// the unmodified distribution.
pub fn logprobs(logits: &[f32], token: TokenId, top: u8) -> Logprobs {
    let _ = (logits, token, top);
    Logprobs {
        logprob: 0.0,
        top: Vec::new(),
    }
}
