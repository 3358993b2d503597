//! How many prompt tokens the next step may take, learned from what steps have cost. Pure: the
//! durations are given.

use std::time::Duration;

use super::PrefillPolicy;

/// Taken while nothing is known yet: short on any device.
const FIRST_CHUNK: u32 = 16;
/// Weight of the newest measurement: follows a change of load within some five steps.
const WEIGHT: f64 = 0.2;

/// The policy and what was measured.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    policy: PrefillPolicy,
    longest: Duration,
    /// Seconds of a step that only decodes.
    decode: Option<f64>,
    /// What prompt tokens cost, on top of the decode step they ride on.
    prompts: Costs,
}

impl Pace {
    pub(super) fn new(policy: PrefillPolicy, longest: Duration) -> Self {
        Self {
            policy,
            longest,
            decode: None,
            prompts: Costs::default(),
        }
    }

    /// Prompt tokens for the next step; `decoding`: answers are waiting for their next token.
    pub(super) fn budget(&self, decoding: bool) -> u32 {
        match self.policy {
            PrefillPolicy::Whole => u32::MAX,
            PrefillPolicy::Fixed(tokens) if decoding => tokens.max(1),
            PrefillPolicy::Adaptive { stall_factor } if decoding => {
                let spare = self
                    .decode
                    .map(|decode| decode * f64::from(stall_factor - 1.0));
                // Not far beyond what was ever tried: a stall cannot be taken back.
                let tried = self.prompts.largest.saturating_mul(2).max(FIRST_CHUNK);
                spare.map_or(FIRST_CHUNK, |spare| {
                    self.tokens_in(spare, FIRST_CHUNK).min(tried)
                })
            }
            // Nobody is stalled, but new and cancelled requests wait for the step to end.
            PrefillPolicy::Fixed(_) | PrefillPolicy::Adaptive { .. } => {
                self.tokens_in(self.longest.as_secs_f64(), u32::MAX)
            }
        }
    }

    /// A step is over.
    pub(super) fn learn(&mut self, took: Duration, prefill_tokens: u32, decoding: u32) {
        let seconds = took.as_secs_f64();
        if prefill_tokens == 0 {
            smooth(&mut self.decode, seconds);
            return;
        }
        let decode = if decoding > 0 {
            self.decode.unwrap_or(0.0)
        } else {
            0.0
        };
        // A handful of tokens measures noise.
        if prefill_tokens >= FIRST_CHUNK / 2 {
            let cost = (seconds - decode).max(seconds * 0.1);
            self.prompts.add(prefill_tokens, cost);
        }
    }

    fn tokens_in(&self, seconds: f64, unknown: u32) -> u32 {
        // Few tokens at a time cost almost as much as many: stay above a floor.
        let tokens = self.prompts.tokens_in(seconds);
        tokens.map_or(unknown, |tokens| tokens.max(FIRST_CHUNK / 2))
    }
}

/// What a number of prompt tokens costs: a part that every step with prompts pays, and a part for each
/// token, by least squares over the last steps. A device that computes sixteen tokens as slowly as two
/// hundred would seem to need ever shorter chunks if its cost were divided by their number.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    /// Sums over the steps, each weighing less than the one after it.
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
    /// Most tokens of a step.
    largest: u32,
}

impl Costs {
    fn add(&mut self, tokens: u32, seconds: f64) {
        self.largest = self.largest.max(tokens);
        let tokens = f64::from(tokens);
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.tokens, tokens),
            (&mut self.seconds, seconds),
            (&mut self.tokens_squared, tokens * tokens),
            (&mut self.tokens_seconds, tokens * seconds),
        ] {
            *sum = *sum * (1.0 - WEIGHT) + new;
        }
    }

    /// Seconds of a step, and of each token.
    fn line(&self) -> (f64, f64) {
        let through_zero = (0.0, self.seconds / self.tokens);
        let spread = self.weight * self.tokens_squared - self.tokens * self.tokens;
        // Numbers of tokens too alike to tell the two parts apart.
        if spread < 0.01 * self.tokens * self.tokens {
            return through_zero;
        }
        let slope = (self.weight * self.tokens_seconds - self.tokens * self.seconds) / spread;
        let slope = slope.max(0.02 * through_zero.1);
        let fixed = (self.seconds - slope * self.tokens) / self.weight;
        if fixed > 0.0 {
            (fixed, slope)
        } else {
            through_zero
        }
    }

    /// Tokens that `seconds` allow; `None`: nothing was measured.
    fn tokens_in(&self, seconds: f64) -> Option<u32> {
        if self.largest == 0 {
            return None;
        }
        let (fixed, slope) = self.line();
        let tokens = ((seconds - fixed) / slope).clamp(1.0, f64::from(u32::MAX));
        // In range by the clamp.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let tokens = tokens as u32;
        Some(tokens)
    }
}

