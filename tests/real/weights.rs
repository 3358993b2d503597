//! Weights read by this program and by the Python packages `gguf` and `safetensors`: the same values
//! to the last bit, on a real model and on generated ones. And hostile files, in a process of their
//! own whose memory is watched.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use enginewright::model::gguf::GgufFile;
use enginewright::network::WeightSource;
use enginewright::weights::Weights;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::tools;

/// Number of elements and digest of each tensor.
type Digests = BTreeMap<String, (usize, String)>;

/// Runs the reference script with a Python that has the packages.
fn formats(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/formats.py");
    let output = Command::new(tools::formats_python())
        .arg(script)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn referenced(listing: &str) -> Digests {
    listing
        .lines()
        .map(|line| {
            let [name, elements, digest] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            (
                name.to_owned(),
                (elements.parse().unwrap(), digest.to_owned()),
            )
        })
        .collect()
}

/// What this program reads, in pieces of `rows` rows.
fn ours(weights: &Weights, rows: u64) -> Digests {
    let mut values = Vec::new();
    let digest = |name: &str| {
        let all = weights.tensor(name).unwrap().rows();
        let (mut hash, mut elements) = (Sha256::new(), 0);
        for first in (0..all).step_by(usize::try_from(rows).unwrap()) {
            values.clear();
            let piece = first..all.min(first + rows);
            weights.read_f32(name, piece, &mut values).unwrap();
            elements += values.len();
            for value in &values {
                hash.update(value.to_le_bytes());
            }
        }
        (elements, hex::encode(hash.finalize()))
    };
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let mut digest = digest;
    names
        .into_iter()
        .map(|name| {
            let found = digest(&name);
            (name, found)
        })
        .collect()
}

#[test]
fn a_real_gguf_is_read_as_the_python_package_reads_it_to_the_last_bit() {
    let model = tools::model();
    let reference = referenced(&formats(&["gguf", model.to_str().unwrap()]));
    let weights = Weights::open(&model).unwrap();
    assert_eq!(reference.len(), 272);
    assert_eq!(ours(&weights, 1000), reference);
}

#[test]
fn the_recorded_digests_of_all_encodings_are_what_the_python_package_gives_today() {
    let recorded = include_str!("../fixtures/weights/encodings.json");
    assert_eq!(formats(&["encodings"]), recorded);
}

#[test]
fn safetensors_are_read_as_the_python_package_reads_them_to_the_last_bit() {
    for files in ["1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        formats(&["write", path, files]);
        let weights = Weights::open(folder.path()).unwrap();
        let found = ours(&weights, 7);
        let reference = referenced(&formats(&["safetensors", path]));
        assert_eq!(reference.len(), 21);
        let mut digests: Vec<_> = reference.values().collect();
        let mut own: Vec<_> = found.values().collect();
        digests.sort();
        own.sort();
        assert_eq!(own, digests);
        // Names are compared where they differ most.
        for (hf, gguf) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            (
                "model.layers.1.self_attn.q_proj.weight",
                "blk.1.attn_q.weight",
            ),
            (
                "model.layers.0.mlp.down_proj.weight",
                "blk.0.ffn_down.weight",
            ),
            (
                "model.layers.1.post_attention_layernorm.weight",
                "blk.1.ffn_norm.weight",
            ),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(found[gguf], reference[hf], "{gguf}");
        }
    }
}

const ROLE: &str = "ENGINEWRIGHT_TEST_ROLE";
const FOLDER: &str = "ENGINEWRIGHT_TEST_FOLDER";
const MODEL: &str = "ENGINEWRIGHT_TEST_MODEL";

/// Most bytes that the process may grow by: the header of the real model is 1.8 MB, its metadata is
/// kept once.
const MOST_GROWTH: u64 = 48 << 20;

/// The part of the test below that runs in a process of its own; alone it does nothing.
#[test]
fn mutations_are_opened_here() {
    if std::env::var(ROLE).as_deref() != Ok("mutations") {
        return;
    }
    let folder = std::env::var(FOLDER).unwrap();
    let model = std::env::var(MODEL).unwrap();
    let before = peak();
    let accepted = safetensors_mutations(Path::new(&folder)) + gguf_mutations(Path::new(&model));
    println!("accepted {accepted} growth {}", peak() - before);
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// 500 mutations of the header and of the index; each stays on a file of the same few kilobytes.
fn safetensors_mutations(folder: &Path) -> u32 {
    let names = [
        "model-00001-of-00003.safetensors",
        "model.safetensors.index.json",
        "config.json",
    ];
    let good: Vec<Vec<u8>> = names
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect();
    let mut accepted = 0;
    for seed in 0..500_u64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let which = random.random_range(0..names.len());
        let mut bytes = good[which].clone();
        let end = bytes.len().min(1500);
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..end);
            match random.random_range(0..4) {
                0 => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes[at] = random.random(),
                2 => bytes[at] = b'9',
                // The length of the header, and what follows it.
                _ => bytes[at % 10] = random.random(),
            }
        }
        std::fs::write(folder.join(names[which]), &bytes).unwrap();
        accepted += u32::from(opened(folder));
        std::fs::write(folder.join(names[which]), &good[which]).unwrap();
    }
    accepted
}

/// 500 mutations of the real model's header, in a sparse file as long as the model.
fn gguf_mutations(model: &Path) -> u32 {
    let header = usize::try_from(GgufFile::open(model).unwrap().data_offset()).unwrap();
    let length = std::fs::metadata(model).unwrap().len();
    let mut good = vec![0; header];
    File::open(model)
        .unwrap()
        .read_exact_at(&mut good, 0)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut accepted = 0;
    for seed in 0..500_u64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let file = File::create(&path).unwrap();
        file.write_all_at(&good, 0).unwrap();
        // Half of them in the directory of tensors, which is the last part.
        for _ in 0..random.random_range(1..4) {
            let at = if random.random() {
                random.random_range(0..header)
            } else {
                random.random_range(header - 16_000..header)
            };
            let bytes: [u8; 2] = random.random();
            file.write_all_at(&bytes, at as u64).unwrap();
        }
        file.set_len(if seed % 5 == 0 {
            random.random_range(0..length)
        } else {
            length
        })
        .unwrap();
        accepted += u32::from(opened(&path));
    }
    accepted
}

/// Opens a model and reads a few rows of each tensor: an error, or values.
fn opened(path: &Path) -> bool {
    let Ok(weights) = Weights::open(path) else {
        return false;
    };
    let mut values = Vec::new();
    for name in weights.names() {
        values.clear();
        let rows = weights.tensor(name).unwrap().rows();
        let _error_or_values = weights.read_f32(name, rows - 1..rows, &mut values);
    }
    true
}

#[test]
fn a_thousand_mutations_of_model_files_neither_panic_nor_take_memory() {
    let folder = tempfile::tempdir().unwrap();
    formats(&["write", folder.path().to_str().unwrap(), "3"]);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "weights::mutations_are_opened_here",
            "--nocapture",
        ])
        .env(ROLE, "mutations")
        .env(FOLDER, folder.path())
        .env(MODEL, tools::model())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{problem}");
    let growth: u64 = text
        .split("growth ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("{text}"))
        .parse()
        .unwrap();
    assert!(growth < MOST_GROWTH, "{growth} bytes: {text}");
}
