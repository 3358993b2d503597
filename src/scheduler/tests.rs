//! The scheduler against a model of the device that checks every order it gets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Holds what a real device would hold, and refuses what one would refuse.
struct Device {
    limits: Limits,
    slots: Vec<Vec<TokenId>>,
}

impl Device {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: vec![Vec::new(); limits.slots as usize],
        }
    }

    fn cache(&mut self, op: CacheOp) {
        match op {
            CacheOp::Truncate { slot, len } => {
                let slot = &mut self.slots[slot.0 as usize];
                assert!(
                    len as usize <= slot.len(),
                    "truncates to more than there is"
                );
                slot.truncate(len as usize);
            }
            CacheOp::CopyPrefix { from, to, len } => {
                assert_ne!(from, to);
                let prefix = self.slots[from.0 as usize][..len as usize].to_vec();
                self.slots[to.0 as usize] = prefix;
            }
        }
    }

    fn run(&mut self, runs: &[Run]) {
        let tokens: usize = runs.iter().map(|run| run.tokens.len()).sum();
        assert!(
            tokens <= self.limits.max_batch_tokens as usize,
            "batch limit"
        );
        let mut seen = BTreeSet::new();
        for run in runs {
            assert!(seen.insert(run.slot), "two runs in one slot");
            assert!(!run.tokens.is_empty());
            let slot = &mut self.slots[run.slot.0 as usize];
            assert_eq!(
                slot.len(),
                run.start as usize,
                "a gap or an overlap in the sequence"
            );
            slot.extend(&run.tokens);
            assert!(
                slot.len() <= self.limits.context_tokens as usize,
                "context limit"
            );
        }
    }
}

/// A scheduler with its device, and what each request should have seen.
struct House {
    scheduler: Scheduler,
    device: Device,
    slots: BTreeMap<RequestId, SlotId>,
    admissions: Vec<(RequestId, u32)>,
}

/// What a request got in a step: logits after its last token.
type Rows = Vec<RequestId>;

impl House {
    fn new(slots: u32, context_tokens: u32, max_batch_tokens: u32) -> Self {
        Self::with(Limits {
            slots,
            context_tokens,
            max_batch_tokens,
            prompts_per_step: u32::MAX,
        })
    }

    fn with(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            device: Device::new(limits),
            slots: BTreeMap::new(),
            admissions: Vec::new(),
        }
    }

    fn submit(&mut self, id: u64, prompt: &[TokenId]) {
        self.scheduler
            .enqueue(RequestId(id), prompt.to_vec(), false)
            .unwrap();
    }

    fn step(&mut self, budget: u32) -> (Step, Rows) {
        let step = self.scheduler.step(budget);
        for op in &step.ops {
            self.device.cache(*op);
        }
        for admitted in &step.admitted {
            assert!(
                !self.slots.values().any(|slot| *slot == admitted.slot),
                "slot serves two"
            );
            self.slots.insert(admitted.request, admitted.slot);
            self.admissions.push((admitted.request, admitted.reused));
        }
        self.device.run(&step.runs);
        let mut rows = Vec::new();
        for (run, request) in step.runs.iter().zip(&step.requests) {
            assert_eq!(self.slots[request], run.slot, "a request changed its slot");
            self.scheduler.ran(run);
            if run.logits == LogitsWanted::Last {
                rows.push(*request);
            }
        }
        self.check();
        (step, rows)
    }

    fn check(&self) {
        for (i, held) in self.device.slots.iter().enumerate() {
            assert_eq!(
                self.scheduler.cached(slot_id(i)),
                held,
                "bookkeeping of slot {i}"
            );
        }
    }

    fn finish(&mut self, id: RequestId) -> bool {
        self.slots.remove(&id);
        self.scheduler.finish(id)
    }

    /// Runs a request alone to the end of an answer of `answer` tokens.
    fn serve(&mut self, id: u64, prompt: &[TokenId], answer: &[TokenId]) {
        self.submit(id, prompt);
        let mut left = answer.iter();
        loop {
            let (_, rows) = self.step(u32::MAX);
            if rows.is_empty() {
                continue;
            }
            match left.next() {
                Some(token) => assert!(self.scheduler.append(RequestId(id), *token)),
                None => break,
            }
        }
        assert!(self.finish(RequestId(id)));
    }
}

