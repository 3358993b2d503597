//! The proof of a fresh engine: one smoke generation, then the objectives.

use std::time::Duration;

use crate::api::Objectives;
use crate::planner::{Measured, Verdict};

use super::chat::{Prober, Question};
use super::judge::{self, Circumstances};
use super::{throttle, tools};

/// Any model that can chat says something to this.
const SMOKE: &str = "What is the capital of France? Answer in one short sentence.";
/// Long enough an answer to measure a speed on.
const SPEED: [&str; 3] = [
    "Write a short paragraph about the sea.",
    "Write a short paragraph about mountains.",
    "Write a short paragraph about a market.",
];
/// Tokens of a measured answer.
const SPEED_TOKENS: u32 = 48;

/// What a proof found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether it generates.
    pub smoke: Verdict,
    /// Whether it reaches the objectives.
    pub objectives: Verdict,
    /// The numbers.
    pub measured: Option<Measured>,
}

/// Proves a server. Every request is bounded by `limit`.
pub async fn prove(prober: &Prober, wanted: &Objectives, limit: Duration) -> Outcome {
    let question = Question {
        prompt: SMOKE,
        max_tokens: 24,
        limit,
    };
    let first = prober.ask(question).await;
    let smoke = judge::smoke(&first);
    if smoke != Verdict::Good {
        let skipped = "The objectives were not measured: the smoke generation comes first.";
        return Outcome {
            smoke,
            objectives: Verdict::Inconclusive(skipped.to_owned()),
            measured: None,
        };
    }
    let before = prober.generated_tokens().await;
    let mut samples = Vec::new();
    for prompt in SPEED {
        let question = Question {
            prompt,
            max_tokens: SPEED_TOKENS,
            limit,
        };
        match prober.ask(question).await {
            Ok(sample) => samples.push(sample),
            Err(error) => {
                return Outcome {
                    smoke,
                    objectives: judge::failed(&error),
                    measured: None,
                };
            }
        }
    }
    let own: u32 = samples.iter().map(|sample| sample.tokens).sum();
    let shared = worked_for_others(before, prober.generated_tokens().await, own);
    let mut measured = judge::measured(&samples);
    if wanted.tool_call_accuracy.is_some() {
        measured.tool_call_accuracy = tools::accuracy(prober, limit).await;
    }
    let circumstances = Circumstances {
        throttled: throttle::is_throttled(),
        shared,
    };
    Outcome {
        smoke,
        objectives: judge::objectives(&measured, wanted, circumstances),
        measured: Some(measured),
    }
}

/// Whether the server generated for others while `own` tokens were generated for us.
pub(super) fn worked_for_others(before: Option<f64>, after: Option<f64>, own: u32) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => after - before > f64::from(own) + 0.5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_noticed_by_tokens_that_are_not_ours() {
        assert!(!worked_for_others(Some(10.0), Some(20.0), 10));
        assert!(worked_for_others(Some(10.0), Some(21.0), 10));
        assert!(!worked_for_others(None, Some(21.0), 10));
    }
}
