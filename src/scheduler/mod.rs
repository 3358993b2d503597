//! Which tokens of which request run in the next step. Pure: no thread, no clock, no device.
//!
//! The owner of the device calls, over and over:
//!
//! 1. [`Scheduler::step`]: frees nothing by itself; admits waiting requests into free slots in the
//!    order they came, and says which cache operations and which runs come next;
//! 2. the device, first the operations, then the runs;
//! 3. [`Scheduler::ran`] for each run that succeeded, then [`Scheduler::append`] with the token
//!    sampled from its logits, or [`Scheduler::finish`].
//!
//! The scheduler's idea of what each slot's KV cache holds is exact as long as the device does
//! what it is told; a run that the device refused is simply not reported as run.

pub mod admission;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use slots::{Slot, Wish, Work, as_u32, place, slot_id};

use crate::backend::{LogitsWanted, Run, SlotId, TokenId};

/// Fewest tokens of a prompt that are computed together. Devices compute a single token by another
/// path, with other rounding; a prompt that is never cut into single tokens gives the same logits
/// however it is cut, and so the same text under any load.
pub const MIN_CHUNK: usize = 2;
/// Room in every step that answers leave for prompts: the oldest prompt gets half of it, and half
/// of it can always be cut so that nothing shorter than [`MIN_CHUNK`] is run or left.
const PREFILL_ROOM: u32 = 8;

/// Names a request for as long as it is in the house; given by the caller, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The device's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent sequences, at least one.
    pub slots: u32,
    /// Tokens that fit into a slot.
    pub context_tokens: u32,
    /// Tokens of one step, at least nine.
    pub max_batch_tokens: u32,
    /// Prompts of one step, at least one.
    pub prompts_per_step: u32,
}

/// Why a request can never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// There is nothing to go on from.
    #[error("the prompt has no tokens")]
    Empty,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens, which leaves no room for an answer in a context of {context}"
    )]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that fit into a slot.
        context: u32,
    },
}

/// What the KV cache must go through before the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOp {
    /// Forget the tokens of `slot` from `len` on.
    Truncate {
        /// The slot.
        slot: SlotId,
        /// Tokens kept.
        len: u32,
    },
    /// Make `to` hold the first `len` tokens of `from` and nothing else.
    CopyPrefix {
        /// The slot read.
        from: SlotId,
        /// The slot replaced.
        to: SlotId,
        /// Tokens copied.
        len: u32,
    },
}

/// A request that got its slot in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The request.
    pub request: RequestId,
    /// Its slot.
    pub slot: SlotId,
    /// Tokens of its prompt that need not be run.
    pub reused: u32,
}

/// What the device does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Requests that left the queue.
    pub admitted: Vec<Admitted>,
    /// Cache operations, in this order, before the runs.
    pub ops: Vec<CacheOp>,
    /// One batch.
    pub runs: Vec<Run>,
    /// The request of each run.
    pub requests: Vec<RequestId>,
    /// Tokens of prompts among the runs.
    pub prefill_tokens: u32,
    /// Runs that go on with an answer.
    pub decoding: u32,
}

/// A request that waits for a slot.
#[derive(Clone, Debug)]
struct Waiting {
    request: RequestId,
    prompt: Vec<TokenId>,
    reproducible: bool,
}

/// Slots, queue and order.
#[derive(Clone, Debug)]
pub struct Scheduler {
    limits: Limits,
    slots: Vec<Slot>,
    queue: VecDeque<Waiting>,
    /// Counts admissions and releases: the only clock here.
    ticks: u64,
}

impl Scheduler {
    /// Empty slots, empty queue. Slots that could fill a batch with answers are left unused.
    pub fn new(limits: Limits) -> Self {
        let slots = limits
            .slots
            .min(limits.max_batch_tokens.saturating_sub(PREFILL_ROOM))
            .max(1);
        let slots = (0..slots).map(|_| Slot::default()).collect();
        Self {
            limits,
            slots,
            queue: VecDeque::new(),
            ticks: 0,
        }
    }

