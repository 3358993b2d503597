//! The bookkeeping against a model of the device that does exactly what a pass says.

use proptest::prelude::*;

use super::geometry::buckets;
use super::memory::{ALIGNMENT, Inputs, Need};
use super::*;
use crate::backend::{LogitsWanted, Run, SlotId, TokenId};

fn geometry(form: Form, slots: u32, alone: bool) -> Geometry {
    let least = if alone { 1 } else { slots };
    let profile = |index, tokens| Profile {
        index,
        tokens,
        rows: least..=slots,
    };
    Geometry {
        form,
        slots,
        capacity: 1_024,
        buckets: buckets(1_024),
        profiles: vec![profile(0, 1..=1), profile(1, 2..=128)],
        layers: 2,
        kv_heads: 3,
        head_length: 16,
        vocabulary: 1_000,
    }
}

fn run(slot: u32, start: u32, tokens: &[TokenId], logits: LogitsWanted) -> Run {
    Run {
        slot: SlotId(slot),
        start,
        tokens: tokens.to_vec(),
        logits,
    }
}

/// A device without arithmetic: a slot is the list of tokens filed in it, garbage where padding
/// went, and the logits of a token are the tokens it attends to.
struct Model {
    geometry: Geometry,
    cache: Vec<Vec<Option<TokenId>>>,
}

impl Model {
    fn new(geometry: &Geometry) -> Self {
        let slot = vec![None; geometry.capacity as usize];
        Self {
            cache: vec![slot; geometry.slots as usize],
            geometry: geometry.clone(),
        }
    }

    /// What each row's gathered token attends to; panics where the device would go out of bounds.
    fn run(&mut self, pass: &Pass) -> Vec<Vec<Option<TokenId>>> {
        let width = pass.shape.tokens as usize;
        let rows = 0..pass.shape.rows as usize;
        let profile = self.geometry.profile(pass.shape.tokens, pass.shape.rows);
        assert_eq!(
            profile.map(|profile| profile.index),
            Some(pass.shape.profile)
        );
        let seen = rows.clone().map(|row| self.attended(pass, row)).collect();
        for row in rows {
            let slot = pass.shape.first as usize + row;
            let at = usize::try_from(pass.lengths[row]).unwrap();
            let written = match self.geometry.form {
                Form::Native => width,
                Form::Split => usize::try_from(pass.counts[row]).unwrap(),
            };
            for place in 0..written {
                let real = place < usize::try_from(pass.counts[row]).unwrap();
                let token = u32::try_from(pass.tokens[row * width + place]).unwrap();
                self.cache[slot][at + place] = real.then_some(token);
            }
        }
        seen
    }

    fn attended(&self, pass: &Pass, row: usize) -> Vec<Option<TokenId>> {
        let width = pass.shape.tokens as usize;
        let cells = row * width..(row + 1) * width;
        let gathered = usize::try_from(pass.gather[row]).unwrap();
        assert!(cells.contains(&gathered));
        let (length, own) = (pass.lengths[row], pass.positions[gathered]);
        assert!(pass.positions[cells.clone()].iter().all(|&position| {
            position >= 0 && position < i32::try_from(self.geometry.capacity).unwrap()
        }));
        let slot = &self.cache[pass.shape.first as usize + row];
        let bucket = pass.shape.bucket as usize;
        let past = (0..).zip(slot.iter().take(bucket));
        let past = past
            .filter(|(position, _)| *position < length)
            .map(|(_, token)| *token);
        let fresh = cells
            .filter(|&cell| pass.positions[cell] <= own)
            .filter(|&cell| {
                let place = usize::try_from(pass.positions[cell]).unwrap();
                // The native form reads the new tokens from the cache too.
                self.geometry.form == Form::Split || place < bucket
            })
            .map(|cell| Some(u32::try_from(pass.tokens[cell]).unwrap()));
        past.chain(fresh).collect()
    }
}

/// Runs a call on the model and checks every row that is handed out against the sequences.
fn forward(model: &mut Model, slots: &mut Slots, truth: &mut [Vec<TokenId>], runs: &[Run]) {
    slots.check(runs).unwrap();
    let mut handed = Vec::new();
    for pass in passes(&model.geometry.clone(), slots.lengths(), runs) {
        let seen = model.run(&pass);
        for wanted in &pass.wanted {
            let run = &runs[wanted.run];
            let mut expected = truth[run.slot.0 as usize].clone();
            expected.extend(&run.tokens[..=wanted.token]);
            let expected: Vec<_> = expected.into_iter().map(Some).collect();
            assert_eq!(seen[wanted.row as usize], expected);
            handed.push((wanted.run, wanted.token));
        }
    }
    let mut asked = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let count = run.tokens.len();
        asked.extend(
            (0..count)
                .filter(|&j| run.logits.wants(j, count))
                .map(|j| (i, j)),
        );
        slots.extend(run.slot, u32::try_from(count).unwrap());
        truth[run.slot.0 as usize].extend(&run.tokens);
    }
    handed.sort_unstable();
    assert_eq!(handed, asked);
}

