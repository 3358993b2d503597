//! Judges samples: does it generate, does it reach the objectives. Values in, a verdict out.
//!
//! Measured-bad is a failure; could-not-measure is not.

use std::time::Duration;

use crate::api::{Objectives, Reason};
use crate::planner::{Failure, Measured, Verdict};

use super::{ProbeError, Sample};

/// Longest text of a model that is quoted in a message.
const QUOTE: usize = 60;

/// Circumstances that make a slow answer no fault of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The machine holds back its speed for heat or power.
    pub throttled: bool,
    /// The engine worked for others at the same time.
    pub shared: bool,
}

/// Whether an answer to the smoke question shows a model that generates: text that is not blank, not
/// one piece repeated, and not made of replacement characters.
pub fn smoke(result: &Result<Sample, ProbeError>) -> Verdict {
    let sample = match result {
        Ok(sample) => sample,
        Err(error) => return failed(error),
    };
    let text = sample.text.trim();
    let problem = if sample.tokens == 0 || text.is_empty() {
        "it generates nothing".to_owned()
    } else if is_one_piece_repeated(text) {
        format!("it repeats one piece: {}", quote(text))
    } else if is_mostly_broken(text) {
        format!("what it generates is no text: {}", quote(text))
    } else {
        return Verdict::Good;
    };
    bad(
        Reason::GenerationFailed,
        &format!("The model loads, but {problem}."),
    )
}

/// A probe without a sample: busy says nothing, everything else is bad.
pub fn failed(error: &ProbeError) -> Verdict {
    match error {
        ProbeError::Busy => Verdict::Inconclusive(
            "The engine is busy with other requests and could not be measured.".to_owned(),
        ),
        ProbeError::TimedOut(_) => bad(
            Reason::GenerationTimedOut,
            &format!("The engine is up, but gives {error}."),
        ),
        ProbeError::Unreachable | ProbeError::Refused { .. } | ProbeError::Broken(_) => bad(
            Reason::GenerationFailed,
            &format!("The engine does not generate: {error}."),
        ),
    }
}

/// Medians of the samples; the accuracy is added by whoever measured it.
pub fn measured(samples: &[Sample]) -> Measured {
    let seconds = |pick: fn(&Sample) -> Duration| {
        median(
            samples
                .iter()
                .map(|sample| pick(sample).as_secs_f64())
                .collect(),
        )
    };
    Measured {
        first_token_seconds: seconds(|sample| sample.first_token),
        completion_seconds: seconds(|sample| sample.completion),
        tokens_per_second: median(
            samples
                .iter()
                .filter_map(Sample::tokens_per_second)
                .collect(),
        ),
        tool_call_accuracy: None,
    }
}

/// Whether what was measured reaches what was asked for.
pub fn objectives(
    measured: &Measured,
    wanted: &Objectives,
    circumstances: Circumstances,
) -> Verdict {
    let missing = unmeasured(measured, wanted);
    if !missing.is_empty() {
        return Verdict::Inconclusive(format!(
            "{} could not be measured: the answers were too short or the suite did not run.",
            missing.join(", ")
        ));
    }
    let slow = slow(measured, wanted);
    let wrong = inaccurate(measured, wanted);
    if let Some(wrong) = wrong {
        return bad(Reason::ObjectiveMissed, &wrong);
    }
    if slow.is_empty() {
        return Verdict::Good;
    }
    let text = slow.join(", ");
    if circumstances.throttled {
        return Verdict::Inconclusive(format!(
            "{text}, while the machine holds back its speed for heat or power. Cool it, or choose \
             another power mode."
        ));
    }
    if circumstances.shared {
        return Verdict::Inconclusive(format!(
            "{text}, while the engine worked for others at the same time."
        ));
    }
    bad(
        Reason::ObjectiveMissed,
        &format!("Measured too slow: {text}."),
    )
}

fn unmeasured(measured: &Measured, wanted: &Objectives) -> Vec<&'static str> {
    let pairs = [
        (
            "objectives.firstToken",
            wanted.first_token.is_some() && measured.first_token_seconds.is_none(),
        ),
        (
            "objectives.completion",
            wanted.completion.is_some() && measured.completion_seconds.is_none(),
        ),
        (
            "objectives.tokensPerSecond",
            wanted.tokens_per_second.is_some() && measured.tokens_per_second.is_none(),
        ),
        (
            "objectives.toolCallAccuracy",
            wanted.tool_call_accuracy.is_some() && measured.tool_call_accuracy.is_none(),
        ),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect()
}

/// The objectives of time that are missed. The numbers measured are in the status, not here: a
/// message must not differ from one try to the next.
fn slow(measured: &Measured, wanted: &Objectives) -> Vec<String> {
    let mut missed = Vec::new();
    let mut at_most = |name: &str, limit: Option<Duration>, value: Option<f64>| {
        if let (Some(limit), Some(value)) = (limit, value)
            && value > limit.as_secs_f64()
        {
            missed.push(format!("{name} is longer than {} s", limit.as_secs_f64()));
        }
    };
    at_most(
        "firstToken",
        wanted.first_token,
        measured.first_token_seconds,
    );
    at_most("completion", wanted.completion, measured.completion_seconds);
    if let (Some(limit), Some(value)) = (wanted.tokens_per_second, measured.tokens_per_second)
        && value < limit
    {
        missed.push(format!("tokensPerSecond is below {limit}"));
    }
    missed
}

fn inaccurate(measured: &Measured, wanted: &Objectives) -> Option<String> {
    let (limit, value) = (wanted.tool_call_accuracy?, measured.tool_call_accuracy?);
    (value < limit).then(|| format!("Measured too inaccurate: toolCallAccuracy is below {limit}."))
}

