//! From a row of logits to one token, without sorting the vocabulary.
//!
//! Every filter finds a border and then keeps the tokens above it in the order of their ids: what is
//! drawn depends on no detail of a sorting algorithm. The greatest logit of each block is found first;
//! most blocks hold nothing that a filter keeps, and are not looked at again.

use super::weights::{self, PART};
use crate::backend::TokenId;

/// Logits that are kept or passed over together.
const BLOCK: usize = 64;

/// A token ranked by its logit; of equals the lower id is the greater. One number, so that
/// comparing is one instruction: the logit's bits in ascending order above the inverted id. The two
/// zeros are equal, as logits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked(u64);

impl Ranked {
    fn new(logit: f32, token: TokenId) -> Self {
        let bits = (logit + 0.0).to_bits();
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

impl Candidate {
    fn new(ranked: Ranked, greatest: f32, temperature: f32) -> Self {
        let weight = weights::weight(ranked.logit(), greatest, temperature);
        Self { ranked, weight }
    }
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
    let mut best = (f32::NEG_INFINITY, 0, [].as_slice());
    for (first, block) in (0..).step_by(BLOCK).zip(row.chunks(BLOCK)) {
        let greatest = weights::greatest(block);
        if greatest > best.0 {
            best = (greatest, first, block);
        }
    }
    let (greatest, first, block) = best;
    let mut tokens = (first..).zip(block);
    tokens
        .find(|(_, logit)| **logit == greatest)
        .map(|(token, _)| token)
}

/// The `count` most probable tokens, best first.
pub(super) fn most_probable(row: &[f32], count: usize) -> Vec<Ranked> {
    let mut maxima = Vec::new();
    greatest_of_blocks(row, &mut maxima);
    let mut kept = upper(row, &maxima, count);
    kept.sort_unstable_by(|one, other| other.cmp(one));
    kept
}

/// Writes the greatest logit of each block into `into`.
fn greatest_of_blocks(row: &[f32], into: &mut Vec<f32>) {
    into.clear();
    into.extend(row.chunks(BLOCK).map(weights::greatest));
}

/// Tokens with a logit of at least `border` and above minus infinity, by id.
fn above(row: &[f32], maxima: &[f32], border: f32) -> Vec<Ranked> {
    let mut found = Vec::new();
    let blocks = (0..).step_by(BLOCK).zip(row.chunks(BLOCK)).zip(maxima);
    for ((first, block), greatest) in blocks {
        if *greatest >= border {
            let tokens = (first..).zip(block);
            let kept = tokens.filter(|(_, logit)| **logit >= border && **logit > f32::NEG_INFINITY);
            found.extend(kept.map(|(token, logit)| Ranked::new(*logit, token)));
        }
    }
    found
}

/// The `count` most probable tokens, in any order. That many blocks reach the border, so that many
/// tokens do.
fn upper(row: &[f32], maxima: &[f32], count: usize) -> Vec<Ranked> {
    if count == 0 {
        return Vec::new();
    }
    let border = if count < maxima.len() {
        let mut ranked = maxima.to_vec();
        *ranked
            .select_nth_unstable_by(count - 1, |one, other| other.total_cmp(one))
            .1
    } else {
        f32::NEG_INFINITY
    };
    let mut kept = above(row, maxima, border);
    if count < kept.len() {
        kept.select_nth_unstable_by(count - 1, |one, other| other.cmp(one));
        kept.truncate(count);
    }
    kept
}

/// Draws a token with `random` in `0.0..1.0`; `None`: no token is allowed. Tokens at minus
/// infinity and NaN are not allowed. `scratch` is only there to be reused.
pub(super) fn draw(
    shape: &Shape,
    row: &[f32],
    random: f64,
    scratch: &mut Vec<f32>,
) -> Option<TokenId> {
    greatest_of_blocks(row, scratch);
    let greatest = weights::greatest(scratch);
    if greatest == f32::NEG_INFINITY {
        return None;
    }
    let maxima = scratch.as_slice();
    let weigh = |ranked| Candidate::new(ranked, greatest, shape.temperature);
    let mut candidates: Vec<Candidate> = if shape.top_k > 0 && shape.top_k < row.len() {
        let best = upper(row, maxima, shape.top_k);
        let mut best: Vec<Candidate> = best.into_iter().map(weigh).collect();
        best.sort_unstable_by_key(|one| one.ranked.token());
        let whole = best.iter().map(|one| f64::from(one.weight)).sum();
        keep_mass(&mut best, shape.top_p, whole);
        best
    } else if shape.top_p < 1.0 {
        nucleus(shape, row, maxima, greatest)
    } else if shape.min_p > 0.0 {
        let border = border(greatest, shape.temperature, shape.min_p);
        let above = above(row, maxima, border);
        above.into_iter().map(weigh).collect()
    } else {
        return pick_dense(row, greatest, shape.temperature, random, scratch);
    };
    candidates.retain(|one| one.weight >= shape.min_p);
    pick(&candidates, random)
}

/// The smallest set of most probable tokens that has `top_p` of the whole weight. In most rows few
/// tokens have it, so that a high border is tried first and lowered only where it left out too much.
fn nucleus(shape: &Shape, row: &[f32], maxima: &[f32], greatest: f32) -> Vec<Candidate> {
    const FIRST: f32 = 0.01;
    const LOWER: f32 = 0.02;
    let masses = weights::masses(row, greatest, shape.temperature);
    let whole: f64 = masses.iter().sum();
    let light = light(shape.top_p, whole, row.len());
    let mut least = FIRST.max(light);
    loop {
        let border = border(greatest, shape.temperature, least);
        let mut heavy: Vec<Candidate> = above(row, maxima, border)
            .into_iter()
            .map(|ranked| Candidate::new(ranked, greatest, shape.temperature))
            .filter(|one| one.weight >= least && one.weight > 0.0)
            .collect();
        let mass: f64 = heavy.iter().map(|one| f64::from(one.weight)).sum();
        if mass >= f64::from(shape.top_p) * whole || least <= light {
            keep_mass(&mut heavy, shape.top_p, whole);
            return heavy;
        }
        least = (least * LOWER).max(light);
    }
}

/// The weight below which tokens are so light that all of them together, whatever their number, weigh
/// less than what `share` of the whole weight leaves out.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a border between what matters and what does not"
)]
fn light(share: f32, whole: f64, tokens: usize) -> f32 {
    ((1.0 - f64::from(share)) * whole / tokens as f64) as f32
}

