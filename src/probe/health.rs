//! The periodic probe of a serving engine: liveness by one short real generation.

use std::time::Duration;

use crate::api::Objectives;
use crate::planner::{Health, Timestamp, Verdict};

use super::chat::{ProbeError, Prober, Question, Sample};
use super::judge::{self, Circumstances};
use super::proof::worked_for_others;
use super::throttle;

/// Tokens of a probe's answer: enough for a speed, few enough not to be in anybody's way.
const TOKENS: u32 = 8;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It generates, fast enough or with an excuse.
    Good,
    /// It generates, but outside the objectives.
    Slow,
    /// It does not generate.
    Dead(ProbeErrorOrNothing),
    /// Users keep it busy: nothing can be said.
    Busy,
}

/// Why it was found dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeErrorOrNothing {
    /// The request failed.
    Error(ProbeError),
    /// The answer was blank.
    Nothing,
}

/// Asks once.
pub async fn probe(prober: &Prober, wanted: &Objectives, limit: Duration) -> (Finding, bool) {
    let before = prober.generated_tokens().await;
    let question = Question {
        prompt: "Say hello.",
        max_tokens: TOKENS,
        limit,
    };
    let result = prober.ask(question).await;
    let after = prober.generated_tokens().await;
    let own = result.as_ref().map_or(0, |sample| sample.tokens);
    let circumstances = Circumstances {
        throttled: throttle::is_throttled(),
        shared: worked_for_others(before, after, own),
    };
    let finding = judge(&result, wanted, circumstances);
    (finding, circumstances.throttled)
}

/// A probe that timed out while the engine generated for others was waiting in its queue.
fn judge(
    result: &Result<Sample, ProbeError>,
    wanted: &Objectives,
    circumstances: Circumstances,
) -> Finding {
    match result {
        Err(ProbeError::Busy) => Finding::Busy,
        Err(ProbeError::TimedOut(_)) if circumstances.shared => Finding::Busy,
        Err(error) => Finding::Dead(ProbeErrorOrNothing::Error(error.clone())),
        Ok(sample) if sample.tokens == 0 => Finding::Dead(ProbeErrorOrNothing::Nothing),
        Ok(sample) => {
            // The objective for a whole answer is about longer ones than this.
            let comparable = Objectives {
                completion: None,
                tool_call_accuracy: None,
                ..*wanted
            };
            let measured = judge::measured(std::slice::from_ref(sample));
            match judge::objectives(&measured, &comparable, circumstances) {
                Verdict::Bad(_) => Finding::Slow,
                Verdict::Good | Verdict::Inconclusive(_) => Finding::Good,
            }
        }
    }
}

/// The health after one more finding.
pub fn after(health: Health, finding: &Finding, throttled: bool, now: Timestamp) -> Health {
    let mut next = Health {
        throttled,
        ..health
    };
    match finding {
        Finding::Good => {
            next.consecutive_failures = 0;
            next.consecutive_slow = 0;
            next.last_success = Some(now);
        }
        Finding::Slow => {
            next.consecutive_failures = 0;
            next.consecutive_slow = health.consecutive_slow.saturating_add(1);
        }
        Finding::Dead(_) => {
            next.consecutive_failures = health.consecutive_failures.saturating_add(1);
        }
        Finding::Busy => {}
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tokens: u32, seconds: u64) -> Sample {
        Sample {
            text: "Hello".to_owned(),
            first_token: Duration::from_millis(100),
            completion: Duration::from_secs(seconds),
            tokens,
            finish_reason: Some("stop".to_owned()),
        }
    }

    #[test]
    fn a_timeout_is_death_unless_the_engine_works_for_others() {
        let wanted = Objectives::default();
        let late = Err(ProbeError::TimedOut(Duration::from_secs(1)));
        let shared = Circumstances {
            shared: true,
            ..Circumstances::default()
        };
        assert_eq!(judge(&late, &wanted, shared), Finding::Busy);
        assert!(matches!(
            judge(&late, &wanted, Circumstances::default()),
            Finding::Dead(_)
        ));
    }

    #[test]
    fn slow_counts_only_without_an_excuse() {
        let wanted = Objectives {
            tokens_per_second: Some(100.0),
            completion: Some(Duration::from_millis(1)),
            ..Objectives::default()
        };
        let calm = Circumstances::default();
        assert_eq!(judge(&Ok(sample(8, 9)), &wanted, calm), Finding::Slow);
        let hot = Circumstances {
            throttled: true,
            ..calm
        };
        assert_eq!(judge(&Ok(sample(8, 9)), &wanted, hot), Finding::Good);
        // The objective for whole answers is not about a probe's few tokens.
        let only_completion = Objectives {
            tokens_per_second: None,
            ..wanted
        };
        assert_eq!(
            judge(&Ok(sample(8, 9)), &only_completion, calm),
            Finding::Good
        );
    }

    #[test]
    fn one_good_probe_clears_what_was_counted_and_busy_changes_nothing() {
        let dead = Finding::Dead(ProbeErrorOrNothing::Nothing);
        let health = after(Health::default(), &dead, false, Timestamp(1));
        let health = after(health, &Finding::Slow, false, Timestamp(2));
        let health = after(health, &dead, false, Timestamp(3));
        let busy = after(health, &Finding::Busy, false, Timestamp(4));
        assert_eq!((busy.consecutive_failures, busy.consecutive_slow), (1, 1));
        let good = after(busy, &Finding::Good, true, Timestamp(5));
        assert_eq!(
            good,
            Health {
                throttled: true,
                last_success: Some(Timestamp(5)),
                ..Health::default()
            }
        );
    }
}
