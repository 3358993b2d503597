use std::path::PathBuf;

use super::*;
use crate::model::gguf::writer::GgufWriter;
use crate::model::gguf::{GgufValue, TensorType};

const HIDDEN: u64 = 64;

/// A file that is removed with its folder.
pub(crate) struct Written {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

fn write(bytes: &[u8]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Written {
        _folder: folder,
        path,
    }
}

/// Rows whose elements tell where they stand: `1000 row + column`.
fn numbered(rows: u64, columns: u64) -> Vec<u8> {
    (0..rows * columns)
        .flat_map(|at| {
            let value = u32::try_from(at / columns * 1000 + at % columns).unwrap();
            #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
            let value = value as f32;
            value.to_le_bytes()
        })
        .collect()
}

/// A model of one layer, four heads of 16, two of keys and values, whose matrices are numbered.
pub(crate) fn model(architecture: &str) -> GgufWriter {
    model_with(architecture, 4)
}

fn model_with(architecture: &str, vocabulary: u16) -> GgufWriter {
    let tokens: Vec<String> = (0..vocabulary).map(|token| token.to_string()).collect();
    let f32s = TensorType::F32;
    let key = |name: &str| format!("{architecture}.{name}");
    let mut writer = GgufWriter::default()
        .string("general.architecture", architecture)
        .u32(&key("block_count"), 1)
        .u32(&key("context_length"), 128)
        .u32(&key("embedding_length"), 64)
        .u32(&key("feed_forward_length"), 64)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .entry(
            &key("attention.layer_norm_rms_epsilon"),
            GgufValue::F32(1e-5),
        )
        .strings("tokenizer.ggml.tokens", tokens.iter().map(String::as_str))
        .tensor(
            "token_embd.weight",
            &[HIDDEN, vocabulary.into()],
            f32s,
            numbered(vocabulary.into(), HIDDEN),
        )
        .tensor("output_norm.weight", &[HIDDEN], f32s, numbered(1, HIDDEN));
    for name in ["attn_norm", "ffn_norm"] {
        writer = writer.tensor(&format!("blk.0.{name}.weight"), &[HIDDEN], f32s, vec![]);
    }
    for (name, rows) in [
        ("attn_q", 64),
        ("attn_k", 32),
        ("attn_v", 32),
        ("attn_output", 64),
        ("ffn_gate", 64),
        ("ffn_up", 64),
        ("ffn_down", 64),
    ] {
        let name = format!("blk.0.{name}.weight");
        writer = writer.tensor(&name, &[HIDDEN, rows], f32s, numbered(rows, HIDDEN));
    }
    if architecture == "qwen2" {
        for (name, rows) in [("attn_q", 64), ("attn_k", 32), ("attn_v", 32)] {
            let name = format!("blk.0.{name}.bias");
            writer = writer.tensor(&name, &[rows], f32s, numbered(1, rows));
        }
    }
    writer
}

pub(crate) fn open(writer: &GgufWriter) -> (Written, Weights) {
    let written = write(&writer.bytes());
    let weights = Weights::open(&written.path).unwrap();
    (written, weights)
}

/// In which row of the file each row of the model stands.
fn rows_of(weights: &Weights, name: &str, rows: Range<u64>) -> Vec<u32> {
    let mut values = Vec::new();
    weights.read_f32(name, rows, &mut values).unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small whole numbers"
    )]
    let row = |row: &[f32]| (row[0] / 1000.0) as u32;
    let (rows, rest) = values.as_chunks::<64>();
    assert!(rest.is_empty());
    rows.iter().map(|one| row(one)).collect()
}

#[test]
fn queries_and_keys_of_the_llama_architecture_are_put_into_the_models_order() {
    let (_file, weights) = open(&model("llama"));
    let head = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];
    let expected: Vec<u32> = (0..4).flat_map(|h| head.map(|row| h * 16 + row)).collect();
    let (queries, keys) = ("blk.0.attn_q.weight", "blk.0.attn_k.weight");
    assert_eq!(rows_of(&weights, queries, 0..64), expected);
    assert_eq!(rows_of(&weights, keys, 0..32), expected[..32]);
    assert_eq!(rows_of(&weights, queries, 13..37), expected[13..37]);
    assert_eq!(rows_of(&weights, queries, 40..40), [0; 0]);
    let natural: Vec<u32> = (0..32).collect();
    assert_eq!(rows_of(&weights, "blk.0.attn_v.weight", 0..32), natural);
}

#[test]
fn other_architectures_have_the_models_order_already() {
    let (_file, weights) = open(&model("qwen2"));
    let natural: Vec<u32> = (0..64).collect();
    assert_eq!(rows_of(&weights, "blk.0.attn_q.weight", 0..64), natural);
    let mut bias = Vec::new();
    weights
        .read_f32("blk.0.attn_q.bias", 0..1, &mut bias)
        .unwrap();
    assert_eq!(bias.len(), 64);
    assert!(bias.is_sorted());
}

#[test]
fn biases_of_queries_are_reordered_as_their_rows_are() {
    let mut writer = model("llama");
    for (name, rows) in [("attn_q", 64), ("attn_k", 32), ("attn_v", 32)] {
        let name = format!("blk.0.{name}.bias");
        writer = writer.tensor(&name, &[rows], TensorType::F32, numbered(1, rows));
    }
    let (_file, weights) = open(&writer);
    let mut bias = Vec::new();
    weights
        .read_f32("blk.0.attn_k.bias", 0..1, &mut bias)
        .unwrap();
    assert_eq!(bias[..3], [0.0, 2.0, 4.0]);
    assert_eq!(bias[8..11], [1.0, 3.0, 5.0]);
    assert_eq!(bias[16..18], [16.0, 18.0]);
}

