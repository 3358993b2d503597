//! Every architecture in every form of attention and every precision, two layers with random weights:
//! described, lowered, built and bundled by a real TensorRT.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use enginewright::build::{self, BuildError, Monitor, Order, Outcome, Stage};
use enginewright::engine::{BUILDER_VERSION, Format, KeyInputs};
use enginewright::hardware::{Platform, Sm};
use enginewright::model::gguf::TensorType;
use enginewright::network::{
    Config, Encoding, Form, Graph, Options, TensorMeta, WeightError, WeightSource, describe,
};
use enginewright::store::bundle::Bundle;
use enginewright::tensorrt::{BuilderOptions, Library};
use enginewright::weights::{EncodeOptions, encode};

use crate::wrapper::library;

const ARCHITECTURES: [&str; 4] = ["llama", "llama-tied", "qwen2", "qwen3"];

fn config(architecture: &str) -> Config {
    Config {
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_length: 64,
        hidden: 256,
        feed_forward: 512,
        vocabulary: 1024,
        tied_embeddings: architecture == "llama-tied",
        attention_biases: architecture == "qwen2",
        head_norms: architecture == "qwen3",
        epsilon: 1e-5,
        frequencies: (0..32)
            .map(|pair| 10_000_f64.powf(-f64::from(pair) / 32.0))
            .collect(),
    }
}

/// Every tensor that a graph asks for, with numbers that depend on its name and place.
struct Random(BTreeMap<String, [u64; 2]>);

impl Random {
    fn of(graph: &Graph) -> Self {
        let sources = graph.weights().iter().flat_map(|weight| &weight.sources);
        Self(
            sources
                .map(|one| (one.name.clone(), [one.rows, one.row_length]))
                .collect(),
        )
    }
}

impl WeightSource for Random {
    fn tensor(&self, name: &str) -> Option<TensorMeta> {
        let [rows, length] = *self.0.get(name)?;
        let shape = if rows == 1 {
            vec![length]
        } else {
            vec![rows, length]
        };
        Some(TensorMeta {
            stored: TensorType::F32,
            shape,
        })
    }