/// A logit below those of all tokens that weigh at least `weight`, and not by much.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the slack is a thousand times the rounding"
)]
fn border(greatest: f32, temperature: f32, weight: f32) -> f32 {
    let slack = f64::from(temperature) * 1e-3 + f64::from(greatest.abs()) * 1e-6;
    let below = f64::from(temperature) * f64::from(weight).ln();
    let border = f64::from(greatest) + below - slack;
    if border.is_nan() {
        greatest
    } else {
        border as f32
    }
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

/// As [`pick`], over all tokens: first the part of the vocabulary, then the token.
fn pick_dense(
    row: &[f32],
    greatest: f32,
    temperature: f32,
    random: f64,
    scratch: &mut Vec<f32>,
) -> Option<TokenId> {
    let masses = weights::masses(row, greatest, temperature);
    let mut left = random * masses.iter().sum::<f64>();
    let mut chosen = None;
    for ((first, part), mass) in (0..).step_by(PART).zip(row.chunks(PART)).zip(masses) {
        if mass <= 0.0 {
            continue;
        }
        chosen = Some((first, part, left));
        if left < mass {
            break;
        }
        left -= mass;
    }
    let (first, part, mut left) = chosen?;
    weights::weigh(part, greatest, temperature, scratch);
    // Rounding: the last one that can be drawn at all.
    let mut last = None;
    for (token, weight) in (first..).zip(scratch.iter().copied()) {
        if weight <= 0.0 {
            continue;
        }
        last = Some(token);
        if left < f64::from(weight) {
            break;
        }
        left -= f64::from(weight);
    }
    last
}