#[test]
fn single_tokens_share_a_pass_and_chunks_have_their_own() {
    let geometry = geometry(Form::Native, 4, true);
    let runs = [
        run(1, 5, &[7], LogitsWanted::Last),
        run(3, 0, &[1, 2, 3], LogitsWanted::None),
        run(0, 9, &[8], LogitsWanted::Last),
    ];
    let passes = passes(&geometry, &[9, 5, 0, 0], &runs);
    assert_eq!(passes.len(), 2);
    let (first, rows) = (passes[0].shape.first, passes[0].shape.rows);
    assert_eq!((first, rows), (0, 2), "only the window of the two slots");
    assert_eq!(passes[0].tokens, [8, 7]);
    assert_eq!(passes[0].positions, [9, 5]);
    assert_eq!(passes[0].lengths, [9, 5]);
    assert_eq!((passes[1].shape.first, passes[1].shape.rows), (3, 1));
    assert_eq!(passes[1].shape.tokens, 16, "padded to a power of two");
    assert_eq!(passes[1].positions, (0..16).collect::<Vec<_>>());
    assert_eq!((passes[1].counts[0], passes[1].gather[0]), (3, 2));
    assert!(passes[1].wanted.is_empty());
}

#[test]
fn an_engine_of_one_batch_size_runs_all_slots_and_idle_ones_write_behind_their_end() {
    let geometry = geometry(Form::Native, 4, false);
    assert_eq!(geometry.scratch(), 128);
    assert_eq!(geometry.context_tokens(), 896);
    let runs = [run(2, 3, &[5], LogitsWanted::Last)];
    let passes = passes(&geometry, &[100, 896, 3, 0], &runs);
    assert_eq!(passes.len(), 1);
    assert_eq!(passes[0].shape.rows, 4);
    assert_eq!(passes[0].lengths, [100, 896, 3, 0]);
    assert_eq!(passes[0].counts, [0, 0, 1, 0]);
}

#[test]
fn the_bucket_covers_what_is_attended_to_and_no_more_than_twice_that() {
    let native = geometry(Form::Native, 1, true);
    let split = geometry(Form::Split, 1, true);
    let bucket = |geometry: &Geometry, start: u32| {
        let runs = [run(0, start, &[1], LogitsWanted::Last)];
        passes(geometry, &[start], &runs)[0].shape.bucket
    };
    assert_eq!(bucket(&native, 255), 256);
    assert_eq!(bucket(&native, 256), 512);
    assert_eq!(bucket(&split, 256), 256, "the new token is not in the past");
    assert_eq!(bucket(&split, 257), 512);
    assert_eq!(buckets(4_096), [256, 512, 1_024, 2_048, 4_096]);
    assert_eq!(buckets(3_000), [256, 512, 1_024, 2_048, 3_000]);
    assert_eq!(buckets(100), [100]);
}

#[test]
fn every_row_of_a_run_is_computed_one_token_at_a_time() {
    let geometry = geometry(Form::Split, 2, true);
    let runs = [run(1, 4, &[1, 2, 3], LogitsWanted::All)];
    let passes = passes(&geometry, &[0, 4], &runs);
    assert_eq!(passes.len(), 3);
    assert!(passes.iter().all(|pass| pass.shape.tokens == 1));
    assert_eq!(
        passes
            .iter()
            .map(|pass| pass.lengths[0])
            .collect::<Vec<_>>(),
        [4, 5, 6]
    );
}

#[test]
fn calls_against_the_contract_are_refused_with_the_rule() {
    let mut slots = Slots::new(&geometry(Form::Split, 2, true));
    slots.extend(SlotId(0), 1_023);
    let refused = |runs: &[Run]| slots.check(runs).unwrap_err().to_string();
    let last = LogitsWanted::Last;
    assert!(refused(&[]).contains("1 to 128 are possible"));
    assert!(refused(&[run(1, 0, &[1; 129], last)]).contains("129 tokens"));
    assert!(refused(&[run(2, 0, &[1], last)]).contains("no slot 2"));
    assert!(refused(&[run(1, 1, &[1], last)]).contains("which holds 0"));
    assert!(refused(&[run(0, 1_023, &[1, 2], last)]).contains("room for 1"));
    assert!(refused(&[run(1, 0, &[1], last), run(1, 0, &[1], last)]).contains("two runs"));
    assert!(refused(&[run(1, 0, &[1_000], last)]).contains("not in the vocabulary"));
    assert!(slots.check(&[run(0, 1_023, &[999], last)]).is_ok());
}