    fn read_f32(
        &self,
        name: &str,
        rows: Range<u64>,
        into: &mut Vec<f32>,
    ) -> Result<(), WeightError> {
        let [_, length] = self.0[name];
        let seed = name
            .bytes()
            .fold(1_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
        for place in rows.start * length..rows.end * length {
            let bits = (seed + place).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            #[expect(clippy::cast_precision_loss, reason = "24 bits")]
            into.push((bits as f32 / 8_388_608.0 - 1.0) * 0.06);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Quiet {
    heard: AtomicU32,
    stop: bool,
}

impl Monitor for Quiet {
    fn progress(&self, _: Stage, done: f64, _: &str) {
        assert!((0.0..=1.0).contains(&done));
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
    fn is_stopped(&self) -> bool {
        self.stop
    }
}

fn inputs(library: &Library, format: Format, form: Form) -> KeyInputs {
    KeyInputs {
        model_digest: "00".repeat(32),
        builder_version: format!("{BUILDER_VERSION}/{form:?}"),
        format,
        group: if format == Format::Int4 { 64 } else { 0 },
        slots: 2,
        max_input_tokens: 64,
        max_output_tokens: 64,
        chunk: 32,
        tensorrt: library.version_in_key(),
        sm: Sm::new(8, 9),
        platform: Platform::X86,
    }
}

fn network(architecture: &str, form: Form, encoding: Encoding) -> Graph {
    let options = Options::serving(form, encoding, 2, 160, 32);
    describe(&config(architecture), &options).unwrap()
}

fn order(inputs: KeyInputs, graph: &Graph) -> Order<'_> {
    Order {
        inputs,
        graph,
        model: "random".into(),
        tokenizer: b"{}",
        template: b"",
        config: b"{}",
        options: BuilderOptions {
            detailed: true,
            ..BuilderOptions::default()
        },
        timing_cache: None,
        memory_limit: None,
        machine: "test".into(),
        on_gpu: false,
        now: 0,
        again: false,
    }
}

fn build_at(order: &Order<'_>, to: &Path, monitor: &Quiet) -> Result<Outcome, BuildError> {
    let source = Random::of(order.graph);
    let options = EncodeOptions::default();
    let encode =
        |spec: &_, take: &mut build::Take<'_>| encode(&source, spec, options, take).map(drop);
    build::build(&library(), order, &encode, to, monitor)
}

#[test]
fn every_architecture_is_built_in_every_form_and_precision() {
    let folder = tempfile::tempdir().unwrap();
    let library = library();
    let formats = [
        (Format::Fp16, Encoding::F16),
        (Format::Int8, Encoding::Int8),
        (Format::Int4, Encoding::Int4 { block: 64 }),
    ];
    for architecture in ARCHITECTURES {
        for form in [Form::Native, Form::Split] {
            let mut sizes = Vec::new();
            for (format, encoding) in formats {
                let what = format!("{architecture} {form:?} {format:?}");
                let graph = network(architecture, form, encoding);
                let order = order(inputs(&library, format, form), &graph);
                let monitor = Quiet::default();
                let to = folder.path().join(&what);
                let built = build_at(&order, &to, &monitor);
                let built = built.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(matches!(built, Outcome::Built(..)), "{what}");
                assert!(monitor.heard.load(Ordering::Relaxed) > 10, "{what}");
                let bundle = Bundle::open(&to).unwrap();
                bundle.verify(&mut |_, _| {}).unwrap();
                let manifest = bundle.manifest();
                assert_eq!(
                    manifest.engine.attention == "native",
                    form == Form::Native,
                    "{what}"
                );
                assert_eq!(manifest.engine.profiles.len(), 2, "{what}");
                sizes.push(manifest.files["engine.plan"].size);
            }
            // Fewer bits make a smaller plan: the weights went in quantised and stayed so.
            assert!(
                sizes.is_sorted_by(|a, b| a > b),
                "{architecture} {form:?}: {sizes:?}"
            );
        }
    }
}

#[test]
fn an_engine_that_is_there_is_not_built_again_and_a_damaged_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("engine");
    let graph = network("llama", Form::Native, Encoding::F16);
    let order = order(inputs(&library(), Format::Fp16, Form::Native), &graph);
    let build = || build_at(&order, &to, &Quiet::default()).unwrap();
    assert!(matches!(build(), Outcome::Built(..)));
    assert!(matches!(build(), Outcome::There(_)));
    let plan = to.join("engine.plan");
    let mut bytes = std::fs::read(&plan).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&plan, bytes).unwrap();
    assert!(matches!(build(), Outcome::Built(..)));
    Bundle::open(&to).unwrap().verify(&mut |_, _| {}).unwrap();
}

#[test]
fn a_build_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("engine");
    let graph = network("llama", Form::Split, Encoding::F16);
    let order = order(inputs(&library(), Format::Fp16, Form::Split), &graph);
    let monitor = Quiet {
        stop: true,
        ..Quiet::default()
    };
    let error = build_at(&order, &to, &monitor).unwrap_err();
    assert!(matches!(error, BuildError::Stopped), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .collect();
    assert!(
        left.iter().all(|entry| entry.file_name() == ".lock"),
        "{left:?}"
    );
}

#[test]
fn what_is_there_and_no_bundle_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("engine");
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("thesis.tex"), "years of work").unwrap();
    let graph = network("llama", Form::Split, Encoding::F16);
    let order = order(inputs(&library(), Format::Fp16, Form::Split), &graph);
    let error = build_at(&order, &to, &Quiet::default()).unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
    assert!(to.join("thesis.tex").exists());
}

#[test]
fn a_memory_limit_refuses_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("engine");
    let graph = network("llama", Form::Split, Encoding::F16);
    let mut order = order(inputs(&library(), Format::Fp16, Form::Split), &graph);
    order.memory_limit = Some(1 << 20);
    let error = build_at(&order, &to, &Quiet::default()).unwrap_err();
    assert!(matches!(error, BuildError::Room(_)), "{error}");
    assert!(!to.exists());
}
