//! From a row of logits to one token, without sorting the vocabulary.
//!
//! Every filter finds a border by selection, in linear time, and then keeps the tokens above it in
//! the order of their ids: what is drawn depends on no detail of a sorting algorithm.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::weights;
use crate::backend::TokenId;

/// Up to this many, the most probable tokens are found with a heap; more, by selection.
const HEAP: usize = 1024;
/// Logits looked at together: most blocks hold none of the most probable.
const BLOCK: usize = 64;

/// A token ranked by its logit; of equals the lower id is the greater. One number, so that
/// comparing is one instruction: the logit's bits in ascending order above the inverted id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked(u64);

impl Ranked {
    fn new(logit: f32, token: TokenId) -> Self {
        let bits = logit.to_bits();
        let ascending = if bits >> 31 == 0 {
            bits | 1 << 31
        } else {
            !bits
        };
        Self(u64::from(ascending) << 32 | u64::from(!token))
    }

    pub(super) fn logit(self) -> f32 {
        let ascending = (self.0 >> 32) as u32;
        f32::from_bits(if ascending >> 31 == 1 {
            ascending & !(1 << 31)
        } else {
            !ascending
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the halves apart")]
    pub(super) fn token(self) -> TokenId {
        !(self.0 as u32)
    }
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    ranked: Ranked,
    /// `exp((logit - greatest) / temperature)`: 1 for the most probable.
    weight: f32,
}

/// The parameters that shape the distribution.
pub(super) struct Shape {
    pub(super) temperature: f32,
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    pub(super) min_p: f32,
}

/// The token with the greatest logit, the lowest id among equals; `None`: none is a number above
/// minus infinity.
pub(super) fn greatest(row: &[f32]) -> Option<TokenId> {
    let greatest = weights::greatest(row);
    if greatest == f32::NEG_INFINITY {
        return None;
    }
    (0..)
        .zip(row)
        .find(|(_, logit)| **logit == greatest)
        .map(|(token, _)| token)
}

/// The `count` most probable tokens, best first.
pub(super) fn most_probable(row: &[f32], count: usize) -> Vec<Ranked> {
    if count == 0 {
        return Vec::new();
    }
    let mut kept = if count <= HEAP {
        by_heap(row, count)
    } else {
        by_selection(row, count)
    };
    kept.sort_unstable_by(|one, other| other.cmp(one));
    kept
}

/// In one pass with a heap of `count`.
fn by_heap(row: &[f32], count: usize) -> Vec<Ranked> {
    let mut kept: BinaryHeap<Reverse<Ranked>> = BinaryHeap::with_capacity(count);
    let mut least = f32::NEG_INFINITY;
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "a lazy operator is no vector code"
    )]
    for (first, block) in (0..).step_by(BLOCK).zip(row.chunks(BLOCK)) {
        // `any` on the whole block is vector code; the loop below seldom runs.
        if !block
            .iter()
            .fold(false, |any, logit| any | (*logit > least))
        {
            continue;
        }
        for (token, logit) in (first..).zip(block) {
            if *logit <= least || logit.is_nan() {
                continue;
            }
            let one = Reverse(Ranked::new(*logit, token));
            if kept.len() < count {
                kept.push(one);
            } else if let Some(mut worst) = kept.peek_mut() {
                *worst = one;
            }
            if kept.len() == count {
                least = kept.peek().map_or(least, |worst| worst.0.logit());
            }
        }
    }
    kept.into_iter().map(|one| one.0).collect()
}

fn by_selection(row: &[f32], count: usize) -> Vec<Ranked> {
    let all = (0..)
        .zip(row)
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut all: Vec<Ranked> = all
        .map(|(token, logit)| Ranked::new(*logit, token))
        .collect();
    if count < all.len() {
        all.select_nth_unstable_by(count - 1, |one, other| other.cmp(one));
        all.truncate(count);
    }
    all
}

/// Draws a token with `random` in `0.0..1.0`; `None`: no token is allowed. Tokens at minus
/// infinity and NaN are not allowed. `scratch` is only there to be reused.
pub(super) fn draw(
    shape: &Shape,
    row: &[f32],
    random: f64,
    scratch: &mut Vec<f32>,
) -> Option<TokenId> {
    let greatest = weights::greatest(row);
    if greatest == f32::NEG_INFINITY {
        return None;
    }
    let weigh = |ranked: Ranked| {
        let weight = weights::weight(ranked.logit(), greatest, shape.temperature);
        Candidate { ranked, weight }
    };
    let mut candidates: Vec<Candidate> = if shape.top_k > 0 && shape.top_k < row.len() {
        let mut best: Vec<Candidate> = most_probable(row, shape.top_k)
            .into_iter()
            .map(weigh)
            .collect();
        best.sort_unstable_by_key(|one| one.ranked.token());
        let whole = best.iter().map(|one| f64::from(one.weight)).sum();
        keep_mass(&mut best, shape.top_p, whole);
        best
    } else if shape.top_p < 1.0 {
        weights::weigh(row, greatest, shape.temperature, scratch);
        let whole = weights::sum(scratch);
        let mut heavy = heavy(row, scratch, shape.top_p, whole);
        keep_mass(&mut heavy, shape.top_p, whole);
        heavy
    } else if shape.min_p > 0.0 {
        let border = greatest + shape.temperature * shape.min_p.ln();
        let above = (0..).zip(row).filter(|(_, logit)| **logit >= border);
        above
            .map(|(token, logit)| weigh(Ranked::new(*logit, token)))
            .collect()
    } else {
        weights::weigh(row, greatest, shape.temperature, scratch);
        return pick_dense(scratch, random);
    };
    candidates.retain(|one| one.weight >= shape.min_p);
    pick(&candidates, random)
}

/// The tokens of which some have to be kept for `share` of the whole weight. Those left out are so
/// light that all of them together weigh less than what may be dropped.
fn heavy(row: &[f32], weights: &[f32], share: f32, whole: f64) -> Vec<Candidate> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a border between what matters and what does not"
    )]
    let light = ((1.0 - f64::from(share)) * whole / row.len() as f64) as f32;
    let all = (0..).zip(row.iter().zip(weights));
    all.filter(|(_, (_, weight))| **weight >= light && **weight > 0.0)
        .map(|(token, (logit, weight))| Candidate {
            ranked: Ranked::new(*logit, token),
            weight: *weight,
        })
        .collect()
}

