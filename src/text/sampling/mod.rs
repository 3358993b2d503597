//! Which token comes next.
//!
//! Decides one token from one row of logits, deterministically: same parameters, same rows, same
//! tokens, on every machine. The seed comes from outside.
//!
//! Order of what is applied: repetition penalty, frequency and presence penalty, bias, constraint,
//! temperature, top-k, top-p, min-p.

mod logprobs;
mod penalties;
mod select;
mod weights;

pub use logprobs::{Logprobs, logprobs};

use crate::backend::TokenId;
use crate::text::constraint::TokenMask;
use penalties::Penalties;

/// How tokens are drawn. The default draws from the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits, `0..=100`; 0 takes the most probable token always.
    pub temperature: f32,
    /// Keep this many of the most probable tokens; 0: all.
    pub top_k: u32,
    /// Keep the most probable tokens that together have this probability, `0..=1`.
    pub top_p: f32,
    /// Drop tokens less probable than this fraction of the most probable one, `0..=1`.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt and answer, above 0 and
    /// at most 100; 1: off. Source: Keskar et al. 2019, CTRL.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens in the answer, `-100..=100`.
    pub presence_penalty: f32,
    /// Subtracted per occurrence from the logits of tokens in the answer, `-100..=100`.
    pub frequency_penalty: f32,
    /// How many of the last tokens of prompt and answer `repetition_penalty` looks at; `None`: all.
    pub repetition_window: Option<u32>,
    /// Added to the logits of these tokens, finite; ids outside the vocabulary are ignored.
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

impl SamplingParams {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] for the first one outside.
    pub fn check(&self) -> Result<(), SamplingError> {
        let wrong = |field, allowed| Err(SamplingError::Parameter { field, allowed });
        if !(0.0..=100.0).contains(&self.temperature) {
            return wrong("temperature", "from 0 to 100");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return wrong("top_p", "from 0 to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", "from 0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0) {
            return wrong("repetition_penalty", "above 0 and at most 100");
        }
        if !(-100.0..=100.0).contains(&self.presence_penalty) {
            return wrong("presence_penalty", "from -100 to 100");
        }
        if !(-100.0..=100.0).contains(&self.frequency_penalty) {
            return wrong("frequency_penalty", "from -100 to 100");
        }
        if self.logit_bias.iter().any(|(_, bias)| !bias.is_finite()) {
            return wrong("logit_bias", "finite numbers");
        }
        Ok(())
    }
}

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter is out of its range.
    #[error("{field} must be {allowed}")]
    Parameter {
        /// The field of [`SamplingParams`].
        field: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Every token is forbidden or the row holds no number.
    #[error("no token can follow: the constraint forbids all, or the model gave no numbers")]
    NoToken,
}

/// Draws the tokens of one answer.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    penalties: Penalties,
    random: Random,
    /// The row with everything applied; kept to save the allocation.
    row: Vec<f32>,
    scratch: Vec<f32>,
}

impl Sampler {
    /// Starts an answer to `prompt`.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`].
    pub fn new(params: SamplingParams, prompt: &[TokenId]) -> Result<Self, SamplingError> {
        params.check()?;
        let penalties = Penalties::new(&params, prompt);
        let random = Random(params.seed);
        Ok(Self {
            params,
            penalties,
            random,
            row: Vec::new(),
            scratch: Vec::new(),
        })
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
        // A number is used up at every position, so that a token depends on nothing but its place.
        let random = self.random.next();
        let adjusts = !self.params.logit_bias.is_empty() || !self.penalties.is_empty();
        if adjusts || mask.is_some() {
            self.row.clear();
            self.row.extend_from_slice(logits);
            self.adjust(mask);
            Self::choose(&self.params, &self.row, random, &mut self.scratch)
        } else {
            Self::choose(&self.params, logits, random, &mut self.scratch)
        }
    }

    /// Applies penalties, bias and constraint to the copied row.
    fn adjust(&mut self, mask: Option<&TokenMask>) {
        self.penalties.apply(&mut self.row);
        for (token, bias) in &self.params.logit_bias {
            if let Some(logit) = self.row.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        if let Some(mask) = mask {
            mask.forbid_others(&mut self.row);
        }
    }

    fn choose(
        params: &SamplingParams,
        row: &[f32],
        random: f64,
        scratch: &mut Vec<f32>,
    ) -> Result<TokenId, SamplingError> {
        let token = if params.temperature == 0.0 {
            select::greatest(row)
        } else {
            let shape = select::Shape {
                temperature: params.temperature,
                top_k: params.top_k as usize,
                top_p: params.top_p,
                min_p: params.min_p,
            };
            select::draw(&shape, row, random, scratch)
        };
        token.ok_or(SamplingError::NoToken)
    }

    /// Counts a token of the answer for the penalties.
    pub fn accept(&mut self, token: TokenId) {
        self.penalties.accept(token);
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, good enough to draw from, and the same for ever,
/// which a library's default generator does not promise.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// A number in `0.0..1.0`, in steps of 2⁻⁵³.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
        let fraction = (bits >> 11) as f64;
        fraction / 9_007_199_254_740_992.0
    }
}

#[cfg(test)]
mod tests;
