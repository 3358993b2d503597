//! The samples are right: they fit the types, the rules, and say what their comments say.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use enginewright::api::{FilePath, InferenceEngine, Ollama, RuntimeServer, ValidatedEngine, parse};
use serde_json::Value;

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn sample(name: &str) -> ValidatedEngine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/samples")
        .join(name);
    parse(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_sample_is_valid() {
    let files = samples();
    assert!(files.len() >= 15);
    for file in files {
        let result = parse(&fs::read_to_string(&file).unwrap());
        assert!(result.is_ok(), "{}: {:#?}", file.display(), result.err());
    }
}

#[test]
fn the_small_sample_serves_the_model_of_the_tools_directory_on_the_cpu() {
    let engine = sample("smollm2.yaml");
    let Some(path @ FilePath::Relative(_)) = engine.model.source.file() else {
        panic!("{:?}", engine.model.source);
    };
    let path = path.resolve(Path::new("manifests/samples"));
    assert!(path.ends_with(".tools/models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    assert!(matches!(
        engine.fallback.ollama,
        Some(Ollama::Managed { import: true, .. })
    ));
    assert_eq!(engine.runtime.server, RuntimeServer::Native);
    assert_eq!(engine.engine.context_tokens(), 2048);
}

#[test]
fn the_smallest_sample_keeps_the_name_that_clients_of_ollama_use() {
    let engine = sample("hermes3.yaml");
    assert_eq!(engine.served_name, "hermes3:8b-llama3.1-q4_K_M");
    let ollama = engine.fallback.ollama.unwrap();
    assert_eq!(ollama.model(), "hermes3:8b-llama3.1-q4_K_M");
    assert!(matches!(ollama, Ollama::Managed { import: false, .. }));
}

#[test]
fn the_full_sample_writes_every_field_that_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples/full.yaml");
    let written: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let crd = enginewright::api::all_crds().remove(0);
    let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
    let mut missing = Vec::new();
    unwritten(
        &schema["openAPIV3Schema"]["properties"]["spec"],
        &written["spec"],
        "spec",
        &mut missing,
    );
    // An address excludes the image of a managed Ollama: no resource can write both sensibly.
    assert_eq!(missing, ["spec.fallback.ollama.address"]);
}

/// Fields of the schema that the document does not write.
fn unwritten(schema: &Value, written: &Value, path: &str, missing: &mut Vec<String>) {
    if written.is_null() {
        missing.push(path.to_owned());
        return;
    }
    let schema = schema.get("items").unwrap_or(schema);
    let written = written.get(0).unwrap_or(written);
    for (name, inside) in schema["properties"].as_object().into_iter().flatten() {
        unwritten(inside, &written[name], &format!("{path}.{name}"), missing);
    }
}

#[test]
fn a_sample_written_back_by_its_types_is_the_same_resource() {
    for file in samples() {
        let text = fs::read_to_string(&file).unwrap();
        let first: InferenceEngine = serde_saphyr::from_str(&text).unwrap();
        let json = serde_json::to_string(&first).unwrap();
        let second: InferenceEngine = serde_json::from_str(&json).unwrap();
        assert_eq!(first, second);
        assert_eq!(parse(&text).unwrap(), parse(&json).unwrap());
    }
}