    /// Puts a request at the end of the queue, whose length the caller bounds
    /// ([`admission::Admission`]). A `reproducible` one gets the same logits as alone on an idle
    /// device: it does not reuse what was generated for others, only prompts.
    ///
    /// # Errors
    /// [`PromptError`] when it could never run.
    pub fn enqueue(
        &mut self,
        request: RequestId,
        prompt: Vec<TokenId>,
        reproducible: bool,
    ) -> Result<(), PromptError> {
        if prompt.is_empty() {
            return Err(PromptError::Empty);
        }
        if prompt.len() >= self.limits.context_tokens as usize {
            let context = self.limits.context_tokens;
            return Err(PromptError::TooLong {
                tokens: prompt.len(),
                context,
            });
        }
        self.queue.push_back(Waiting {
            request,
            prompt,
            reproducible,
        });
        Ok(())
    }

    /// Whether there is neither a request in a slot nor one in the queue.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.busy() == 0
    }

    /// Slots that serve a request.
    pub fn busy(&self) -> u32 {
        as_u32(self.slots.iter().filter(|slot| slot.work.is_some()).count())
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> u32 {
        as_u32(self.queue.len())
    }

    /// Whether an answer is being generated, which a long prefill would stall.
    pub fn is_decoding(&self) -> bool {
        self.slots.iter().any(Slot::is_decoding)
    }

    /// Admits what fits and composes the next batch, with at most `prefill_budget` tokens of
    /// prompts (at least eight are granted, so that prompts always get on).
    pub fn step(&mut self, prefill_budget: u32) -> Step {
        let mut step = Step::default();
        self.clear_distrusted(&mut step);
        self.admit(&mut step);
        self.add_decodes(&mut step);
        let room = self.limits.max_batch_tokens.saturating_sub(step.decoding);
        self.add_prefills(
            &mut step,
            room.min(prefill_budget.max(PREFILL_ROOM)) as usize,
        );
        step
    }

    /// The device has run these tokens.
    pub fn ran(&mut self, run: &Run) {
        if let Some(slot) = self.slots.get_mut(run.slot.0 as usize) {
            slot.ran(run.tokens.len());
        }
    }

    /// Goes on with an answer. Returns whether there is room for one more token after it.
    pub fn append(&mut self, request: RequestId, token: TokenId) -> bool {
        let context = self.limits.context_tokens as usize;
        self.slot_of(request).is_some_and(|slot| {
            slot.tokens.push(token);
            slot.tokens.len() < context
        })
    }

    /// Takes a request out, wherever it is. What its slot holds stays as a prefix for others.
    /// Returns whether it was there.
    pub fn finish(&mut self, request: RequestId) -> bool {
        self.ticks += 1;
        let now = self.ticks;
        if let Some(slot) = self.slot_of(request) {
            slot.release(now);
            return true;
        }
        let before = self.queue.len();
        self.queue.retain(|waiting| waiting.request != request);
        self.queue.len() < before
    }

    /// As [`Scheduler::finish`], for a request whose part of the KV cache must not serve others.
    pub fn forget(&mut self, request: RequestId) -> bool {
        if let Some(slot) = self.slot_of(request) {
            slot.distrusted = true;
        }
        self.finish(request)
    }

    /// Tokens in the KV cache of `slot`: what the device must hold.
    pub fn cached(&self, slot: SlotId) -> &[TokenId] {
        self.slots
            .get(slot.0 as usize)
            .map_or(&[], |slot| &slot.tokens[..slot.cached])
    }

    fn slot_of(&mut self, request: RequestId) -> Option<&mut Slot> {
        let serves = |slot: &&mut Slot| slot.work.as_ref().is_some_and(|w| w.request == request);
        self.slots.iter_mut().find(serves)
    }

    fn clear_distrusted(&mut self, step: &mut Step) {
        for (i, slot) in self
            .slots
            .iter_mut()
            .enumerate()
            .filter(|(_, slot)| slot.distrusted)
        {
            slot.distrusted = false;
            slot.tokens.clear();
            slot.cached = 0;
            slot.exact = 0;
            step.ops.push(CacheOp::Truncate {
                slot: slot_id(i),
                len: 0,
            });
        }
    }

    fn admit(&mut self, step: &mut Step) {
        while let Some(waiting) = self.queue.front() {
            let wish = Wish {
                prompt: &waiting.prompt,
                reproducible: waiting.reproducible,
            };
            let Some(placement) = place(&self.slots, wish) else {
                return;
            };
            let Some(waiting) = self.queue.pop_front() else {
                return;
            };
            step.ops.extend(placement.cache_op(&self.slots));
            self.ticks += 1;
            let work = Work {
                request: waiting.request,
                prompt: waiting.prompt.len(),
                order: self.ticks,
            };
            let exact = self.slots[placement.copy_from.unwrap_or(placement.slot)].exact;
            let slot = &mut self.slots[placement.slot];
            slot.serve(work, waiting.prompt, placement.reused, exact);
            step.admitted.push(Admitted {
                request: waiting.request,
                slot: slot_id(placement.slot),
                reused: as_u32(placement.reused),
            });
        }
    }

    /// Answers first: each sequence that has a sampled token gets it run. All fit, because there
    /// are no more slots than a batch has tokens.
    fn add_decodes(&self, step: &mut Step) {
        for (i, slot) in self.slots.iter().enumerate() {
            if slot.is_decoding() && slot.pending() > 0 {
                step.decoding += 1;
                self.add_run(step, i, slot.pending());
            }
        }
    }

    /// Then prompts. The oldest gets at least half of the room and cannot starve; the others share
    /// the rest evenly, so that a short prompt gets past a long one. Where a step takes few prompts,
    /// each costs the device a pass of its own: then only those get past that are finished by it.
    fn add_prefills(&self, step: &mut Step, mut room: usize) {
        let mut prompts: Vec<(u64, usize, usize)> = (0..self.slots.len())
            .filter(|&i| !self.slots[i].is_decoding() && self.slots[i].pending() > 0)
            .filter_map(|i| Some((self.slots[i].work.as_ref()?.order, i, 0)))
            .collect();
        prompts.sort_unstable();
        let most = self.limits.prompts_per_step.max(1) as usize;
        if prompts.len() > most {
            self.keep_short(&mut prompts, most, room / 2);
        }
        let share = room / 2 / prompts.len().saturating_sub(1).max(1);
        for (_, i, take) in prompts.iter_mut().skip(1) {
            *take = chunk(self.slots[*i].pending(), share);
            room -= *take;
        }
        for (_, i, take) in &mut prompts {
            let all = chunk(self.slots[*i].pending(), *take + room);
            room -= all - *take;
            *take = all;
        }
        for (_, i, take) in prompts.into_iter().filter(|(_, _, take)| *take > 0) {
            step.prefill_tokens += as_u32(take);
            self.add_run(step, i, take);
        }
    }

    /// Keeps the oldest of `prompts`, and beside it the shortest: at most `most` in all, each with at
    /// most its part of `room` left to run.
    fn keep_short(&self, prompts: &mut Vec<(u64, usize, usize)>, most: usize, room: usize) {
        let part = room / (most - 1).max(1);
        let mut others = prompts.split_off(1);
        others.retain(|(_, i, _)| self.slots[*i].pending() <= part);
        others.sort_by_key(|(order, i, _)| (self.slots[*i].pending(), *order));
        others.truncate(most - 1);
        prompts.append(&mut others);
    }

    fn add_run(&self, step: &mut Step, index: usize, take: usize) {
        let slot = &self.slots[index];
        let Some(work) = &slot.work else { return };
        let end = slot.cached + take;
        let whole = end == slot.tokens.len();
        step.requests.push(work.request);
        step.runs.push(Run {
            slot: slot_id(index),
            start: as_u32(slot.cached),
            tokens: slot.tokens[slot.cached..end].to_vec(),
            logits: if whole {
                LogitsWanted::Last
            } else {
                LogitsWanted::None
            },
        });
    }
}

/// How many of `pending` tokens of a prompt are run where there is room for `room`: all, or a part
/// such that neither it nor the rest is shorter than [`MIN_CHUNK`].
fn chunk(pending: usize, room: usize) -> usize {
    if pending <= room {
        return pending;
    }
    let part = room.min(pending.saturating_sub(MIN_CHUNK));
    if part < MIN_CHUNK { 0 } else { part }
}