fn tokens(range: std::ops::Range<u32>) -> Vec<TokenId> {
    range.collect()
}

#[test]
fn a_long_prompt_is_cut_while_running_answers_get_their_token_in_every_step() {
    let mut house = House::new(2, 1_000, 64);
    house.submit(1, &[1, 2, 3]);
    let (_, rows) = house.step(64);
    assert_eq!(rows, [RequestId(1)]);
    house.scheduler.append(RequestId(1), 4);
    house.submit(2, &tokens(100..200));
    let mut steps = 0;
    loop {
        let (step, rows) = house.step(16);
        steps += 1;
        assert_eq!(step.decoding, 1);
        assert!(step.prefill_tokens <= 16);
        assert!(rows.contains(&RequestId(1)), "the running answer stalled");
        house.scheduler.append(RequestId(1), 5);
        if rows.contains(&RequestId(2)) {
            break;
        }
    }
    assert_eq!(steps, 7, "100 tokens in chunks of 16");
}

#[test]
fn only_the_last_chunk_of_a_prompt_asks_for_logits() {
    let mut house = House::new(1, 1_000, 10);
    house.submit(1, &tokens(0..25));
    let wanted: Vec<_> = (0..3)
        .map(|_| house.step(u32::MAX).0.runs[0].logits)
        .collect();
    assert_eq!(
        wanted,
        [LogitsWanted::None, LogitsWanted::None, LogitsWanted::Last]
    );
}

#[test]
fn a_conversation_goes_on_in_the_slot_that_holds_it() {
    let mut house = House::new(2, 1_000, 256);
    house.serve(1, &tokens(0..50), &[900, 901, 902]);
    let mut next = tokens(0..50);
    next.extend([900, 901, 902, 77, 78]);
    house.submit(2, &next);
    let (step, _) = house.step(u32::MAX);
    // All three answer tokens were run, the last one to learn that nothing follows.
    assert_eq!(
        step.admitted[0],
        Admitted {
            request: RequestId(2),
            slot: SlotId(0),
            reused: 53
        }
    );
    assert!(step.ops.is_empty());
    assert_eq!(step.prefill_tokens, 2);
}

#[test]
fn a_prompt_that_is_wholly_cached_still_runs_its_last_two_tokens() {
    let mut house = House::new(1, 1_000, 256);
    house.serve(1, &tokens(0..50), &[]);
    house.submit(2, &tokens(0..50));
    let (step, rows) = house.step(u32::MAX);
    assert_eq!(step.admitted[0].reused, 48);
    assert_eq!(step.runs[0].tokens, [48, 49]);
    assert_eq!(rows, [RequestId(2)]);
}

#[test]
fn a_shared_system_prompt_is_copied_from_a_busy_slot() {
    let mut house = House::new(2, 1_000, 256);
    let mut first = tokens(0..100);
    first.push(500);
    house.submit(1, &first);
    house.step(u32::MAX);
    let mut second = tokens(0..100);
    second.push(600);
    house.submit(2, &second);
    let (step, _) = house.step(u32::MAX);
    assert_eq!(
        step.ops,
        [CacheOp::CopyPrefix {
            from: SlotId(0),
            to: SlotId(1),
            len: 99
        }]
    );
    assert_eq!(
        step.runs
            .iter()
            .find(|run| run.slot == SlotId(1))
            .unwrap()
            .tokens,
        [99, 600]
    );
}

#[test]
fn another_conversation_with_the_same_system_prompt_does_not_evict_the_first() {
    let mut house = House::new(2, 1_000, 512);
    let mut first = tokens(0..40);
    first.extend(500..700);
    house.serve(1, &first, &[]);
    let mut second = tokens(0..40);
    second.push(800);
    house.serve(2, &second, &[]);
    house.submit(3, &first);
    let (step, _) = house.step(u32::MAX);
    assert_eq!(step.admitted[0].slot, SlotId(0));
    assert_eq!(step.admitted[0].reused, 238);
}

