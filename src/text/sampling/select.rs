//! From a row of logits to one token, without sorting the vocabulary.
//!
//! Every filter finds a border by selection, in linear time, and then keeps the tokens above it in
//! the order of their ids: what is drawn depends on no detail of a sorting algorithm.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::backend::TokenId;
use crate::text::constraint::TokenMask;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    ranked: Ranked,
    /// `exp((logit - greatest) / temperature)`: 1 for the most probable.
    weight: f64,
}

/// A token ranked by its logit; of equals the lower id is the greater.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ranked {
    pub(super) logit: f32,
    pub(super) token: TokenId,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.logit
            .total_cmp(&other.logit)
            .then(other.token.cmp(&self.token))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The parameters that shape the distribution.
pub(super) struct Shape {
    pub(super) temperature: f32,
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    pub(super) min_p: f32,
}

/// Calls `each` for every token that may be drawn, by id. NaN and minus infinity may not.
fn for_each_allowed(row: &[f32], mask: Option<&TokenMask>, mut each: impl FnMut(Ranked)) {
    let mut offer = |token: TokenId, logit: f32| {
        if logit > f32::NEG_INFINITY {
            each(Ranked { logit, token });
        }
    };
    match mask {
        None => (0..)
            .zip(row)
            .for_each(|(token, logit)| offer(token, *logit)),
        Some(mask) => mask.for_each(|token| {
            if let Some(logit) = row.get(token as usize) {
                offer(token, *logit);
            }
        }),
    }
}

/// The allowed token with the greatest logit, the lowest id among equals.
pub(super) fn greatest(row: &[f32], mask: Option<&TokenMask>) -> Option<TokenId> {
    greatest_ranked(row, mask).map(|best| best.token)
}

fn greatest_ranked(row: &[f32], mask: Option<&TokenMask>) -> Option<Ranked> {
    let mut best: Option<Ranked> = None;
    for_each_allowed(row, mask, |one| {
        if best.is_none_or(|best| one.logit > best.logit) {
            best = Some(one);
        }
    });
    best
}

/// The `count` most probable allowed tokens, best first, in one pass with a heap of `count`.
pub(super) fn most_probable(row: &[f32], mask: Option<&TokenMask>, count: usize) -> Vec<Ranked> {
    let mut kept: BinaryHeap<Reverse<Ranked>> = BinaryHeap::new();
    let mut least = f32::NEG_INFINITY;
    for_each_allowed(row, mask, |one| {
        if kept.len() < count {
            kept.push(Reverse(one));
        } else if one.logit > least
            && let Some(mut worst) = kept.peek_mut()
        {
            *worst = Reverse(one);
        } else {
            return;
        }
        if kept.len() == count {
            least = kept.peek().map_or(least, |worst| worst.0.logit);
        }
    });
    let mut kept: Vec<Ranked> = kept.into_iter().map(|one| one.0).collect();
    kept.sort_unstable_by(|one, other| other.cmp(one));
    kept
}

/// Draws a token with `random` in `0.0..1.0`; `None`: no token is allowed.
pub(super) fn draw(
    shape: &Shape,
    row: &[f32],
    mask: Option<&TokenMask>,
    random: f64,
    candidates: &mut Vec<Candidate>,
) -> Option<TokenId> {
    let greatest = greatest_ranked(row, mask)?.logit;
    let least_of_k = (shape.top_k > 0 && shape.top_k < row.len())
        .then(|| most_probable(row, mask, shape.top_k).pop())
        .flatten();
    // Without top-p no sum over the tokens that min-p drops is needed: save their exponentials.
    let least_logit = if shape.top_p >= 1.0 && shape.min_p > 0.0 {
        greatest + shape.temperature * shape.min_p.ln()
    } else {
        f32::NEG_INFINITY
    };
    candidates.clear();
    for_each_allowed(row, mask, |ranked| {
        if ranked.logit >= least_logit && least_of_k.is_none_or(|least| ranked >= least) {
            // A logit of +infinity has no distance to itself that is a number.
            let distance = if ranked.logit >= greatest {
                0.0
            } else {
                ranked.logit - greatest
            };
            let weight = f64::from((distance / shape.temperature).exp());
            candidates.push(Candidate { ranked, weight });
        }
    });
    if shape.top_p < 1.0 {
        keep_mass(candidates, f64::from(shape.top_p));
        candidates.retain(|one| one.weight >= f64::from(shape.min_p));
    }
    pick(candidates, random)
}

/// Keeps the smallest set of most probable tokens that has `share` of the whole weight, at least
/// one token.
fn keep_mass(candidates: &mut Vec<Candidate>, share: f64) {
    let whole: f64 = candidates.iter().map(|one| one.weight).sum();
    // So light that all such tokens together weigh less than what may be dropped: none of them can
    // be the border. It leaves the few that matter.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a vocabulary is smaller than 2⁵³"
    )]
    let light = (1.0 - share) * whole / candidates.len() as f64;
    let heavy = candidates
        .iter()
        .filter(|one| one.weight >= light)
        .copied()
        .collect();
    if let Some(border) = mass_border(heavy, share * whole) {
        candidates.retain(|one| one.ranked >= border);
    }
}

/// The token at which the running sum in order of rank first reaches `wanted`.
fn mass_border(mut ranked: Vec<Candidate>, mut wanted: f64) -> Option<Ranked> {
    let mut rest = ranked.as_mut_slice();
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, |one, other| other.ranked.cmp(&one.ranked));
        let (upper, lower) = rest.split_at_mut(middle);
        let mass: f64 = upper.iter().map(|one| one.weight).sum();
        if mass >= wanted {
            rest = upper;
        } else {
            wanted -= mass;
            rest = lower;
        }
    }
    rest.first().map(|one| one.ranked)
}

/// Inverse of the cumulative distribution, over ids.
fn pick(candidates: &[Candidate], random: f64) -> Option<TokenId> {
    let whole: f64 = candidates.iter().map(|one| one.weight).sum();
    let mut left = random * whole;
    for one in candidates {
        if left < one.weight {
            return Some(one.ranked.token);
        }
        left -= one.weight;
    }
    // Rounding: the last one that can be drawn at all.
    candidates
        .iter()
        .rev()
        .find(|one| one.weight > 0.0)
        .map(|one| one.ranked.token)
}
