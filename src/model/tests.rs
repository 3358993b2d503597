use super::gguf::writer::GgufWriter;
use super::gguf::{GgufArray, GgufFile, GgufValue, ReadOptions, TensorType};
use super::*;

const F32: TensorType = TensorType::F32;

/// A complete model of two layers, small enough to be written in a test.
fn tiny() -> GgufWriter {
    let mut writer = GgufWriter::default()
        .string("general.architecture", "llama")
        .string("general.name", "Tiny")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 128)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 64)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .entry(
            "llama.attention.layer_norm_rms_epsilon",
            GgufValue::F32(1e-5),
        )
        .string("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", ["a", "b", "ab", "<end>"])
        .entry(
            "tokenizer.ggml.token_type",
            GgufValue::Array(GgufArray::I32(vec![1, 1, 1, 3])),
        )
        .strings("tokenizer.ggml.merges", ["a b"])
        .u32("tokenizer.ggml.eos_token_id", 3)
        .tensor("token_embd.weight", &[32, 4], TensorType::F16, vec![])
        .tensor("output_norm.weight", &[32], F32, vec![]);
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        writer = writer
            .tensor(&name("attn_norm"), &[32], F32, vec![])
            .tensor(&name("ffn_norm"), &[32], F32, vec![])
            .tensor(&name("attn_q"), &[32, 32], TensorType::F16, vec![])
            .tensor(&name("attn_k"), &[32, 16], TensorType::F16, vec![])
            .tensor(&name("attn_v"), &[32, 16], TensorType::F16, vec![])
            .tensor(&name("attn_output"), &[32, 32], TensorType::F16, vec![])
            .tensor(&name("ffn_gate"), &[32, 64], TensorType::F16, vec![])
            .tensor(&name("ffn_up"), &[32, 64], TensorType::F16, vec![])
            .tensor(&name("ffn_down"), &[64, 32], TensorType::F16, vec![]);
    }
    writer
}

fn checked(writer: &GgufWriter) -> Result<ModelFacts, ModelError> {
    let bytes = writer.bytes();
    check(&GgufFile::parse(&bytes[..], bytes.len() as u64).unwrap())
}

fn refused(writer: &GgufWriter) -> String {
    checked(writer).unwrap_err().to_string()
}

#[test]
fn facts_come_from_the_header() {
    let facts = checked(&tiny()).unwrap();
    assert_eq!(facts.name, "Tiny");
    assert_eq!((facts.layers, facts.heads, facts.kv_heads), (2, 4, 2));
    assert_eq!((facts.head_length, facts.vocabulary), (8, 4));
    assert!(facts.tied_embeddings);
    assert_eq!(facts.kv_bytes_per_token(), 2 * 2 * 2 * 2 * 8);
    assert_eq!(
        facts.parameters() * 2,
        facts.file_bytes() - facts.norm_parameters() * 2
    );
}

#[test]
fn facts_need_no_vocabulary_but_the_check_does() {
    let bytes = tiny().bytes();
    let options = ReadOptions {
        keep_arrays_up_to: 0,
    };
    let file = GgufFile::parse_with(&bytes[..], bytes.len() as u64, options).unwrap();
    assert_eq!(ModelFacts::from_gguf(&file).unwrap().vocabulary, 4);
    assert!(
        check(&file)
            .unwrap_err()
            .to_string()
            .contains("tokenizer.ggml.tokens")
    );
}

#[test]
fn another_architecture_is_named_with_what_is_supported() {
    let error = refused(&GgufWriter::default().string("general.architecture", "mamba"));
    assert!(
        error.contains("`mamba`") && error.contains("qwen3"),
        "{error}"
    );
}

#[test]
fn what_would_change_the_network_is_refused() {
    let error = refused(&tiny().u32("llama.expert_count", 8));
    assert!(error.contains("llama.expert_count"), "{error}");
    let error = refused(&tiny().u32("split.count", 3));
    assert!(error.contains("llama-gguf-split"), "{error}");
    let error = refused(&tiny().tensor("blk.0.ffn_gate_inp.weight", &[32, 8], F32, vec![]));
    assert!(error.contains("blk.0.ffn_gate_inp.weight"), "{error}");
    let error = refused(&tiny().string("llama.rope.scaling.type", "magic"));
    assert!(error.contains("yarn"), "{error}");
}

#[test]
fn contradictions_of_shapes_are_refused() {
    let error = refused(&tiny().u32("llama.vocab_size", 5));
    assert!(error.contains("is 5, but the tokenizer lists 4"), "{error}");
    let error = refused(&tiny().u32("llama.rope.dimension_count", 4));
    assert!(error.contains("rope.dimension_count"), "{error}");
    let error = refused(&tiny().tensor("output.weight", &[32, 5], TensorType::F16, vec![]));
    assert!(
        error.contains("[32, 5], the metadata needs [32, 4]"),
        "{error}"
    );
    let error = refused(&tiny().tensor("blk.0.attn_q.bias", &[32], TensorType::F16, vec![]));
    assert!(error.contains("must be F32"), "{error}");
}

#[test]
fn a_vocabulary_that_llama_cpp_would_abort_on_is_refused() {
    let other = |tokens: [&str; 4]| {
        let mut bytes = tiny().bytes();
        let list: GgufWriter = GgufWriter::default().strings("k", tokens);
        let with = |writer: GgufWriter| {
            let bytes = writer.bytes();
            bytes[24 + 8 + 1..].to_vec()
        };
        // The old and the new list have the same length, so they can be exchanged in place.
        let old = GgufWriter::default().strings("k", ["a", "b", "ab", "<end>"]);
        let (old, new) = (with(old), with(list));
        let (old, new) = (&old[..52], &new[..52]);
        let at = bytes
            .windows(old.len())
            .position(|window| window == old)
            .unwrap();
        bytes[at..at + new.len()].copy_from_slice(new);
        let file = GgufFile::parse(&bytes[..], bytes.len() as u64).unwrap();
        check(&file).map_err(|error| error.to_string())
    };
    assert!(other(["a", "b", "ab", "<end>"]).is_ok());
    let error = other(["a", "a", "ab", "<end>"]).unwrap_err();
    assert!(error.contains("\"a\", which is there before"), "{error}");
    let error = other(["a", "\0", "ab", "<end>"]).unwrap_err();
    assert!(error.contains("NUL"), "{error}");
}

#[test]
fn token_ids_and_types_are_checked() {
    let error = refused(&tiny().u32("tokenizer.ggml.bos_token_id", 4));
    assert!(error.contains("is 4, but there are 4 tokens"), "{error}");
    let error = refused(&tiny().entry("tokenizer.chat_template", GgufValue::Bool(true)));
    assert!(error.contains("tokenizer.chat_template"), "{error}");
}
