use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::engine::{Format, KeyInputs};
use crate::hardware::{Platform, Sm};

pub(crate) fn manifest(files: BTreeMap<String, FileFacts>) -> Manifest {
    let inputs = KeyInputs {
        model_digest: "ab".repeat(32),
        builder_version: "1".into(),
        format: Format::Fp16,
        group: 0,
        slots: 4,
        max_input_tokens: 1024,
        max_output_tokens: 256,
        chunk: 512,
        tensorrt: "10.3.0.26".into(),
        sm: Sm::new(8, 7),
        platform: Platform::L4t,
    };
    Manifest {
        schema: SCHEMA,
        key: inputs.key(),
        inputs,
        files,
        built: Built {
            by: "enginewright 0.1.0".into(),
            tensorrt: "TensorRT 10.3.0.26".into(),
            machine: "test".into(),
            on_gpu: false,
            seconds: 1.25,
            peak_memory: 1,
            at: 0,
        },
        engine: EngineFacts {
            model: "tiny".into(),
            attention: "split".into(),
            weight_bytes: 10,
            operations: BTreeMap::from([("matMul".into(), 3)]),
            layers: 3,
            ports: vec![],
            profiles: vec![],
        },
        measured: None,
        digest: String::new(),
    }
}

fn draft(parent: &Path, plan: &[u8]) -> Draft {
    let mut draft = Draft::begin(parent).unwrap();
    for (name, bytes) in [
        (PLAN, plan),
        (TOKENIZER, b"{\"vocabulary\":[]}".as_slice()),
        (TEMPLATE, b"{{ messages }}"),
        (CONFIG, b"{}"),
    ] {
        let write = |file: &mut HashedFile| {
            file.write_all(bytes).unwrap();
            Ok::<(), BundleError>(())
        };
        draft.file(name, write).unwrap();
    }
    draft
}

fn bundle(parent: &Path, plan: &[u8]) -> Bundle {
    let draft = draft(parent, plan);
    let manifest = manifest(draft.files().clone());
    draft.publish(&manifest, &parent.join("bundle")).unwrap()
}

fn whole(path: &Path) -> Result<(), BundleError> {
    Bundle::open(path)?.verify(&mut |_, _| {})
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_whole_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle(folder.path(), b"the plan");
    let mut last = (0, 0);
    written
        .verify(&mut |done, total| last = (done, total))
        .unwrap();
    assert_eq!(last.0, last.1);
    assert_eq!(last.1, 8 + 17 + 14 + 2);
    assert_eq!(names(folder.path()), ["bundle"]);
    let again = Bundle::open(written.path()).unwrap();
    assert_eq!(again.manifest().digest.len(), 64);
    assert_eq!(again.manifest(), written.manifest());
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    drop(draft(folder.path(), b"x"));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_bundle_that_is_there_is_replaced_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    bundle(folder.path(), b"old");
    let new = bundle(folder.path(), b"new plan");
    whole(new.path()).unwrap();
    assert_eq!(std::fs::read(new.file(PLAN)).unwrap(), b"new plan");
    assert_eq!(names(folder.path()), ["bundle"]);
}

#[test]
fn every_flipped_bit_of_every_byte_of_every_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle(folder.path(), b"0123456789abcdef");
    for name in FILES.into_iter().chain([MANIFEST]) {
        let path = written.file(name);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                std::fs::write(&path, &bad).unwrap();
                let found = whole(written.path());
                assert!(
                    found.is_err(),
                    "bit {bit} of byte {at} of {name} was not noticed"
                );
            }
        }
        std::fs::write(&path, &good).unwrap();
    }
    whole(written.path()).unwrap();
}

#[test]
fn a_truncated_missing_or_additional_file_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle(folder.path(), b"0123456789");
    for name in FILES {
        let path = written.file(name);
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            let error = whole(written.path()).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("build or fetch"),
                "{error}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        let error = whole(written.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name} is missing")), "{error}");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        let error = whole(written.path()).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &good).unwrap();
    }
    std::fs::write(written.file("libevil.so"), "").unwrap();
    let error = whole(written.path()).unwrap_err().to_string();
    assert!(error.contains("libevil.so is not part"), "{error}");
}

#[test]
fn a_signature_beside_the_manifest_is_no_foreign_file() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle(folder.path(), b"x");
    std::fs::write(written.file(SIGNATURE), "later").unwrap();
    whole(written.path()).unwrap();
}

#[test]
fn a_newer_schema_is_an_error_that_says_what_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let written = bundle(folder.path(), b"x");
    std::fs::write(written.file(MANIFEST), "{\"schema\": 2, \"unheard\": [1]}").unwrap();
    let error = Bundle::open(written.path()).unwrap_err();
    assert!(
        matches!(error, BundleError::Newer { found: 2, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("version of enginewright"),
        "{error}"
    );
}

#[test]
fn a_directory_without_a_manifest_is_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let error = Bundle::open(&path).unwrap_err();
        assert!(matches!(error, BundleError::NotABundle { .. }), "{error}");
    }
}

#[test]
fn a_manifest_whose_key_is_not_that_of_its_inputs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let draft = draft(folder.path(), b"x");
    let mut forged = manifest(draft.files().clone());
    forged.inputs.slots += 1;
    let error = draft
        .publish(&forged, &folder.path().join("bundle"))
        .unwrap_err();
    assert!(
        error.to_string().contains("not the hash of its inputs"),
        "{error}"
    );
}

#[test]
fn a_file_that_no_bundle_has_cannot_be_listed() {
    let folder = tempfile::tempdir().unwrap();
    let draft = draft(folder.path(), b"x");
    let mut files = draft.files().clone();
    let facts = files.remove(CONFIG).unwrap();
    files.insert("../config.json".into(), facts);
    let error = draft
        .publish(&manifest(files), &folder.path().join("bundle"))
        .unwrap_err();
    assert!(error.to_string().contains("lists"), "{error}");
}
