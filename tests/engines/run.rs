//! `enginewright run` where there is a GPU, as far as that can be seen without one: the engine is built,
//! checked and started, cannot run, and the endpoint goes on from Ollama.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tools::{self, Process, enginewright, free_address};

/// A build takes about a minute beside an Ollama that is starting.
const LIMIT: Duration = Duration::from_mins(6);

fn report(state: &Path) -> Value {
    let bytes = std::fs::read(state.join("status.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn wait_for(
    what: &str,
    process: &mut Process,
    state: &Path,
    check: impl Fn(&Value) -> bool,
) -> Value {
    let start = Instant::now();
    loop {
        let report = report(state);
        if check(&report) {
            return report;
        }
        assert!(
            process.is_running(),
            "ended before {what}: {}",
            process.output()
        );
        assert!(
            start.elapsed() < LIMIT,
            "waited for {what}: {}\n{report:#}",
            process.output()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ready_reason(report: &Value) -> (String, String) {
    let conditions = report
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let word = |field: &str| {
        let value = ready.and_then(|ready| ready[field].as_str());
        value.unwrap_or_default().to_owned()
    };
    (word("reason"), word("message"))
}

#[test]
fn an_engine_is_built_and_where_it_cannot_run_ollama_answers_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (
        folder.path().join("engine.yaml"),
        folder.path().join("state"),
    );
    let yaml = format!(
        "apiVersion: enginewright.dev/v1alpha1\n\
         kind: InferenceEngine\n\
         metadata: {{ name: test }}\n\
         spec:\n\
         \x20 model: {{ source: \"file://{}\", servedName: smollm2 }}\n\
         \x20 engine: {{ maxInputTokens: 256, maxOutputTokens: 64, slots: 1, precision: Fp16 }}\n\
         \x20 fallback: {{ order: [Ollama], residency: Warm }}\n\
         \x20 rollout: {{ retryLimit: 0, backoff: {{ initial: 100ms, max: 1s }}, drainTimeout: 5s }}\n",
        tools::model().display()
    );
    std::fs::write(&file, yaml).unwrap();
    let hardware =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hardware/agx-orin-64.yaml");
    let address = free_address();
    let mut command = enginewright(["run", "--listen", &address.to_string()]);
    command
        .arg("--file")
        .arg(&file)
        .arg("--state-dir")
        .arg(&state);
    command.arg("--ollama").arg(tools::ollama());
    command.arg("--shim").arg(tools::tensorrt());
    command.arg("--hardware").arg(hardware);
    let mut process = Process::start(command);
    wait_for("the build", &mut process, &state, |report| {
        ready_reason(report).0 == "BuildingEngine"
    });
    let report = wait_for("the engine's failure", &mut process, &state, |report| {
        ready_reason(report).0 == "RetryLimitReached"
    });
    let (_, message) = ready_reason(&report);
    assert!(
        message.contains("StartFailed") && message.contains("CUDA"),
        "{message}"
    );
    let report = wait_for("Ollama", &mut process, &state, |report| {
        report
            .pointer("/status/activeBackend")
            .is_some_and(|backend| backend == "Ollama")
    });
    let revision = report
        .pointer("/status/desiredRevision")
        .and_then(Value::as_str);
    let engines = state
        .join("revisions")
        .join(revision.unwrap())
        .join("engine");
    // Beside the bundle lies the lock of its build.
    let mut entries = std::fs::read_dir(engines).unwrap().flatten();
    let bundle = entries.find(|entry| entry.path().join("manifest.json").exists());
    let output = enginewright(["engine", "inspect"])
        .arg(bundle.unwrap().path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
