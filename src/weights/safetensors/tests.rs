use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::network::WeightSource;
use crate::weights::{Form, Weights};

const HIDDEN: u64 = 32;
const NORM: &str = "model.norm.weight";

type Shapes = Vec<(String, Vec<u64>)>;

/// Name and shape of each tensor of a Llama of one layer: two heads of 16, one of keys and values.
fn shapes() -> Shapes {
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![10, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![10, HIDDEN]),
    ];
    for (name, shape) in [
        ("input_layernorm", vec![HIDDEN]),
        ("post_attention_layernorm", vec![HIDDEN]),
        ("self_attn.q_proj", vec![32, HIDDEN]),
        ("self_attn.k_proj", vec![16, HIDDEN]),
        ("self_attn.v_proj", vec![16, HIDDEN]),
        ("self_attn.o_proj", vec![HIDDEN, 32]),
        ("mlp.gate_proj", vec![48, HIDDEN]),
        ("mlp.up_proj", vec![48, HIDDEN]),
        ("mlp.down_proj", vec![HIDDEN, 48]),
    ] {
        all.push((format!("model.layers.0.{name}.weight"), shape));
    }
    all
}

/// A file: header and as many bytes of data as the header says.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A header in BF16 for `tensors`, and data whose elements count up from 1 within each tensor.
fn shard(tensors: &[(String, Vec<u64>)]) -> (Value, Vec<u8>) {
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut data = Vec::new();
    for (name, shape) in tensors {
        let start = data.len();
        for number in 1..=shape.iter().product::<u64>() {
            #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
            let value = half::bf16::from_f32(number as f32);
            data.extend(value.to_le_bytes());
        }
        header[name] =
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]});
    }
    (header, data)
}

fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48,
        "vocab_size": 10, "max_position_embeddings": 64, "rms_norm_eps": 1e-5
    })
}

struct Model(tempfile::TempDir);

impl Model {
    /// `files` with what is in them.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        Self(folder)
    }

    fn single() -> Self {
        let (header, data) = shard(&shapes());
        Self::new(&[("model.safetensors", &file(&header, &data))])
    }

    /// Two shards with an index that `change` may spoil.
    fn sharded(change: impl FnOnce(&mut Value)) -> Self {
        let all = shapes();
        let (first, second) = all.split_at(5);
        let mut index = json!({"metadata": {"total_size": 1}, "weight_map": {}});
        for (name, _) in first {
            index["weight_map"][name] = json!("model-00001-of-00002.safetensors");
        }
        for (name, _) in second {
            index["weight_map"][name] = json!("model-00002-of-00002.safetensors");
        }
        change(&mut index);
        let [first, second] = [first, second].map(|tensors| {
            let (header, data) = shard(tensors);
            file(&header, &data)
        });
        Self::new(&[
            ("model-00001-of-00002.safetensors", &first),
            ("model-00002-of-00002.safetensors", &second),
            ("model.safetensors.index.json", index.to_string().as_bytes()),
        ])
    }

    fn open(&self) -> Result<Weights, String> {
        Weights::open(self.0.path()).map_err(|error| error.to_string())
    }

    fn refused(&self) -> String {
        self.open().unwrap_err()
    }
}

fn read(weights: &Weights, name: &str, rows: Range<u64>) -> Vec<f32> {
    let mut values = Vec::new();
    weights.read_f32(name, rows, &mut values).unwrap();
    values
}

#[test]
fn one_file_and_shards_are_the_same_model_under_ggufs_names() {
    for model in [Model::single(), Model::sharded(|_| ())] {
        let weights = model.open().unwrap();
        assert_eq!(weights.names().count(), shapes().len());
        assert_eq!(weights.facts().layers, 1);
        let meta = weights.tensor("blk.0.attn_k.weight").unwrap();
        assert_eq!((meta.rows(), meta.row_length()), (16, HIDDEN));
        assert_eq!(meta.stored, TensorType::BF16);
        // Rows of queries stand as they are: only GGUF interleaves them.
        let row = read(&weights, "blk.0.attn_q.weight", 1..2);
        assert_eq!(row[..3], [33.0, 34.0, 35.0]);
        assert_eq!(read(&weights, "output_norm.weight", 0..1).len(), 32);
        assert!(matches!(weights.form(), Form::Safetensors { .. }));
    }
}

