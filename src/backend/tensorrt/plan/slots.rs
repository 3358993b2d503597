//! How many tokens each slot holds, and which calls break the contract of
//! [`crate::backend::Backend`]. A refusal changes nothing.

use super::geometry::Geometry;
use crate::backend::{Run, SlotId, TokenId};

/// Which rule a call broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing to do, or more than a step takes.
    #[error("a batch of {tokens} tokens; 1 to {limit} are possible")]
    Batch {
        /// Tokens of all runs.
        tokens: usize,
        /// Most that are possible.
        limit: u32,
    },
    /// There is no such slot.
    #[error("there is no slot {0}")]
    Slot(u32),
    /// A run does not go on where its slot ends, or is empty.
    #[error("{tokens} tokens at {start} of slot {slot}, which holds {length}")]
    Start {
        /// Tokens of the run.
        tokens: usize,
        /// Where it wants to start.
        start: u32,
        /// The slot.
        slot: u32,
        /// What the slot holds.
        length: u32,
    },
    /// The slot has too little room.
    #[error("{tokens} tokens for slot {slot}, which has room for {room}")]
    Room {
        /// Tokens of the run.
        tokens: usize,
        /// The slot.
        slot: u32,
        /// Tokens that fit.
        room: u32,
    },
    /// Two runs for one slot.
    #[error("two runs for slot {0}")]
    Twice(u32),
    /// A token that the embedding has no row for.
    #[error("token {0} is not in the vocabulary")]
    Token(TokenId),
    /// A prefix that is not there, or of the slot itself.
    #[error("cannot copy {tokens} tokens from slot {from}, which holds {length}, to slot {to}")]
    Prefix {
        /// The slot read.
        from: u32,
        /// The slot written.
        to: u32,
        /// Tokens asked for.
        tokens: u32,
        /// Tokens there.
        length: u32,
    },
}

/// Tokens in each slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    lengths: Vec<u32>,
    context: u32,
    vocabulary: u32,
    limit: u32,
}

impl Slots {
    /// Empty slots.
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            lengths: vec![0; geometry.slots as usize],
            context: geometry.context_tokens(),
            vocabulary: geometry.vocabulary,
            limit: geometry.longest_chunk().max(geometry.slots),
        }
    }

    /// Tokens of all runs together that one call takes.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Tokens in each slot.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    fn length(&self, slot: SlotId) -> Result<u32, Refusal> {
        let length = self.lengths.get(slot.0 as usize).copied();
        length.ok_or(Refusal::Slot(slot.0))
    }

    /// Checks one call of `forward`.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn check(&self, runs: &[Run]) -> Result<(), Refusal> {
        let tokens: usize = runs.iter().map(|run| run.tokens.len()).sum();
        let limit = self.limit;
        if tokens == 0 || tokens > limit as usize {
            return Err(Refusal::Batch { tokens, limit });
        }
        for (i, run) in runs.iter().enumerate() {
            let (length, slot) = (self.length(run.slot)?, run.slot.0);
            let tokens = run.tokens.len();
            if run.start != length || run.tokens.is_empty() {
                let start = run.start;
                return Err(Refusal::Start {
                    tokens,
                    start,
                    slot,
                    length,
                });
            }
            let room = self.context.saturating_sub(length);
            if tokens > room as usize {
                return Err(Refusal::Room { tokens, slot, room });
            }
            if runs[..i].iter().any(|other| other.slot == run.slot) {
                return Err(Refusal::Twice(slot));
            }
            if let Some(&token) = run.tokens.iter().find(|id| **id >= self.vocabulary) {
                return Err(Refusal::Token(token));
            }
        }
        Ok(())
    }

    /// `tokens` more are in `slot`.
    pub fn extend(&mut self, slot: SlotId, tokens: u32) {
        if let Some(length) = self.lengths.get_mut(slot.0 as usize) {
            *length += tokens;
        }
    }

    /// Forgets the tokens of `slot` from `len` on. Nothing moves on the device: what is behind the
    /// length is never attended to, and is overwritten.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn truncate(&mut self, slot: SlotId, len: u32) -> Result<(), Refusal> {
        let kept = self.length(slot)?.min(len);
        self.lengths[slot.0 as usize] = kept;
        Ok(())
    }

    /// Checks a copy of a prefix and books it.
    ///
    /// # Errors
    /// When a slot is missing, or `from` holds less, or both are the same.
    pub fn copy_prefix(&mut self, from: SlotId, to: SlotId, tokens: u32) -> Result<(), Refusal> {
        self.length(to)?;
        let length = self.length(from)?;
        if from == to || length < tokens {
            let (from, to) = (from.0, to.0);
            return Err(Refusal::Prefix {
                from,
                to,
                tokens,
                length,
            });
        }
        self.lengths[to.0 as usize] = tokens;
        Ok(())
    }
}