#[test]
fn a_reproducible_request_reuses_prompts_but_nothing_that_was_generated() {
    let mut house = House::new(1, 1_000, 256);
    house.serve(1, &tokens(0..50), &[900, 901, 902]);
    let mut next = tokens(0..50);
    next.extend([900, 901, 902, 77, 78]);
    house
        .scheduler
        .enqueue(RequestId(2), next.clone(), true)
        .unwrap();
    let (step, _) = house.step(u32::MAX);
    assert_eq!(step.admitted[0].reused, 50);
    // It computed the former answer as a prompt: now that can be reused, too.
    house.finish(RequestId(2));
    next.extend([79, 80]);
    house.scheduler.enqueue(RequestId(3), next, true).unwrap();
    assert_eq!(house.step(u32::MAX).0.admitted[0].reused, 55);
}

#[test]
fn a_prompt_is_never_cut_into_single_tokens() {
    for pending in 1..40 {
        for room in 0..40 {
            let part = chunk(pending, room);
            assert!(part <= room.min(pending));
            assert!(
                part == 0 || part == pending || part != 1 && pending - part != 1,
                "{part} of {pending}"
            );
            assert!(part > 0 || room < 3, "no progress with room for {room}");
        }
    }
}

#[test]
fn the_slot_unused_for_longest_is_evicted() {
    let mut house = House::new(3, 1_000, 512);
    for id in 0..3 {
        let begin = 100 * u32::try_from(id).unwrap();
        house.serve(id, &tokens(begin..begin + 50), &[]);
    }
    // Touches the first conversation, so that the second is the oldest.
    house.serve(3, &tokens(0..50), &[]);
    house.submit(4, &tokens(700..720));
    assert_eq!(house.step(u32::MAX).0.admitted[0].slot, SlotId(1));
}

#[test]
fn requests_start_in_the_order_they_came() {
    let mut house = House::new(2, 100, 64);
    for id in 0..10 {
        house.submit(id, &[1, 2, 3]);
    }
    let mut order = Vec::new();
    while !house.scheduler.is_idle() {
        let (step, rows) = house.step(u32::MAX);
        order.extend(step.admitted.iter().map(|admitted| admitted.request.0));
        for request in rows {
            house.finish(request);
        }
    }
    assert_eq!(order, (0..10).collect::<Vec<_>>());
}

#[test]
fn where_a_step_takes_few_prompts_only_a_short_one_gets_past_the_oldest() {
    let mut house = House::with(Limits {
        slots: 4,
        context_tokens: 1_000,
        max_batch_tokens: 64,
        prompts_per_step: 2,
    });
    for (id, first) in (0..3).zip([0, 300, 600]) {
        house.submit(id, &tokens(first..first + 200));
    }
    let (step, _) = house.step(u32::MAX);
    assert_eq!(step.runs.len(), 1);
    assert_eq!((step.requests[0], step.prefill_tokens), (RequestId(0), 64));
    house.submit(3, &tokens(900..920));
    let (step, rows) = house.step(u32::MAX);
    let taken: Vec<_> = step.runs.iter().map(|run| run.tokens.len()).collect();
    assert_eq!(step.requests, [RequestId(0), RequestId(3)]);
    assert_eq!(taken, [44, 20]);
    assert_eq!(rows, [RequestId(3)]);
}

#[test]
fn a_short_prompt_gets_past_a_long_one_that_still_has_half_of_the_batch() {
    let mut house = House::new(2, 10_000, 64);
    house.submit(1, &tokens(0..5_000));
    house.step(u32::MAX);
    house.submit(2, &tokens(6_000..6_020));
    let (step, rows) = house.step(u32::MAX);
    assert_eq!(rows, [RequestId(2)]);
    assert_eq!(step.runs[0].tokens.len(), 44, "the long one gets the rest");
    house.finish(RequestId(2));
    house.submit(3, &tokens(7_000..9_000));
    let (step, _) = house.step(u32::MAX);
    assert_eq!(step.runs[0].tokens.len(), 32);
    assert_eq!(step.runs[1].tokens.len(), 32);
}