#[test]
fn a_prefix_is_copied_only_from_where_it_is() {
    let mut slots = Slots::new(&geometry(Form::Split, 3, true));
    slots.extend(SlotId(1), 10);
    assert!(slots.copy_prefix(SlotId(1), SlotId(0), 11).is_err());
    assert!(slots.copy_prefix(SlotId(1), SlotId(1), 5).is_err());
    assert!(slots.copy_prefix(SlotId(1), SlotId(3), 5).is_err());
    assert_eq!(slots.lengths(), [0, 10, 0]);
    slots.copy_prefix(SlotId(1), SlotId(0), 10).unwrap();
    slots.truncate(SlotId(1), 4).unwrap();
    slots.truncate(SlotId(0), 40).unwrap();
    assert_eq!(slots.lengths(), [10, 4, 0]);
}

#[test]
fn a_prefix_is_rows_of_every_head_in_every_tensor_and_nothing_else() {
    let geometry = geometry(Form::Split, 3, true);
    let copy = cache::prefix(&geometry, 2, 1, 5);
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for plane in 0..copy.planes {
        for row in 0..copy.rows {
            let offset = (plane * copy.plane_rows + row) * copy.row_pitch;
            read.push(copy.from + offset..copy.from + offset + copy.width);
            written.push(copy.to + offset..copy.to + offset + copy.width);
        }
    }
    let place = |slot: u64| {
        (0..4_u64).flat_map(move |tensor| {
            (0..3_u64).map(move |head| {
                let start = ((tensor * 3 + slot) * 3 + head) * 1_024 * 32;
                start..start + 5 * 32
            })
        })
    };
    assert_eq!(read, place(2).collect::<Vec<_>>());
    assert_eq!(written, place(1).collect::<Vec<_>>());
    assert!(written.last().unwrap().end <= geometry.cache_bytes());
}

#[test]
fn memory_is_accounted_in_bytes() {
    // SmolLM2-135M: 30 layers, 3 KV heads of 64, 4 slots of 4,096 tokens.
    let geometry = Geometry {
        form: Form::Split,
        slots: 4,
        capacity: 4_096,
        buckets: buckets(4_096),
        profiles: geometry(Form::Split, 4, true).profiles,
        layers: 30,
        kv_heads: 3,
        head_length: 64,
        vocabulary: 49_152,
    };
    geometry.check().unwrap();
    assert_eq!(geometry.cache_bytes(), 23_040 * 4 * 4_096);
    let need = Need::new(&geometry, 1_000);
    assert_eq!(need.cache, geometry.cache_bytes());
    assert_eq!(need.fresh, 23_040 * 128, "a chunk of 128 tokens is alone");
    assert_eq!(need.activations, 1_024);
    assert!(need.exchange > 4 * 4 * 49_152);
    assert_eq!(need.step(), need.fresh + need.exchange + need.activations);
}

#[test]
fn the_inputs_of_a_step_do_not_overlap() {
    for (tokens, rows) in [(1, 1), (1, 8), (512, 1), (128, 4)] {
        let inputs = Inputs::new(tokens, rows);
        let starts = [
            inputs.tokens,
            inputs.positions,
            inputs.lengths,
            inputs.counts,
            inputs.gather,
            inputs.bytes,
        ];
        let cells = 4 * u64::from(tokens * rows);
        let columns = 4 * u64::from(rows);
        for (pair, bytes) in starts
            .windows(2)
            .zip([cells, cells, columns, columns, columns])
        {
            assert!(pair[0] + bytes <= pair[1]);
            assert_eq!(pair[0] % ALIGNMENT, 0);
        }
    }
}

#[test]
fn shapes_of_another_program_are_refused() {
    let good = geometry(Form::Native, 4, true);
    good.check().unwrap();
    let broken = |change: fn(&mut Geometry)| {
        let mut geometry = good.clone();
        change(&mut geometry);
        geometry.check().unwrap_err().to_string()
    };
    assert!(broken(|g| g.slots = 0).contains("slots = 0"));
    assert!(broken(|g| g.head_length = 20).contains("head length = 20"));
    assert!(
        broken(|g| (g.layers, g.head_length) = (1 << 30, 1 << 30))
            .contains("bytes of the KV cache")
    );
    assert!(broken(|g| g.buckets = vec![512, 256, 1_024]).contains("do not ascend"));
    assert!(broken(|g| g.buckets = vec![512]).contains("do not ascend"));
    assert!(broken(|g| g.profiles.truncate(1)).contains("no profile for 2 tokens"));
    assert!(
        broken(|g| {
            g.capacity = 1;
            g.buckets = vec![1];
        })
        .contains("leaves no context")
    );
}

