//! Every architecture in every form gives the logits that `transformers` gives.

use enginewright::network::{
    DataType, Encoding, Extent, Form, Graph, Layout, Options, OutputRole, describe,
};

use super::models::{ALL, CAPACITY, CHUNK, Model, model, relative_error};
use crate::interpreter::{Arithmetic, Interpreter, Runner, Turn};

/// Logits of every token, one token after the other, computed in one slot.
fn token_by_token(model: &Model, graph: &Graph, arithmetic: Arithmetic) -> Vec<f32> {
    let interpreter = Interpreter::new(graph, &model.weights, arithmetic);
    let mut runner = Runner::new(&interpreter, 1, 8);
    let step = |token: &u32| {
        let tokens = std::slice::from_ref(token);
        runner.step(&[Turn { slot: 0, tokens }]).remove(0)
    };
    model.tokens.iter().flat_map(step).collect()
}

/// Logits of the last token, the prompt computed at once.
fn last(model: &Model, graph: &Graph, arithmetic: Arithmetic) -> Vec<f32> {
    let interpreter = Interpreter::new(graph, &model.weights, arithmetic);
    let mut runner = Runner::new(&interpreter, 1, 8);
    let tokens = &model.tokens;
    runner.step(&[Turn { slot: 0, tokens }]).remove(0)
}

fn serving(form: Form, encoding: Encoding) -> Options {
    Options::serving(form, encoding, 1, CAPACITY, CHUNK)
}

#[test]
fn every_architecture_in_every_form_gives_the_logits_of_transformers() {
    for name in ALL {
        let model = model(name);
        let expected: Vec<f32> = model.logits.concat();
        for form in [Form::Split, Form::Native] {
            let graph = describe(&model.config, &serving(form, Encoding::F16)).unwrap();
            assert_eq!(graph.is_native(), form == Form::Native);
            let found = token_by_token(&model, &graph, Arithmetic::Wide);
            let error = relative_error(&found, &expected);
            println!("{name} {form:?}, 32 bits, token by token: {error:.1e}");
            // Tables are rounded to 16 bits in the graph itself.
            assert!(error < 1e-3, "{name} {form:?}: {error:.1e}");
            let found = last(&model, &graph, Arithmetic::Wide);
            let error = relative_error(&found, model.logits.last().unwrap());
            assert!(error < 1e-3, "{name} {form:?}, at once: {error:.1e}");
            let found = token_by_token(&model, &graph, Arithmetic::AsTyped);
            let error = relative_error(&found, &expected);
            println!("{name} {form:?}, 16 bits: {error:.1e}");
            assert!(error < 5e-3, "{name} {form:?}, 16 bits: {error:.1e}");
        }
    }
}

#[test]
fn in_32_bits_throughout_nothing_but_rounding_is_left() {
    for name in ALL {
        let model = model(name);
        for form in [Form::Split, Form::Native] {
            let options = Options {
                activations: DataType::F32,
                ..serving(form, Encoding::F32)
            };
            let graph = describe(&model.config, &options).unwrap();
            let found = token_by_token(&model, &graph, Arithmetic::AsTyped);
            let error = relative_error(&found, &model.logits.concat());
            println!("{name} {form:?}, 32 bits throughout: {error:.1e}");
            assert!(error < 5e-6, "{name} {form:?}: {error:.1e}");
        }
    }
}

#[test]
fn layouts_change_nothing_and_fewer_bits_little() {
    for (encoding, most) in [
        (Encoding::F16, 1e-3),
        (Encoding::Int8, 0.03),
        (Encoding::Int4 { block: 64 }, 0.35),
    ] {
        let model = model("llama3");
        let of = |layout: Layout, form: Form| {
            let options = Options {
                layout,
                ..serving(form, encoding)
            };
            let graph = describe(&model.config, &options).unwrap();
            last(&model, &graph, Arithmetic::Wide)
        };
        let expected = model.logits.last().unwrap();
        let found = of(Layout::Nk, Form::Split);
        let error = relative_error(&found, expected);
        println!("{encoding:?}: {error:.1e}");
        assert!(error < most, "{encoding:?}: {error:.1e}");
        for (layout, form) in [(Layout::Kn, Form::Split), (Layout::Kn, Form::Native)] {
            let error = relative_error(&of(layout, form), &found);
            assert!(
                error < 1e-5,
                "{encoding:?} {layout:?} {form:?}: {error:.1e}"
            );
        }
    }
}

#[test]
fn a_quantised_output_layer_that_is_tied_stands_beside_the_embedding() {
    let model = model("smollm2");
    let options = Options {
        head: Encoding::Int8,
        ..serving(Form::Split, Encoding::F16)
    };
    let graph = describe(&model.config, &options).unwrap();
    let sources = |name: &str| {
        let weights = graph.weights().iter();
        weights
            .filter(|weight| weight.sources[0].name == name)
            .count()
    };
    assert_eq!(sources("token_embd.weight"), 2);
    let found = last(&model, &graph, Arithmetic::Wide);
    let error = relative_error(&found, model.logits.last().unwrap());
    assert!(error < 0.02, "{error:.1e}");
}

#[test]
fn a_decoder_with_exactly_one_token_has_no_changing_sequence() {
    let model = model("qwen3");
    for form in [Form::Split, Form::Native] {
        let mut options = serving(form, Encoding::F16);
        options.sequence = Extent::Fixed(1);
        options.profiles.truncate(1);
        options.profiles[0]
            .bounds
            .remove(&enginewright::network::Symbol::Sequence);
        let graph = describe(&model.config, &options).unwrap();
        assert_eq!(graph.symbols(), [enginewright::network::Symbol::Context]);
        let found = token_by_token(&model, &graph, Arithmetic::Wide);
        let error = relative_error(&found, &model.logits.concat());
        assert!(error < 1e-3, "{form:?}: {error:.1e}");
        let logits = graph.output(OutputRole::Logits).unwrap();
        let shape = graph.node(logits.tensor).shape.as_fixed();
        assert_eq!(shape, Some(vec![1, model.facts.vocabulary.into()]));
    }
}