#[test]
fn a_tied_model_has_no_output_layer_even_when_the_file_repeats_it() {
    let model = Model::single();
    let mut tied = config();
    tied["tie_word_embeddings"] = json!(true);
    std::fs::write(model.0.path().join("config.json"), tied.to_string()).unwrap();
    let weights = model.open().unwrap();
    assert!(weights.facts().tied_embeddings);
    assert!(weights.tensor("output.weight").is_none());
}

#[test]
fn llama_3s_frequency_factors_are_a_tensor_as_in_gguf() {
    let model = Model::single();
    let mut config = config();
    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0});
    std::fs::write(model.0.path().join("config.json"), config.to_string()).unwrap();
    let weights = model.open().unwrap();
    assert!(weights.facts().rope.has_factors);
    let factors = read(&weights, "rope_freqs.weight", 0..1);
    assert_eq!(factors.len(), 8);
    assert!(factors.iter().all(|factor| (1.0..=8.0).contains(factor)));
}

#[test]
fn tokenizer_and_template_are_found() {
    let model = Model::single();
    let folder = model.0.path();
    let companions = |model: &Model| match model.open().unwrap().form() {
        Form::Safetensors { companions, .. } => companions.clone(),
        Form::Gguf => panic!("a folder"),
    };
    assert_eq!(companions(&model), Companions::default());
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    let several = json!({"chat_template": [
        {"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}
    ]});
    std::fs::write(folder.join("tokenizer_config.json"), several.to_string()).unwrap();
    let found = companions(&model);
    assert_eq!(found.tokenizer, Some(folder.join("tokenizer.json")));
    assert_eq!(found.chat_template.as_deref(), Some("yes"));
    std::fs::write(folder.join("chat_template.jinja"), "file").unwrap();
    assert_eq!(companions(&model).chat_template.as_deref(), Some("file"));
}

#[test]
fn headers_that_lie_are_refused_with_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut Value, &mut Vec<u8>)| {
        let (mut header, mut data) = shard(&shapes());
        change(&mut header, &mut data);
        Model::new(&[("model.safetensors", &file(&header, &data))]).refused()
    };
    for (change, expected) in [
        (
            (|header, _| header[NORM]["shape"] = json!([33])) as fn(&mut Value, &mut Vec<u8>),
            "its shape [33]",
        ),
        (
            |header, _| header[NORM]["shape"] = json!([1_u64 << 40, 1_u64 << 40]),
            "its shape",
        ),
        (
            |header, _| header[NORM]["shape"] = json!(vec![1; 9]),
            "more than 8 dimensions",
        ),
        (|header, _| header[NORM]["shape"] = json!([-1]), "header of"),
        (
            |header, _| header[NORM]["dtype"] = json!("Q4"),
            "unknown type Q4",
        ),
        (|header, _| header[NORM]["dtype"] = json!("F32"), "type F32"),
        (
            |header, _| header[NORM]["data_offsets"] = json!([640, 600]),
            "640 to 600",
        ),
        (
            |header, _| header[NORM]["data_offsets"] = json!([0, 64]),
            "overlaps",
        ),
        (
            |header, _| header[NORM]["data_offsets"] = json!([u64::MAX - 64, u64::MAX]),
            "hole",
        ),
        (|header, _| header[NORM]["more"] = json!(1), "unknown field"),
        (|_, data| data.truncate(data.len() - 1), "truncated"),
        (|_, data| data.push(0), "covers"),
        (
            |header, _| {
                header
                    .as_object_mut()
                    .unwrap()
                    .remove("model.embed_tokens.weight");
            },
            "hole",
        ),
    ] {
        let error = refused(&change);
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn a_header_longer_than_its_file_or_the_limit_is_refused_before_memory_is_taken() {
    let (header, data) = shard(&shapes());
    let good = file(&header, &data);
    for lie in [u64::MAX, 1 << 60, good.len() as u64, good.len() as u64 - 7] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&lie.to_le_bytes());
        let error = Model::new(&[("model.safetensors", &bytes)]).refused();
        assert!(error.contains(&format!("needs {lie} bytes")), "{error}");
    }
    // A sparse file of 8 EiB costs an attacker nothing.
    let model = Model::new(&[("model.safetensors", &(1_u64 << 40).to_le_bytes())]);
    let path = model.0.path().join("model.safetensors");
    let sparse = std::fs::File::options().write(true).open(path).unwrap();
    sparse.set_len(1 << 42).unwrap();
    let error = model.refused();
    assert!(error.contains("the limit is"), "{error}");
    for length in 0..8 {
        let error = Model::new(&[("model.safetensors", &good[..length])]).refused();
        assert!(error.contains("needs 8 bytes"), "{error}");
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let (header, data) = shard(&shapes());
    let text = header.to_string();
    let entry = r#""model.norm.weight":{"dtype":"BF16","shape":[32],"data_offsets":[640,704]}"#;
    let twice = text.replacen('{', &format!("{{{entry},"), 1);
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend(twice.as_bytes());
    bytes.extend(data);
    let error = Model::new(&[("model.safetensors", &bytes)]).refused();
    assert!(
        error.contains("`model.norm.weight` stands there twice"),
        "{error}"
    );
}