/// Keeps the smallest set of most probable tokens that has `share` of the `whole` weight, at least
/// one token.
fn keep_mass(candidates: &mut Vec<Candidate>, share: f32, whole: f64) {
    if share >= 1.0 {
        return;
    }
    let mut wanted = f64::from(share) * whole;
    let mut ranked = candidates.clone();
    let mut rest = ranked.as_mut_slice();
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, |one, other| other.ranked.cmp(&one.ranked));
        let (upper, lower) = rest.split_at_mut(middle);
        let mass: f64 = upper.iter().map(|one| f64::from(one.weight)).sum();
        if mass >= wanted {
            rest = upper;
        } else {
            wanted -= mass;
            rest = lower;
        }
    }
    // The token at which the running sum in order of rank first reaches what is wanted.
    if let Some(border) = rest.first().map(|one| one.ranked) {
        candidates.retain(|one| one.ranked >= border);
    }
}

/// Inverse of the cumulative distribution, over ids.
fn pick(candidates: &[Candidate], random: f64) -> Option<TokenId> {
    let whole: f64 = candidates.iter().map(|one| f64::from(one.weight)).sum();
    let mut left = random * whole;
    for one in candidates {
        if left < f64::from(one.weight) {
            return Some(one.ranked.token());
        }
        left -= f64::from(one.weight);
    }
    // Rounding: the last one that can be drawn at all.
    candidates
        .iter()
        .rev()
        .find(|one| one.weight > 0.0)
        .map(|one| one.ranked.token())
}

/// As [`pick`], over the weights of all tokens: first the part of the vocabulary, then the token.
fn pick_dense(weights: &[f32], random: f64) -> Option<TokenId> {
    const PART: usize = 1024;
    let parts: Vec<f64> = weights.chunks(PART).map(weights::sum).collect();
    let mut left = random * parts.iter().sum::<f64>();
    let mut last = None;
    for (first, (part, sum)) in (0..).step_by(PART).zip(weights.chunks(PART).zip(&parts)) {
        if *sum <= 0.0 {
            continue;
        }
        if left >= *sum {
            left -= sum;
        } else {
            for (token, weight) in (first..).zip(part) {
                if left < f64::from(*weight) {
                    return Some(token);
                }
                left -= f64::from(*weight);
            }
        }
        let drawable = (first..).zip(part).filter(|(_, weight)| **weight > 0.0);
        last = drawable.last().map(|(token, _)| token);
    }
    // Rounding: the last one that can be drawn at all.
    last
}