#[test]
fn the_first_shapes_are_single_tokens_and_chunks_in_every_bucket() {
    let geometry = geometry(Form::Native, 4, true);
    let shapes = pass::first_shapes(&geometry);
    let recorded = shapes.iter().filter(|shape| shape.is_answer());
    let pairs: Vec<_> = recorded.map(|shape| (shape.rows, shape.bucket)).collect();
    let every = |rows| [(rows, 256), (rows, 512), (rows, 1_024)];
    assert_eq!(pairs, [every(1), every(2), every(4)].concat());
    let chunks = shapes.iter().filter(|shape| !shape.is_answer());
    let mut chunks: Vec<_> = chunks.map(|shape| (shape.tokens, shape.rows)).collect();
    chunks.dedup();
    assert_eq!(chunks, [(16, 1), (32, 1), (64, 1), (128, 1)]);
    for shape in shapes {
        let pass = pass::idle(&geometry, shape);
        assert_eq!(pass.counts, vec![0; shape.rows as usize]);
        Model::new(&geometry).run(&pass);
    }
}

/// One call: for some slots a number of tokens and the rows wanted, or a cut, or a copied prefix.
#[derive(Clone, Debug)]
enum Call {
    Forward(Vec<(u32, usize, u8)>),
    Truncate(u32, u32),
    Copy(u32, u32, u32),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let runs = prop::collection::vec((0..6_u32, 1..160_usize, 0..3_u8), 1..5);
    let call = prop_oneof![
        6 => runs.prop_map(Call::Forward),
        1 => (0..6_u32, 0..1_100_u32).prop_map(|(slot, len)| Call::Truncate(slot, len)),
        1 => (0..6_u32, 0..6_u32, 0..1_100_u32).prop_map(|(a, b, len)| Call::Copy(a, b, len)),
    ];
    prop::collection::vec(call, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is asked, in whatever order: no position and no write leaves a slot, every token
    /// attends to exactly its own sequence, and every row asked for is handed out once.
    #[test]
    fn every_token_attends_to_its_own_sequence_and_nothing_else(
        native in any::<bool>(),
        alone in any::<bool>(),
        slots in 1..7_u32,
        calls in calls(),
    ) {
        let form = if native { Form::Native } else { Form::Split };
        let geometry = geometry(form, slots, alone);
        geometry.check().unwrap();
        let mut model = Model::new(&geometry);
        let mut books = Slots::new(&geometry);
        let mut truth = vec![Vec::new(); slots as usize];
        let mut next = 0;
        for call in calls {
            match call {
                Call::Truncate(slot, len) => {
                    if books.truncate(SlotId(slot), len).is_ok() {
                        truth[slot as usize].truncate(len as usize);
                    }
                }
                Call::Copy(from, to, len) => {
                    if books.copy_prefix(SlotId(from), SlotId(to), len).is_ok() {
                        let rows = 0..len as usize;
                        let prefix = model.cache[from as usize][rows.clone()].to_vec();
                        model.cache[to as usize][rows.clone()].copy_from_slice(&prefix);
                        truth[to as usize] = truth[from as usize][rows].to_vec();
                    }
                }
                Call::Forward(wanted) => {
                    let mut runs: Vec<Run> = Vec::new();
                    for (slot, count, logits) in wanted {
                        let Some(held) = truth.get(slot as usize) else { continue };
                        let start = u32::try_from(held.len()).unwrap();
                        let logits = [LogitsWanted::None, LogitsWanted::Last, LogitsWanted::All]
                            [usize::from(logits)];
                        // A third of the runs go on by one token.
                        let count = if count > 100 { 1 } else { count };
                        let tokens: Vec<u32> = (0..count).map(|_| {
                            next = (next + 1) % 1_000;
                            next
                        }).collect();
                        runs.push(run(slot, start, &tokens, logits));
                        if books.check(&runs).is_err() {
                            runs.pop();
                        }
                    }
                    if !runs.is_empty() {
                        forward(&mut model, &mut books, &mut truth, &runs);
                    }
                }
            }
        }
    }
}
