//! `enginewright plan` as a user calls it: text, JSON and exit codes, on recorded machines.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use enginewright::hardware::Hardware;
use serde_json::Value;

const HERMES: &str = "ollama://hermes3:8b-llama3.1-q4_K_M";
const MACHINES: [&str; 6] = [
    "orin-nano-8",
    "orin-nx-8",
    "orin-nx-16",
    "agx-orin-32",
    "agx-orin-64",
    "thor",
];

fn fixture(machine: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/hardware")
        .join(machine)
        .with_extension("yaml")
}

/// A resource in a folder of its own.
struct Spec {
    folder: tempfile::TempDir,
}

impl Spec {
    fn new(source: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = format!(
            "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\nmetadata: {{ name: \
             demo }}\nspec:\n  model: {{ source: \"{source}\" }}\n{rest}"
        );
        std::fs::write(folder.path().join("engine.yaml"), yaml).unwrap();
        Self { folder }
    }

    fn plan(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_enginewright"))
            .arg("plan")
            .arg("-f")
            .arg(self.folder.path().join("engine.yaml"))
            .args(arguments)
            // No Ollama store of the machine that runs the tests.
            .env("HOME", self.folder.path())
            .env_remove("OLLAMA_MODELS")
            .output()
            .unwrap()
    }

    fn plan_on(&self, machine: &str) -> (i32, Value) {
        let fixture = fixture(machine);
        let output = self.plan(&["--hardware", fixture.to_str().unwrap(), "-o", "json"]);
        let code = output.status.code().unwrap();
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        (code, json)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat())
        .into_owned()
}

fn precision(precision: &str) -> Spec {
    Spec::new(HERMES, &format!("  engine: {{ precision: {precision} }}\n"))
}

