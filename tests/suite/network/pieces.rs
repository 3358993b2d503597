//! The same tokens in other pieces give the same logits: slots, chunks, copied prefixes.

use enginewright::network::{Encoding, Form, Graph, Options, describe};

use super::models::{ALL, CAPACITY, CHUNK, Model, model, relative_error};
use crate::interpreter::{Arithmetic, Interpreter, Runner, Turn};

const FORMS: [Form; 2] = [Form::Split, Form::Native];
/// Sums are taken in another order where a product has other dimensions.
const SAME: f64 = 1e-5;

fn graph(model: &Model, form: Form, slots: u32) -> Graph {
    let options = Options::serving(form, Encoding::F16, slots, CAPACITY, CHUNK);
    describe(&model.config, &options).unwrap()
}

/// Logits of the last token of `chunks`, one after the other in an only slot.
fn alone(model: &Model, form: Form, chunks: &[&[u32]]) -> Vec<f32> {
    let graph = graph(model, form, 1);
    let interpreter = Interpreter::new(&graph, &model.weights, Arithmetic::Wide);
    let mut runner = Runner::new(&interpreter, 1, 8);
    let step = |tokens: &&[u32]| runner.step(&[Turn { slot: 0, tokens }]).remove(0);
    chunks.iter().map(step).last().unwrap()
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    let error = relative_error(found, expected);
    assert!(error < SAME, "{what}: {error:.1e}");
}

/// Sequences of different lengths, none a prefix of another.
fn sequences(count: usize) -> Vec<Vec<u32>> {
    let lengths = [9, 4, 12, 1, 7, 15, 3, 10];
    let one = |slot: u32| {
        let length = lengths[slot as usize];
        (0..length).map(|i| (slot * 17 + i * 29 + 5) % 64).collect()
    };
    (0..).take(count).map(one).collect()
}

#[test]
fn slots_of_different_lengths_are_each_as_if_alone() {
    for name in ALL {
        let model = model(name);
        for form in FORMS {
            for slots in [1_u32, 4, 8] {
                ragged(&model, form, slots);
            }
        }
    }
}

/// A prompt in every slot at once, then a token in every second, then one in each.
fn ragged(model: &Model, form: Form, slots: u32) {
    let graph = graph(model, form, slots);
    let interpreter = Interpreter::new(&graph, &model.weights, Arithmetic::Wide);
    let mut runner = Runner::new(&interpreter, slots as usize, 8);
    let mut held = sequences(slots as usize);
    let turn = |(slot, tokens): (usize, &Vec<u32>)| (slot, tokens.clone());
    let mut turns: Vec<(usize, Vec<u32>)> = held.iter().enumerate().map(turn).collect();
    for round in 0..3 {
        let run: Vec<Turn<'_>> = turns
            .iter()
            .map(|(slot, tokens)| Turn {
                slot: *slot,
                tokens,
            })
            .collect();
        let logits = runner.step(&run);
        for ((slot, tokens), found) in turns.iter().zip(&logits) {
            if round > 0 {
                held[*slot].extend(tokens);
            }
            let expected = alone(model, form, &[&held[*slot]]);
            let what = format!("{form:?}, slot {slot} of {slots}, round {round}");
            assert_same(found, &expected, &what);
        }
        let every = if round == 0 { 2 } else { 1 };
        let token = |slot: usize| u32::try_from(slot * 3 + round).unwrap();
        turns = (0..held.len())
            .step_by(every)
            .map(|slot| (slot, vec![token(slot)]))
            .collect();
    }
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_at_once() {
    for name in ALL {
        let model = model(name);
        let tokens = &model.tokens;
        for form in FORMS {
            let expected = alone(&model, form, &[tokens]);
            for size in [1, 5, 8, 11] {
                let chunks: Vec<&[u32]> = tokens.chunks(size).collect();
                let found = alone(&model, form, &chunks);
                assert_same(
                    &found,
                    &expected,
                    &format!("{name} {form:?}, chunks of {size}"),
                );
            }
        }
    }
}

#[test]
fn a_copied_prefix_is_as_good_as_a_computed_one() {
    for name in ALL {
        let model = model(name);
        for form in FORMS {
            let graph = graph(&model, form, 4);
            let interpreter = Interpreter::new(&graph, &model.weights, Arithmetic::Wide);
            let mut runner = Runner::new(&interpreter, 4, 8);
            let (prefix, rest) = model.tokens.split_at(7);
            runner.step(&[
                Turn {
                    slot: 2,
                    tokens: &model.tokens,
                },
                Turn {
                    slot: 0,
                    tokens: &[1, 2, 3],
                },
            ]);
            runner.copy_prefix(2, 0, prefix.len());
            let found = runner.step(&[Turn {
                slot: 0,
                tokens: rest,
            }]);
            let expected = alone(&model, form, &[&model.tokens]);
            assert_same(&found[0], &expected, &format!("{name} {form:?}, copied"));
            // What was cut off leaves no trace.
            runner.truncate(2, prefix.len());
            let other = [9, 9, 9];
            let found = runner.step(&[Turn {
                slot: 2,
                tokens: &other,
            }]);
            let whole = [prefix, &other[..]].concat();
            let expected = alone(&model, form, &[&whole]);
            assert_same(&found[0], &expected, &format!("{name} {form:?}, cut"));
        }
    }
}

#[test]
fn a_slot_can_be_filled_to_its_capacity() {
    let model = model("llama3");
    let tokens: Vec<u32> = (0..CAPACITY).map(|i| i * 7 % 64).collect();
    for form in FORMS {
        let halves: Vec<&[u32]> = tokens.chunks(CHUNK as usize).collect();
        let single: Vec<&[u32]> = tokens.chunks(1).collect();
        let expected = alone(&model, form, &single);
        assert_same(
            &alone(&model, form, &halves),
            &expected,
            &format!("{form:?}"),
        );
    }
}