#[test]
fn tensors_that_the_network_does_not_know_or_needs_are_named() {
    let refused = |change: fn(&mut Shapes)| {
        let mut tensors = shapes();
        change(&mut tensors);
        let (header, data) = shard(&tensors);
        Model::new(&[("model.safetensors", &file(&header, &data))]).refused()
    };
    let error = refused(|all| all.push(("model.layers.0.mlp.gate.weight".into(), vec![4])));
    assert!(
        error.contains("mlp.gate.weight` in") && error.contains("unknown"),
        "{error}"
    );
    let error = refused(|all| drop(all.remove(5)));
    assert!(error.contains("blk.0.attn_q.weight` is missing"), "{error}");
    let error = refused(|all| drop(all.remove(2)));
    assert!(error.contains("lm_head.weight` is missing"), "{error}");
    let error = refused(|all| all[5].1 = vec![HIDDEN, 31]);
    assert!(
        error.contains("blk.0.attn_q.weight` has the shape"),
        "{error}"
    );
}

#[test]
fn an_index_that_lies_is_refused() {
    let refused = |change: fn(&mut Value)| Model::sharded(change).refused();
    for (change, expected) in [
        (
            (|index| index["weight_map"][NORM] = json!("../model.safetensors")) as fn(&mut Value),
            "\"../model.safetensors\", which must be a file name",
        ),
        (
            |index| index["weight_map"][NORM] = json!("/etc/passwd"),
            "\"/etc/passwd\", which must be a file name",
        ),
        (
            |index| index["weight_map"][NORM] = json!("model-00003-of-00002.safetensors"),
            "which is not there",
        ),
        (
            |index| index["weight_map"][NORM] = json!("model-00002-of-00002.safetensors"),
            "the index says otherwise",
        ),
        (
            |index| index["weight_map"]["more"] = json!("model-00002-of-00002.safetensors"),
            "names the tensor `more`",
        ),
        (
            |index| drop(index["weight_map"].as_object_mut().unwrap().remove(NORM)),
            "the index says otherwise",
        ),
        (|index| index["weight_map"] = json!({}), "names 0 files"),
        (|index| *index = json!([]), "is not the index"),
    ] {
        let error = refused(change);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_folder_without_a_model_says_what_is_missing() {
    let model = Model::new(&[]);
    assert!(model.refused().contains("model.safetensors.index.json"));
    std::fs::remove_file(model.0.path().join("config.json")).unwrap();
    assert!(model.refused().contains("config.json"));
}

/// Opens, and reads everything if that is a model.
fn use_it(model: &Model) -> bool {
    let Ok(weights) = model.open() else {
        return false;
    };
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    for name in names {
        let rows = weights.tensor(&name).unwrap().rows();
        let _error_or_values = weights.read_f32(&name, 0..rows, &mut Vec::new());
    }
    true
}

#[test]
fn a_thousand_random_mutations_are_errors_or_models_and_never_panic() {
    let (header, data) = shard(&shapes());
    let good = file(&header, &data);
    let header_end = good.len() - data.len();
    let model = Model::new(&[]);
    let path = model.0.path().join("model.safetensors");
    let mut accepted = 0;
    for seed in 0..1000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut bytes = good.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..header_end.min(bytes.len()));
            match random.random_range(0..5) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes[at] = random.random(),
                2 => bytes[at] = b"0123456789[]{},:\"-eE."[random.random_range(0..21)],
                3 => drop(bytes.drain(at..(at + random.random_range(1..20)).min(bytes.len()))),
                _ => bytes.truncate(random.random_range(9..bytes.len().max(10))),
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        accepted += u32::from(use_it(&model));
    }
    // Among others what only changes a letter of a value of `__metadata__`.
    assert!(
        accepted < 100,
        "{accepted} of 1000 mutations were taken for a model"
    );
}
