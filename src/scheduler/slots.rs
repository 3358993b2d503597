//! What each slot's KV cache holds, and which slot serves a new prompt with the least work.
//! Bookkeeping only: the caller makes the device follow.

use super::{CacheOp, RequestId};
use crate::backend::{SlotId, TokenId};

/// Below this many tokens a copy between slots is not worth its overhead.
const MIN_COPY: usize = 32;

/// A request in a slot.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) request: RequestId,
    /// Tokens of the prompt; the rest of the slot's tokens are the answer's.
    pub(super) prompt: usize,
    /// Admission order.
    pub(super) order: u64,
}

/// A prompt that wants a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) prompt: &'a [TokenId],
    /// Reuse only what was computed as part of a prompt.
    pub(super) reproducible: bool,
}

/// One slot: `tokens[..cached]` are in the KV cache, the rest waits to be run.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) tokens: Vec<TokenId>,
    pub(super) cached: usize,
    /// How many of the first tokens were all computed in chunks of prompts. Those that were
    /// generated were computed alone, which rounds differently.
    pub(super) exact: usize,
    pub(super) work: Option<Work>,
    /// When the slot was last freed, in admissions; the smallest is evicted first.
    pub(super) freed: u64,
    /// What is in the KV cache must be dropped before the next request.
    pub(super) distrusted: bool,
}

impl Slot {
    /// Tokens that wait to be run.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// Whether the whole prompt was run before, so that what is pending was sampled.
    pub(super) fn is_decoding(&self) -> bool {
        self.work
            .as_ref()
            .is_some_and(|work| self.cached >= work.prompt)
    }

    /// Takes the request out; what is in the KV cache stays for those who come later.
    pub(super) fn release(&mut self, now: u64) {
        self.tokens.truncate(self.cached);
        self.work = None;
        self.freed = now;
    }

    /// Takes in a prompt of which the first `reused` tokens are there.
    pub(super) fn serve(&mut self, work: Work, prompt: Vec<TokenId>, reused: usize, exact: usize) {
        self.tokens = prompt;
        self.cached = reused;
        self.exact = exact.min(reused);
        self.work = Some(work);
    }

    /// `count` tokens were computed.
    pub(super) fn ran(&mut self, count: usize) {
        let whole_chunk = !self.is_decoding() && count >= super::MIN_CHUNK;
        if self.exact == self.cached && whole_chunk {
            self.exact += count;
        }
        self.cached = (self.cached + count).min(self.tokens.len());
    }

    /// How many leading tokens of a prompt need not be computed. The last two always are: there
    /// must be logits to sample from, and a token alone would be rounded differently.
    fn common_prefix(&self, wish: Wish<'_>) -> usize {
        let usable = if wish.reproducible {
            self.exact
        } else {
            self.cached
        };
        let usable = usable.min(wish.prompt.len().saturating_sub(super::MIN_CHUNK));
        let held = self.tokens.iter().take(usable);
        held.zip(wish.prompt).take_while(|(a, b)| a == b).count()
    }
}

/// Where a prompt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) slot: usize,
    /// Copy the prefix from this slot; `None`: the slot's own content is kept.
    pub(super) copy_from: Option<usize>,
    /// Tokens that need not be run.
    pub(super) reused: usize,
}

impl Placement {
    /// What the device must do before the prompt's rest can be run.
    pub(super) fn cache_op(self, slots: &[Slot]) -> Option<CacheOp> {
        let len = as_u32(self.reused);
        match self.copy_from {
            Some(from) => Some(CacheOp::CopyPrefix {
                from: slot_id(from),
                to: slot_id(self.slot),
                len,
            }),
            None if slots
                .get(self.slot)
                .is_some_and(|slot| slot.cached > self.reused) =>
            {
                Some(CacheOp::Truncate {
                    slot: slot_id(self.slot),
                    len,
                })
            }
            None => None,
        }
    }
}

/// Chooses the free slot for a prompt; `None` when every slot is busy.
///
/// The free slot that shares most of the prompt is taken as it is if that keeps most of what it
/// holds: a conversation goes on where it was. Otherwise the slot unused for longest is taken, and
/// the longest common prefix of all slots, busy ones too, is copied into it: a shared system
/// prompt does not cost another conversation its cache.
pub(super) fn place(slots: &[Slot], wish: Wish<'_>) -> Option<Placement> {
    let shared: Vec<usize> = slots.iter().map(|slot| slot.common_prefix(wish)).collect();
    let free = || {
        slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.work.is_none())
    };
    let oldest = free().min_by_key(|(_, slot)| slot.freed)?.0;
    let best_free = free().map(|(i, _)| i).max_by_key(|&i| shared[i])?;
    let best = (0..slots.len()).max_by_key(|&i| (shared[i], slots[i].work.is_none()))?;

    let stay = |slot| Placement {
        slot,
        copy_from: None,
        reused: shared[slot],
    };
    if shared[best_free] > 0 && shared[best_free] * 2 >= slots[best_free].cached {
        // Another slot may hold so much more of this prompt that a copy pays even here.
        if shared[best] < shared[best_free] + MIN_COPY {
            return Some(stay(best_free));
        }
        return Some(Placement {
            slot: best_free,
            copy_from: Some(best),
            reused: shared[best],
        });
    }
    if best == oldest || shared[best] < shared[oldest] + MIN_COPY {
        return Some(stay(oldest));
    }
    Some(Placement {
        slot: oldest,
        copy_from: Some(best),
        reused: shared[best],
    })
}

pub(super) fn slot_id(index: usize) -> SlotId {
    SlotId(as_u32(index))
}

/// Lengths are bounded by the context, which is a `u32`.
pub(super) fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
