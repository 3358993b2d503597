use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;

/// What the Python package `gguf` makes of the same blocks; recorded by `scripts/formats.py`.
const REFERENCES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/weights/encodings.json"
));
/// Blocks of each encoding, as in the script.
const BLOCKS: usize = 257;

#[derive(Deserialize)]
struct Reference {
    seed: u64,
    first: Vec<f32>,
    digest: String,
}

/// xorshift64, the lowest byte of each state: as in the script.
fn random_bytes(count: usize, mut state: u64) -> Vec<u8> {
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..count).map(next).collect()
}

/// Random blocks whose numbers are finite: the upper bit of each exponent is cleared.
fn random_blocks(encoding: Encoding, seed: u64) -> Vec<u8> {
    let exponents: &[usize] = match encoding {
        Encoding::F32 => &[3],
        Encoding::F16 | Encoding::BF16 | Encoding::Q4_0 | Encoding::Q5_0 | Encoding::Q8_0 => &[1],
        Encoding::Q4_1 | Encoding::Q5_1 | Encoding::Q4_K | Encoding::Q5_K => &[1, 3],
        Encoding::Q2_K => &[81, 83],
        Encoding::Q3_K => &[109],
        Encoding::Q6_K => &[209],
    };
    let mut bytes = random_bytes(encoding.block_bytes() * BLOCKS, seed);
    for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
        for &at in exponents {
            block[at] &= 0xBF;
        }
    }
    bytes
}

#[test]
fn every_encoding_is_decoded_as_the_python_package_decodes_it_to_the_last_bit() {
    let references: std::collections::BTreeMap<String, Reference> =
        serde_json::from_str(REFERENCES).unwrap();
    assert_eq!(references.len(), Encoding::ALL.len());
    for encoding in Encoding::ALL {
        let reference = &references[encoding.name()];
        let blocks = random_blocks(encoding, reference.seed);
        let mut values = vec![f32::NAN; BLOCKS * encoding.block_elements()];
        encoding.decode(&blocks, &mut values);
        assert_eq!(values[..4], reference.first, "{}", encoding.name());
        let mut hash = Sha256::new();
        for value in &values {
            hash.update(value.to_le_bytes());
        }
        let digest = hex::encode(hash.finalize());
        assert_eq!(digest, reference.digest, "{}", encoding.name());
    }
}

#[test]
fn sizes_are_those_of_the_format() {
    for encoding in Encoding::ALL {
        let kind = TensorType::from_name(encoding.name()).unwrap();
        assert_eq!(Encoding::of(kind), Some(encoding));
        assert_eq!(kind.block_bytes(), encoding.block_bytes() as u64, "{kind}");
        assert_eq!(
            kind.block_elements(),
            encoding.block_elements() as u64,
            "{kind}"
        );
    }
}

#[test]
fn an_encoding_that_is_not_read_is_none() {
    for name in ["IQ2_XXS", "MXFP4", "I32", "F64", "TQ1_0"] {
        let kind = TensorType::from_name(name).unwrap();
        assert_eq!(Encoding::of(kind), None, "{name}");
    }
}

#[test]
fn a_part_of_a_block_is_left_alone() {
    let mut out = [7.0; 40];
    Encoding::Q8_0.decode(&[1; 34 + 33], &mut out);
    assert!(out[..32].iter().all(|&value| value != 7.0));
    assert!(out[32..].iter().all(|&value| value == 7.0));
}