/// A failure that counts against the revision, with the reason's remedy as its end.
fn bad(reason: Reason, message: &str) -> Verdict {
    let message = match reason.remedy() {
        Some(remedy) => format!("{message} {remedy}"),
        None => message.to_owned(),
    };
    Verdict::Bad(Failure {
        reason,
        message,
        exit_code: None,
        transient: false,
    })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// At least eight characters that are one piece of at most four, over and over.
fn is_one_piece_repeated(text: &str) -> bool {
    let characters: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    characters.len() >= 8
        && (1..=4).any(|length| {
            characters
                .iter()
                .zip(characters.iter().skip(length))
                .all(|(a, b)| a == b)
        })
}

/// More than half of it cannot be displayed.
fn is_mostly_broken(text: &str) -> bool {
    let broken = text
        .chars()
        .filter(|c| *c == char::REPLACEMENT_CHARACTER || c.is_control() && !c.is_whitespace())
        .count();
    broken * 2 > text.chars().count()
}

fn quote(text: &str) -> String {
    let start: String = text.chars().take(QUOTE).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str, tokens: u32) -> Sample {
        Sample {
            text: text.to_owned(),
            first_token: Duration::from_millis(500),
            completion: Duration::from_millis(2_500),
            tokens,
            finish_reason: Some("stop".to_owned()),
        }
    }

    fn reason(verdict: &Verdict) -> Option<Reason> {
        match verdict {
            Verdict::Bad(failure) => Some(failure.reason),
            _ => None,
        }
    }

    #[test]
    fn a_short_answer_in_words_is_good() {
        for text in [
            "Paris",
            "The capital of France is Paris.",
            "ja",
            "aha",
            "東京です",
        ] {
            assert_eq!(smoke(&Ok(sample(text, 3))), Verdict::Good, "{text}");
        }
    }

    #[test]
    fn nothing_blanks_repetition_and_garbage_are_bad() {
        for (text, tokens) in [
            ("", 0),
            (" \n ", 5),
            ("!!!!!!!!!!!!", 12),
            ("the the the the the", 5),
            ("\u{fffd}\u{fffd}\u{fffd}a", 4),
        ] {
            let verdict = smoke(&Ok(sample(text, tokens)));
            assert_eq!(reason(&verdict), Some(Reason::GenerationFailed), "{text:?}");
        }
    }

    #[test]
    fn busy_is_inconclusive_and_every_other_failure_is_bad() {
        assert!(matches!(
            failed(&ProbeError::Busy),
            Verdict::Inconclusive(_)
        ));
        let slow = failed(&ProbeError::TimedOut(Duration::from_secs(9)));
        assert_eq!(reason(&slow), Some(Reason::GenerationTimedOut));
        let dead = failed(&ProbeError::Unreachable);
        assert_eq!(reason(&dead), Some(Reason::GenerationFailed));
    }

    #[test]
    fn objectives_are_compared_with_medians() {
        let mut fast = sample("x", 21);
        fast.first_token = Duration::from_millis(1);
        let all = [sample("x", 21), fast, sample("x", 21)];
        let found = measured(&all);
        assert_eq!(found.first_token_seconds, Some(0.5));
        assert_eq!(found.tokens_per_second, Some(10.0));
        let wanted = |first: u64, speed: f64| Objectives {
            first_token: Some(Duration::from_millis(first)),
            tokens_per_second: Some(speed),
            ..Objectives::default()
        };
        let calm = Circumstances::default();
        assert_eq!(objectives(&found, &wanted(500, 10.0), calm), Verdict::Good);
        for missed in [wanted(499, 10.0), wanted(500, 10.1)] {
            let verdict = objectives(&found, &missed, calm);
            assert_eq!(reason(&verdict), Some(Reason::ObjectiveMissed));
        }
    }

    #[test]
    fn slow_because_hot_or_shared_is_no_failure_but_wrong_tool_calls_are() {
        let found = Measured {
            tool_call_accuracy: Some(0.5),
            ..measured(&[sample("x", 21)])
        };
        let slow = Objectives {
            completion: Some(Duration::from_secs(1)),
            ..Objectives::default()
        };
        for circumstances in [
            Circumstances {
                throttled: true,
                shared: false,
            },
            Circumstances {
                throttled: false,
                shared: true,
            },
        ] {
            let verdict = objectives(&found, &slow, circumstances);
            assert!(matches!(verdict, Verdict::Inconclusive(_)), "{verdict:?}");
            let wrong = Objectives {
                tool_call_accuracy: Some(0.9),
                ..slow
            };
            let verdict = objectives(&found, &wrong, circumstances);
            assert_eq!(reason(&verdict), Some(Reason::ObjectiveMissed));
        }
    }

    #[test]
    fn what_was_not_measured_is_inconclusive() {
        let wanted = Objectives {
            tool_call_accuracy: Some(0.9),
            ..Objectives::default()
        };
        let verdict = objectives(&measured(&[]), &wanted, Circumstances::default());
        assert!(matches!(verdict, Verdict::Inconclusive(_)), "{verdict:?}");
    }

    #[test]
    fn a_failure_ends_with_what_to_do_and_names_no_measured_number() {
        let verdict = objectives(
            &measured(&[sample("x", 21)]),
            &Objectives {
                tokens_per_second: Some(500.0),
                ..Objectives::default()
            },
            Circumstances::default(),
        );
        let Verdict::Bad(failure) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(failure.message.ends_with('.') && failure.message.contains("500"));
        assert!(!failure.message.contains("10.0"), "{}", failure.message);
    }
}