fn smooth(value: &mut Option<f64>, new: f64) {
    *value = Some(value.map_or(new, |old| old + WEIGHT * (new - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: PrefillPolicy = PrefillPolicy::Adaptive { stall_factor: 6.0 };
    const LONGEST: Duration = Duration::from_millis(200);

    /// A device with 10 ms per decode step and 1 ms per prompt token.
    fn measured(policy: PrefillPolicy) -> Pace {
        let mut pace = Pace::new(policy, LONGEST);
        for _ in 0..50 {
            pace.learn(Duration::from_millis(10), 0, 1);
            let tokens = pace.budget(true).min(64);
            pace.learn(Duration::from_millis(10 + u64::from(tokens)), tokens, 1);
        }
        pace
    }

    #[test]
    fn a_step_with_running_answers_stays_within_the_stall_factor() {
        let budget = measured(ADAPTIVE).budget(true);
        assert!(
            (45..=50).contains(&budget),
            "{budget} tokens of 1 ms in 5 × 10 ms"
        );
    }

    #[test]
    fn a_step_without_running_answers_stays_within_the_longest_step() {
        let budget = measured(ADAPTIVE).budget(false);
        assert!((190..=200).contains(&budget), "{budget}");
    }

    #[test]
    fn a_device_whose_chunks_cost_the_same_however_short_gets_long_ones() {
        // 2 ms for a decode step; 3 ms for every step with prompts and 0.01 ms for each of their tokens.
        let mut pace = Pace::new(ADAPTIVE, LONGEST);
        let mut budgets = Vec::new();
        for step in 0..40 {
            pace.learn(Duration::from_millis(2), 0, 1);
            let short = if step < 10 { 12 } else { u32::MAX };
            let tokens = pace.budget(true).min(512).min(short);
            budgets.push(tokens);
            pace.learn(
                Duration::from_micros(5_000 + 10 * u64::from(tokens)),
                tokens,
                1,
            );
        }
        assert_eq!(budgets[20..], [512; 20], "{budgets:?}");
        // And not more than the stall factor allows: 10 ms, of which 3 are the step's.
        let most = pace.budget(true);
        assert!((512..=700).contains(&most), "{most}");
    }

    #[test]
    fn a_chunk_is_at_most_twice_what_was_tried_while_answers_run() {
        let mut pace = Pace::new(ADAPTIVE, LONGEST);
        pace.learn(Duration::from_millis(10), 0, 1);
        pace.learn(Duration::from_millis(11), 16, 1);
        assert_eq!(pace.budget(true), 32);
    }

    #[test]
    fn before_anything_is_measured_chunks_are_small_while_answers_run_and_whole_otherwise() {
        let pace = Pace::new(ADAPTIVE, LONGEST);
        assert_eq!(pace.budget(true), FIRST_CHUNK);
        assert_eq!(pace.budget(false), u32::MAX);
    }

    #[test]
    fn a_slow_device_still_gets_chunks_worth_running() {
        let mut pace = Pace::new(ADAPTIVE, LONGEST);
        pace.learn(Duration::from_millis(10), 0, 1);
        pace.learn(Duration::from_secs(16), 16, 1);
        assert_eq!(pace.budget(true), FIRST_CHUNK / 2);
    }

    #[test]
    fn a_policy_is_read_from_a_word_or_a_number() {
        assert_eq!("adaptive".parse(), Ok(PrefillPolicy::default()));
        assert_eq!("whole".parse(), Ok(PrefillPolicy::Whole));
        assert_eq!("32".parse(), Ok(PrefillPolicy::Fixed(32)));
        for wrong in ["", "0", "-1", "all"] {
            assert!(wrong.parse::<PrefillPolicy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_comparison_policies_do_what_they_say() {
        assert_eq!(measured(PrefillPolicy::Fixed(7)).budget(true), 7);
        assert_eq!(measured(PrefillPolicy::Whole).budget(true), u32::MAX);
    }
}
