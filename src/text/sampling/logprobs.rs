//! Log-probabilities of one position, under the distribution the model gave.

use super::select::most_probable;
use super::weights;
use crate::backend::TokenId;

/// Log-probabilities of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the probability of the token that was asked about.
    pub logprob: f32,
    /// The most probable tokens with theirs, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Natural logarithms of the probabilities of `token` and of the `top` most probable tokens under
/// the unmodified distribution.
pub fn logprobs(logits: &[f32], token: TokenId, top: u8) -> Logprobs {
    let greatest = weights::greatest(logits);
    let sum: f64 = weights::masses(logits, greatest, 1.0).iter().sum();
    let logarithm = sum.ln();
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm needs no f64")]
    let of = |logit: f32| (f64::from(logit - greatest) - logarithm) as f32;
    let best = most_probable(logits, usize::from(top)).into_iter();
    Logprobs {
        logprob: logits
            .get(token as usize)
            .map_or(f32::NEG_INFINITY, |logit| of(*logit)),
        top: best.map(|one| (one.token(), of(one.logit()))).collect(),
    }
}