#[test]
fn a_cancelled_request_frees_its_slot_before_the_next_step_and_leaves_its_prefix() {
    let mut house = House::new(1, 1_000, 32);
    house.submit(1, &tokens(0..100));
    house.step(u32::MAX);
    house.submit(2, &tokens(0..64));
    assert!(house.finish(RequestId(1)));
    let (step, _) = house.step(u32::MAX);
    assert_eq!(step.admitted[0].request, RequestId(2));
    assert_eq!(
        step.admitted[0].reused, 32,
        "what the cancelled request had run"
    );
}

#[test]
fn what_a_failed_request_left_behind_serves_nobody() {
    let mut house = House::new(1, 1_000, 256);
    house.submit(1, &tokens(0..100));
    house.step(u32::MAX);
    house.slots.clear();
    assert!(house.scheduler.forget(RequestId(1)));
    house.submit(2, &tokens(0..100));
    let (step, _) = house.step(u32::MAX);
    assert_eq!(
        step.ops,
        [CacheOp::Truncate {
            slot: SlotId(0),
            len: 0
        }]
    );
    assert_eq!(step.admitted[0].reused, 0);
}

#[test]
fn a_request_cancelled_in_the_queue_never_starts() {
    let mut house = House::new(1, 1_000, 32);
    house.submit(1, &[1]);
    house.submit(2, &[2]);
    house.submit(3, &[3]);
    house.step(u32::MAX);
    assert!(house.finish(RequestId(2)));
    assert!(!house.finish(RequestId(2)));
    house.finish(RequestId(1));
    assert_eq!(house.step(u32::MAX).0.admitted[0].request, RequestId(3));
}

#[test]
fn an_answer_stops_where_the_context_ends() {
    let mut house = House::new(1, 8, 32);
    house.submit(1, &tokens(0..5));
    let mut room = true;
    let mut answer = 0;
    while room {
        house.step(u32::MAX);
        room = house.scheduler.append(RequestId(1), 99);
        answer += 1;
    }
    assert_eq!(answer, 3);
}

#[test]
fn a_prompt_that_fills_the_context_is_refused_with_the_numbers() {
    let mut scheduler = Scheduler::new(Limits {
        slots: 1,
        context_tokens: 8,
        max_batch_tokens: 8,
        prompts_per_step: 1,
    });
    let error = scheduler
        .enqueue(RequestId(1), tokens(0..8), false)
        .unwrap_err();
    assert_eq!(
        error,
        PromptError::TooLong {
            tokens: 8,
            context: 8
        }
    );
    assert_eq!(
        scheduler.enqueue(RequestId(1), vec![], false).unwrap_err(),
        PromptError::Empty
    );
    assert!(scheduler.is_idle());
}

#[test]
fn a_run_that_the_device_refused_is_offered_again_unchanged() {
    let limits = Limits {
        slots: 2,
        context_tokens: 100,
        max_batch_tokens: 32,
        prompts_per_step: 2,
    };
    let mut scheduler = Scheduler::new(limits);
    scheduler
        .enqueue(RequestId(1), vec![1, 2, 3], false)
        .unwrap();
    let first = scheduler.step(32);
    let second = scheduler.step(32);
    assert_eq!(first.runs, second.runs);
    assert!(second.admitted.is_empty() && second.ops.is_empty());
}

/// What may happen to the house between two steps.
#[derive(Clone, Debug)]
enum Event {
    Submit { family: u8, len: u16 },
    Cancel(u8),
    Step { budget: u32 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0u8..4, 1u16..60).prop_map(|(family, len)| Event::Submit { family, len }),
        1 => any::<u8>().prop_map(Event::Cancel),
        6 => (0u32..40).prop_map(|budget| Event::Step { budget }),
    ];
    proptest::collection::vec(event, 1..120)
}

