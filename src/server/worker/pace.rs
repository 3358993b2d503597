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
    /// Seconds per prompt token, on top of the decode step it rides on.
    token: Option<f64>,
}

impl Pace {
    pub(super) const fn new(policy: PrefillPolicy, longest: Duration) -> Self {
        Self {
            policy,
            longest,
            decode: None,
            token: None,
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
                spare.map_or(FIRST_CHUNK, |spare| self.tokens_in(spare, FIRST_CHUNK))
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
        // A handful of tokens measures the step's fixed costs, not the tokens'.
        if prefill_tokens >= FIRST_CHUNK / 2 {
            let per_token = (seconds - decode).max(seconds * 0.1) / f64::from(prefill_tokens);
            smooth(&mut self.token, per_token);
        }
    }

    fn tokens_in(&self, seconds: f64, unknown: u32) -> u32 {
        let Some(token) = self.token else {
            return unknown;
        };
        let tokens = (seconds / token).clamp(1.0, f64::from(u32::MAX));
        // In range by the clamp.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let tokens = tokens as u32;
        // Few tokens at a time cost almost as much as many: stay above a floor.
        tokens.max(FIRST_CHUNK / 2)
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