#[test]
fn hermes_3_in_fp16_on_an_nx_16_is_refused_with_the_numbers_and_exit_code_2() {
    let spec = precision("Fp16");
    let machine = fixture("orin-nx-16");
    let output = spec.plan(&["--hardware", machine.to_str().unwrap()]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in [
        "Jetson Orin NX 16GB, SM 8.7, JetPack 6.2 (L4T 36.4.3)",
        "cannot work:",
        "FP16 needs 16.87 GiB (weights 14.96 GiB, KV cache 1.00 GiB",
        "12.88 GiB of 15.29 GiB are left: 3.99 GiB too much",
        "INT8 and INT4 would fit: set engine.precision to Auto",
        "no FP8 (needs 8.9)",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn hermes_3_in_int4_on_an_nx_16_is_feasible_with_exit_code_0() {
    let (code, plan) = precision("Int4").plan_on("orin-nx-16");
    assert_eq!((code, &plan["feasible"]), (0, &Value::Bool(true)));
    assert_eq!(plan["fit"]["chosen"], "Int4");
    assert_eq!(plan["serves"][1]["who"], "a TensorRT engine in INT4");
    let notes = plan["notes"].to_string();
    assert!(notes.contains("libenginewright_trt.so"), "{notes}");
    assert!(plan["engineKey"].is_null());
    assert!(
        plan["keyNeeds"][0].as_str().unwrap().contains("digest"),
        "{plan:#}"
    );
}

#[test]
fn the_key_is_told_when_everything_in_it_is_known() {
    let with_digest = |digit: &str, machine: &str| {
        let digest = digit.repeat(64);
        let source = "https://models.example.com/Hermes-3-Llama-3.1-8B.Q4_K_M.gguf";
        let spec = Spec::new(source, "");
        let path = spec.folder.path().join("engine.yaml");
        let yaml = std::fs::read_to_string(&path).unwrap();
        let yaml = yaml.replace("gguf\" }", &format!("gguf\", sha256: \"{digest}\" }}"));
        std::fs::write(path, yaml).unwrap();
        spec.plan_on(machine).1["engineKey"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let key = with_digest("a", "orin-nx-16");
    assert_eq!(key.len(), 64);
    assert_eq!(key, with_digest("a", "orin-nx-16"));
    assert_ne!(key, with_digest("b", "orin-nx-16"));
    assert_ne!(key, with_digest("a", "agx-orin-64"));
}

#[test]
fn every_recorded_machine_is_known_and_survives_being_printed_and_read_again() {
    for machine in MACHINES {
        let (_, plan) = precision("Auto").plan_on(machine);
        let printed = serde_json::to_string(&plan["hardware"]).unwrap();
        let read: Hardware = serde_saphyr::from_str(&printed).unwrap();
        let recorded = std::fs::read_to_string(fixture(machine)).unwrap();
        let recorded: Hardware = serde_saphyr::from_str(&recorded).unwrap();
        assert_eq!(read, recorded, "{machine}");
        assert!(
            read.sm().is_some() && read.gpu_bandwidth().is_some(),
            "{machine}"
        );
        let summary = read.summary();
        assert!(summary.contains("JetPack"), "{machine}: {summary}");
    }
}

#[test]
fn which_machines_can_serve_hermes_3_is_what_the_documentation_says() {
    let codes = MACHINES.map(|machine| precision("Auto").plan_on(machine).0);
    assert_eq!(codes, [2, 2, 0, 0, 0, 0]);
}

#[test]
fn every_mistake_in_the_resource_is_listed_with_exit_code_1() {
    let rest = "  engine: { precision: Fp8, slots: 0 }\n  colour: red\n";
    let output = Spec::new(HERMES, rest).plan(&[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "spec.engine.precision",
        "Int4",
        "spec.engine.slots",
        "spec.colour",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_missing_or_damaged_model_file_is_exit_code_1_and_named() {
    let spec = Spec::new("file://./model.gguf", "");
    let output = spec.plan(&[]);
    let missing = text(&output);
    assert_eq!(output.status.code(), Some(1), "{missing}");
    assert!(
        missing.contains("model.gguf") && missing.contains("No such file"),
        "{missing}"
    );
    for (content, expected) in [
        (&b""[..], "the magic number"),
        (b"PK\x03\x04zip", "not a GGUF file"),
        (
            b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
            "number of tensors",
        ),
    ] {
        std::fs::write(spec.folder.path().join("model.gguf"), content).unwrap();
        let output = spec.plan(&[]);
        let damaged = text(&output);
        assert_eq!(output.status.code(), Some(1), "{damaged}");
        assert!(
            damaged.contains(expected),
            "{expected} is not in:\n{damaged}"
        );
    }
}

#[test]
fn a_wrong_hardware_file_is_exit_code_1_and_named() {
    let spec = Spec::new(HERMES, "");
    let path = spec.folder.path().join("machine.yaml");
    for content in [
        "machine: 3\n",
        "nonsense: true\n",
        "{",
        "memory: { total: lots }\n",
    ] {
        std::fs::write(&path, content).unwrap();
        let output = spec.plan(&["--hardware", path.to_str().unwrap()]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{content}: {}",
            text(&output)
        );
        assert!(text(&output).contains("machine.yaml"), "{}", text(&output));
    }
}

#[test]
fn this_machine_is_probed_when_none_is_given() {
    let output = Spec::new(HERMES, "  engine: { policy: Never }\n").plan(&["-o", "json"]);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        plan["hardware"]["memory"]["total"].as_u64().unwrap() > 0,
        "{plan:#}"
    );
    assert!(
        plan["hardware"]["cpu"]["cores"].as_u64().unwrap() > 0,
        "{plan:#}"
    );
}

#[test]
fn an_unknown_model_is_not_guessed() {
    let (code, plan) = Spec::new("ollama://brand-new:9b", "").plan_on("orin-nx-16");
    assert_eq!(code, 0);
    assert!(plan["fit"].is_null());
    let notes = plan["notes"].to_string();
    assert!(notes.contains("not known before it is fetched"), "{notes}");
}