#[test]
fn tensors_are_described_outermost_axis_first() {
    let (_file, weights) = open(&model("llama"));
    let meta = weights.tensor("blk.0.attn_k.weight").unwrap();
    assert_eq!((meta.rows(), meta.row_length()), (32, HIDDEN));
    assert_eq!(meta.stored, TensorType::F32);
    let meta = weights.tensor("output_norm.weight").unwrap();
    assert_eq!((meta.rows(), meta.row_length()), (1, HIDDEN));
    assert!(weights.tensor("output.weight").is_none());
    assert_eq!(weights.names().count(), 11);
    assert_eq!(weights.facts().layers, 1);
}

#[test]
fn values_are_appended() {
    let (_file, weights) = open(&model("llama"));
    let mut values = vec![-1.0];
    for row in [1, 3] {
        weights
            .read_f32("token_embd.weight", row..row + 1, &mut values)
            .unwrap();
    }
    assert_eq!(values.len(), 1 + 2 * 64);
    assert_eq!((values[0], values[1], values[65]), (-1.0, 1000.0, 3000.0));
}

#[test]
fn a_tensor_that_is_longer_than_the_buffer_is_read_in_pieces() {
    // 1.2 MB: more than one piece, the second not full.
    let (_file, weights) = open(&model_with("llama", 4_800));
    let natural: Vec<u32> = (0..4_800).collect();
    assert_eq!(rows_of(&weights, "token_embd.weight", 0..4_800), natural);
}

#[test]
fn what_is_not_there_is_named() {
    let (_file, weights) = open(&model("llama"));
    let mut values = Vec::new();
    let error = weights
        .read_f32("output.weight", 0..1, &mut values)
        .unwrap_err();
    assert!(matches!(error, WeightError::Missing { .. }), "{error}");
    #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
    let ranges = [0..65, 64..65, 2..1, 0..u64::MAX];
    for rows in ranges {
        let error = weights
            .read_f32("blk.0.attn_q.weight", rows, &mut values)
            .unwrap_err();
        assert!(matches!(error, WeightError::Rows { .. }), "{error}");
    }
    assert!(values.is_empty());
}

#[test]
fn a_file_that_is_cut_while_it_is_read_gives_an_error() {
    let (written, weights) = open(&model("llama"));
    let length = std::fs::metadata(&written.path).unwrap().len();
    let file = std::fs::File::options()
        .write(true)
        .open(&written.path)
        .unwrap();
    weights.check_unchanged().unwrap();
    file.set_len(length - 64).unwrap();
    let error = weights
        .read_f32("blk.0.ffn_down.weight", 0..64, &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("ffn_down"), "{error}");
    assert!(weights.check_unchanged().is_err());
}

#[test]
fn an_encoding_that_is_not_read_is_refused_on_opening() {
    let kind = TensorType::from_name("IQ4_NL").unwrap();
    let written = write(
        &model("llama")
            .tensor("output.weight", &[HIDDEN, 4], kind, vec![])
            .bytes(),
    );
    let error = Weights::open(&written.path).unwrap_err().to_string();
    assert!(
        error.contains("output.weight") && error.contains("IQ4_NL") && error.contains("Q4_K"),
        "{error}"
    );
}

#[test]
fn what_is_neither_file_nor_folder_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let error = Weights::open(&folder.path().join("none")).unwrap_err();
    assert!(matches!(error, OpenError::Read { .. }), "{error}");
    let error = Weights::open(Path::new("/dev/null")).unwrap_err();
    assert!(matches!(error, OpenError::NotAModel { .. }), "{error}");
}

#[test]
fn the_models_digest_is_that_of_its_file_and_what_is_read_is_compared_with_it() {
    let (written, mut weights) = open(&model("llama"));
    let digests = weights.digest(&mut |_| true).unwrap();
    assert_eq!(digests.model, crate::model::sha256(&written.path).unwrap());
    weights.expect(&digests);
    assert_eq!(weights.unread().len(), 11);
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    for name in &names {
        // In pieces that end within a head.
        let rows = weights.tensor(name).unwrap().rows();
        for first in (0..rows).step_by(7) {
            let rows = first..rows.min(first + 7);
            weights.read_f32(name, rows, &mut Vec::new()).unwrap();
        }
    }
    assert_eq!(weights.unread(), [""; 0]);
}

#[test]
fn a_byte_that_is_changed_after_hashing_is_found_when_its_tensor_is_read() {
    use std::os::unix::fs::FileExt;

    let (written, mut weights) = open(&model("llama"));
    let digests = weights.digest(&mut |_| true).unwrap();
    weights.expect(&digests);
    let file = std::fs::File::options().write(true).open(&written.path);
    let file = file.unwrap();
    let length = file.metadata().unwrap().len();
    // The last tensor is the last in the file.
    file.write_all_at(&[7], length - 1).unwrap();
    let mut values = Vec::new();
    weights
        .read_f32("blk.0.ffn_up.weight", 0..64, &mut values)
        .unwrap();
    let error = weights
        .read_f32("blk.0.ffn_down.weight", 0..64, &mut values)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ffn_down") && error.contains("digest"),
        "{error}"
    );
}

#[test]
fn hashing_can_be_stopped_and_tells_how_far_it_is() {
    let (written, weights) = open(&model_with("llama", 6_000));
    let mut seen = Vec::new();
    let error = weights
        .digest(&mut |done| {
            seen.push(done);
            seen.len() < 2
        })
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
    let length = std::fs::metadata(&written.path).unwrap().len();
    assert_eq!(seen, [1 << 20, length.min(2 << 20)]);
}