/// Prompts of one family share a prefix, so that reuse, copies and evictions all happen.
fn prompt(family: u8, len: u16, id: u64) -> Vec<TokenId> {
    let own = u32::try_from(id).unwrap_or(0) + 10_000;
    let family = u32::from(family) * 1_000;
    (0..u32::from(len))
        .map(|i| if i < 40 { family + i } else { own })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// `House` checks in every step: one request per slot, no gap in a sequence, batch and context
    /// limits, and that the bookkeeping equals what the device holds. Here: every request that is
    /// not cancelled gets its whole answer, and its KV cache holds exactly its tokens.
    #[test]
    fn any_history_keeps_slots_apart_and_serves_everyone(
        events in events(), slots in 1u32..5, batch in 16u32..64, answer in 1usize..6,
        prompts_per_step in 1u32..5,
    ) {
        let mut house = House::with(Limits {
            slots,
            context_tokens: 80,
            max_batch_tokens: batch,
            prompts_per_step,
        });
        let mut sequences: BTreeMap<RequestId, (Vec<TokenId>, usize)> = BTreeMap::new();
        let mut served = BTreeSet::new();
        let mut submitted = BTreeSet::new();
        let mut cancelled = BTreeSet::new();

        let advance = |house: &mut House,
                           sequences: &mut BTreeMap<RequestId, (Vec<TokenId>, usize)>,
                           served: &mut BTreeSet<RequestId>,
                           budget: u32| {
            let waiting = house.scheduler.waiting();
            let (step, rows) = house.step(budget);
            // Nobody waits while a slot is free, and nobody in a slot is passed over when there
            // is room for the batch's prompts.
            assert!(house.scheduler.waiting() == 0 || house.scheduler.busy() == slots);
            if waiting > 0 || !sequences.is_empty() {
                assert!(!step.runs.is_empty(), "requests are there and nothing ran");
            }
            for (run, request) in step.runs.iter().zip(&step.requests) {
                let (sequence, generated) = &sequences[request];
                let left = sequence.len() - run.start as usize - run.tokens.len();
                let alone = run.tokens.len() == 1 || left == 1;
                assert!(*generated > 0 || sequence.len() == 1 || !alone, "a token cut off alone");
            }
            for request in rows {
                let (sequence, generated) = sequences.get_mut(&request).unwrap();
                let slot = house.slots[&request];
                assert_eq!(house.scheduler.cached(slot), &sequence[..], "foreign tokens");
                if *generated == answer {
                    sequences.remove(&request);
                    served.insert(request);
                    assert!(house.finish(request));
                } else {
                    *generated += 1;
                    sequence.push(7);
                    house.scheduler.append(request, 7);
                }
            }
        };

        for (id, event) in (0u64..).zip(events) {
            match event {
                Event::Submit { family, len } => {
                    let prompt = prompt(family, len, id);
                    house.submit(id, &prompt);
                    sequences.insert(RequestId(id), (prompt, 0));
                    submitted.insert(RequestId(id));
                }
                Event::Cancel(pick) => {
                    let keys: Vec<_> = sequences.keys().copied().collect();
                    if let Some(id) = keys.get(usize::from(pick) % keys.len().max(1)) {
                        sequences.remove(id);
                        cancelled.insert(*id);
                        prop_assert!(house.finish(*id));
                        house.check();
                    }
                }
                Event::Step { budget } => {
                    advance(&mut house, &mut sequences, &mut served, budget);
                }
            }
        }
        // Bounded: the worst is one token per step for all prompts and answers.
        let bound = submitted.len() * (60 + answer + 1) + 1;
        for _ in 0..bound {
            if house.scheduler.is_idle() {
                break;
            }
            advance(&mut house, &mut sequences, &mut served, 1);
        }
        prop_assert!(house.scheduler.is_idle(), "someone starves");
        served.extend(&cancelled);
        prop_assert_eq!(served, submitted);
        let order: Vec<_> = house.admissions.iter().map(|(id, _)| *id).collect();
        prop_assert!(order.is_sorted(), "admitted out of order: {:?}", order);
    }
}
