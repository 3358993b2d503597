use super::writer::GgufWriter;
use super::*;

fn parse(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    GgufFile::parse(bytes, bytes.len() as u64)
}

fn small() -> GgufWriter {
    GgufWriter::default()
        .string("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .entry("llama.rope.freq_base", GgufValue::F32(10_000.0))
        .entry("tokenizer.ggml.add_bos_token", GgufValue::Bool(true))
        .entry("general.big", GgufValue::U64(1 << 40))
        .entry("general.negative", GgufValue::I32(-1))
        .strings("tokenizer.ggml.tokens", ["a", "", "日本"])
        .entry(
            "tokenizer.ggml.token_type",
            GgufValue::Array(GgufArray::I32(vec![1, 3, -1])),
        )
        .tensor("token_embd.weight", &[32, 3], TensorType::F16, vec![])
        .tensor("output_norm.weight", &[32], TensorType::F32, vec![])
}

#[test]
fn what_was_written_is_read_back() {
    let bytes = small().bytes();
    let file = parse(&bytes).unwrap();
    assert_eq!(file.str("general.architecture"), Some("llama"));
    assert_eq!(file.u32("llama.block_count"), Some(2));
    assert_eq!(file.u32("general.big"), None);
    assert_eq!(file.u64("general.big"), Some(1 << 40));
    assert_eq!(file.u64("general.negative"), None);
    assert_eq!(file.f32("llama.rope.freq_base"), Some(10_000.0));
    assert_eq!(file.bool("tokenizer.ggml.add_bos_token"), Some(true));
    let tokens: Vec<&str> = file
        .strings("tokenizer.ggml.tokens")
        .unwrap()
        .iter()
        .collect();
    assert_eq!(tokens, ["a", "", "日本"]);
    assert_eq!(
        file.i32s("tokenizer.ggml.token_type"),
        Some(&[1, 3, -1][..])
    );
    assert_eq!(file.tensors().len(), 2);
    let norm = file.tensor("output_norm.weight").unwrap();
    assert_eq!((norm.elements(), norm.bytes), (32, 128));
    assert_eq!(norm.offset, file.data_offset() + 192);
    assert_eq!(norm.offset + norm.bytes, bytes.len() as u64);
}

#[test]
fn arrays_beyond_the_option_are_checked_but_not_kept() {
    let bytes = small().bytes();
    let options = ReadOptions {
        keep_arrays_up_to: 2,
    };
    let file = GgufFile::parse_with(&bytes[..], bytes.len() as u64, options).unwrap();
    assert_eq!(file.strings("tokenizer.ggml.tokens"), None);
    assert_eq!(
        file.get("tokenizer.ggml.tokens"),
        Some(&GgufValue::Array(GgufArray::Skipped { elements: 3 }))
    );
    assert_eq!(file.tensors().len(), 2);
}

#[test]
fn every_truncation_is_an_error_that_says_where() {
    let bytes = small().bytes();
    for length in 0..bytes.len() {
        match parse(&bytes[..length]) {
            Err(GgufError::Truncated {
                offset,
                needed,
                remaining,
                ..
            }) => assert!(remaining < needed && offset <= bytes.len() as u64),
            other => panic!("{length} bytes: {other:?}"),
        }
    }
}

#[test]
fn a_file_of_another_kind_is_named_as_such() {
    let error = parse(b"PK\x03\x04 and so on").unwrap_err().to_string();
    assert!(
        error.contains("not a GGUF file") && error.contains("PK"),
        "{error}"
    );
    let error = parse(b"GGUF\0\0\0\x03").unwrap_err().to_string();
    assert!(error.contains("big-endian"), "{error}");
    let error = parse(b"GGUF\x01\0\0\0").unwrap_err().to_string();
    assert!(error.contains("version 1"), "{error}");
}

#[test]
fn a_lying_count_is_refused_before_anything_is_allocated() {
    for (at, field) in [(8, "number of tensors"), (16, "number of metadata entries")] {
        for lie in [u64::MAX, 1 << 63, 1 << 40, 60_000] {
            let mut bytes = small().bytes();
            bytes[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            let error = parse(&bytes).unwrap_err().to_string();
            assert!(error.contains(field), "{lie}: {error}");
        }
    }
}

#[test]
fn a_lying_count_ends_soon_even_when_the_file_is_endless() {
    // A sparse file of 8 EiB costs an attacker nothing.
    let mut bytes = small().bytes();
    let at = bytes
        .windows(8)
        .position(|window| window == b"\x04\0\0\0\x02\0\0\0")
        .unwrap();
    bytes.truncate(at);
    bytes.extend(9_u32.to_le_bytes());
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend((MAX_ARRAY_ELEMENTS).to_le_bytes());
    let endless = std::io::Read::chain(&bytes[..], std::io::repeat(0));
    let error = GgufFile::parse(endless, u64::MAX / 2)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("limit is") && error.contains("llama.block_count"),
        "{error}"
    );
}

#[test]
fn damaged_fields_are_named() {
    let one = |writer: GgufWriter| parse(&writer.bytes()).unwrap_err().to_string();
    let error = one(small().u32("llama.block_count", 3));
    assert!(
        error.contains("`llama.block_count`, which was there before"),
        "{error}"
    );
    let error = one(small().tensor("output_norm.weight", &[32], TensorType::F32, vec![]));
    assert!(
        error.contains("`output_norm.weight`, which was there before"),
        "{error}"
    );
    let error = one(small().u32("general.alignment", 24));
    assert!(error.contains("power of two"), "{error}");
    let error = one(small().tensor("q", &[33], TensorType::from_name("Q4_K").unwrap(), vec![1]));
    assert!(error.contains("multiple of 256"), "{error}");
    let error = one(small().tensor("q", &[1 << 40, 1 << 40], TensorType::F32, vec![1]));
    assert!(error.contains("below 2^63"), "{error}");
    let error = one(small().tensor("q", &[32, 0], TensorType::F32, vec![1]));
    assert!(
        error.contains("every dimension must be positive"),
        "{error}"
    );
    let error = one(small().tensor("q", &[1; 5], TensorType::F32, vec![1]));
    assert!(error.contains("not 1 to 4"), "{error}");
    let error = one(small().tensor("q", &[1 << 20], TensorType::F32, vec![1]));
    assert!(
        error.contains("data of tensor `q`") && error.contains("4194304"),
        "{error}"
    );
    let error = one(small().tensor("a\0b", &[1], TensorType::F32, vec![]));
    assert!(error.contains("control characters"), "{error}");
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let writer = small();
    let mut bytes = writer.bytes();
    let directory = bytes
        .windows(18)
        .position(|w| w == b"output_norm.weight")
        .unwrap();
    let offset_at = directory + 18 + 4 + 8 + 4;
    bytes[offset_at..offset_at + 8].copy_from_slice(&0_u64.to_le_bytes());
    let error = parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("overlaps"), "{error}");
    bytes[offset_at..offset_at + 8].copy_from_slice(&(u64::MAX - 31).to_le_bytes());
    let error = parse(&bytes).unwrap_err().to_string();
    assert!(
        error.contains("data of tensor `output_norm.weight`"),
        "{error}"
    );
}

#[test]
fn a_directory_is_not_a_model() {
    let error = GgufFile::open(Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}
