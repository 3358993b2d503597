//! Penalties for tokens that were already used.

use std::collections::{HashMap, VecDeque};

use super::SamplingParams;
use crate::backend::TokenId;

/// Which tokens were used how often, as far as a penalty needs to know.
#[derive(Clone, Debug)]
pub(super) struct Penalties {
    repetition: Option<Repetition>,
    presence: f32,
    frequency: f32,
    /// Tokens of the answer with their counts; empty while presence and frequency are off.
    answer: HashMap<TokenId, f32>,
}

#[derive(Clone, Debug)]
struct Repetition {
    penalty: f32,
    /// Tokens of prompt and answer with their counts inside the window.
    seen: HashMap<TokenId, u32>,
    window: Option<Window>,
}

/// The last tokens, oldest first.
#[derive(Clone, Debug)]
struct Window {
    size: usize,
    tokens: VecDeque<TokenId>,
}

impl Penalties {
    pub(super) fn new(params: &SamplingParams, prompt: &[TokenId]) -> Self {
        let off = |value: f32, neutral: f32| (value - neutral).abs() < f32::EPSILON;
        let repetition = (!off(params.repetition_penalty, 1.0)).then(|| {
            let window = params.repetition_window.map(|size| Window {
                size: size as usize,
                tokens: VecDeque::new(),
            });
            let mut repetition = Repetition {
                penalty: params.repetition_penalty,
                seen: HashMap::new(),
                window,
            };
            let visible = params
                .repetition_window
                .map_or(usize::MAX, |size| size as usize);
            for token in &prompt[prompt.len().saturating_sub(visible)..] {
                repetition.accept(*token);
            }
            repetition
        });
        Self {
            repetition,
            presence: params.presence_penalty,
            frequency: params.frequency_penalty,
            answer: HashMap::new(),
        }
    }

    /// Whether nothing has to be applied.
    pub(super) fn is_empty(&self) -> bool {
        self.repetition
            .as_ref()
            .is_none_or(|repetition| repetition.seen.is_empty())
            && self.answer.is_empty()
    }

    pub(super) fn accept(&mut self, token: TokenId) {
        if let Some(repetition) = &mut self.repetition {
            repetition.accept(token);
        }
        if self.presence != 0.0 || self.frequency != 0.0 {
            *self.answer.entry(token).or_insert(0.0) += 1.0;
        }
    }

    pub(super) fn apply(&self, row: &mut [f32]) {
        if let Some(repetition) = &self.repetition {
            for token in repetition.seen.keys() {
                if let Some(logit) = row.get_mut(*token as usize) {
                    if *logit > 0.0 {
                        *logit /= repetition.penalty;
                    } else {
                        *logit *= repetition.penalty;
                    }
                }
            }
        }
        for (token, count) in &self.answer {
            if let Some(logit) = row.get_mut(*token as usize) {
                *logit -= self.frequency * count + self.presence;
            }
        }
    }
}

impl Repetition {
    fn accept(&mut self, token: TokenId) {
        *self.seen.entry(token).or_insert(0) += 1;
        let Some(window) = &mut self.window else {
            return;
        };
        window.tokens.push_back(token);
        if window.tokens.len() <= window.size {
            return;
        }
        if let Some(oldest) = window.tokens.pop_front()
            && let Some(count) = self.seen.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.seen.remove(&oldest);
            }
        }
    }
}
