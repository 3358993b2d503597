//! Bad revisions: each is found, told with its reason, and never costs a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use enginewright::model::gguf::GgufFile;
use rustix::process::Signal;
use serde_json::Value;

use super::support::{ALONE, LIMIT, Run, Setup, body, text, yaml};
use crate::tools::{model, signal_pid};

/// A client that asks a few times a second, and what became of it. Without a pause two engines on two
/// cores would wait for each other more than they compute.
struct Client {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Client {
    fn start(run: &Run) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU32::new(0));
        let (client, url) = (run.client.clone(), run.url("/v1/chat/completions"));
        let (done, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let sent = client
                    .post(&url)
                    .json(&body("Say hello.", 4, false))
                    .timeout(LIMIT)
                    .send()
                    .await;
                match sent {
                    Ok(response) if response.status().is_success() => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(response) => failures.push(response.text().await.unwrap_or_default()),
                    Err(error) => failures.push(format!("{error:?}")),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            failures
        });
        Self { stop, asked, task }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await.unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        assert!(self.asked.load(Ordering::Relaxed) > 0);
    }
}

/// A copy of the real model whose last normalisation is all zeros: every logit is zero, so that the
/// most probable token is number 0, which ends the answer.
fn says_nothing(folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(model()).unwrap();
    let file = GgufFile::open(&model()).unwrap();
    let tensor = file.tensor("output_norm.weight").unwrap();
    let start = usize::try_from(tensor.offset).unwrap();
    let length = usize::try_from(tensor.elements() * 4).unwrap();
    bytes[start..start + length].fill(0);
    let path = folder.join("mute.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A copy of the real model that claims another architecture.
fn of_another_architecture(folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(model()).unwrap();
    let key = b"general.architecture";
    let at = bytes
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    // Behind the key: type (4 bytes), length (8 bytes), then the word.
    let word = at + key.len() + 12;
    assert_eq!(&bytes[word..word + 5], b"llama");
    bytes[word..word + 5].copy_from_slice(b"mamba");
    let path = folder.join("mamba.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn failure(report: &Value, revision: &str) -> Option<Value> {
    report
        .pointer("/status/failedRevisions")?
        .as_array()?
        .iter()
        .find(|one| text(one, "/revision") == revision)
        .cloned()
}

/// Writes `bad`, waits for its failure, and checks that the good one serves on.
async fn expect_failure(run: &mut Run, good: &str, bad: &str, reason: &str, says: &str) {
    run.setup.write(bad);
    let report = run
        .wait_for(&format!("{reason} of a bad revision"), |report| {
            let desired = text(report, "/status/desiredRevision");
            desired != good
                && failure(report, &desired).is_some_and(|one| text(&one, "/reason") == reason)
                && text(report, "/status/activeBackend") == "LastGood"
        })
        .await;
    let desired = text(&report, "/status/desiredRevision");
    let message = text(&failure(&report, &desired).unwrap(), "/message");
    assert!(message.contains(says), "{says:?} in {message:?}");
    assert_eq!(text(&report, "/status/activeRevision"), good);
    assert_eq!(text(&report, "/status/lastGoodRevision"), good);
    let ready = super::support::condition(&report, "Ready").unwrap();
    assert_eq!(text(&ready, "/status"), "False");
    let chat = run.chat("Say hello.", 4).await.unwrap();
    assert_eq!((chat.status, chat.backend.as_str()), (200, "LastGood"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_revisions_are_rolled_back_with_their_reason_and_cost_no_request() {
    let mut run = Setup::new(ALONE).start();
    let report = run.wait_for_condition("Ready", "True", "").await;
    let good = text(&report, "/status/activeRevision");
    let client = Client::start(&run);
    let folder = run.setup.folder.path().to_owned();

    let missing = folder.join("missing.gguf");
    expect_failure(
        &mut run,
        &good,
        &yaml(&missing, ALONE),
        "ModelNotFound",
        "missing.gguf",
    )
    .await;
    let text_file = folder.join("notes.gguf");
    std::fs::write(&text_file, "no model at all").unwrap();
    expect_failure(
        &mut run,
        &good,
        &yaml(&text_file, ALONE),
        "ModelInvalid",
        "notes.gguf",
    )
    .await;
    let foreign = of_another_architecture(&folder);
    expect_failure(
        &mut run,
        &good,
        &yaml(&foreign, ALONE),
        "ModelUnsupported",
        "mamba",
    )
    .await;
    let mute = says_nothing(&folder);
    expect_failure(
        &mut run,
        &good,
        &yaml(&mute, ALONE),
        "GenerationFailed",
        "generates nothing",
    )
    .await;
    let slow = format!("{ALONE}\nobjectives: {{ tokensPerSecond: 90000 }}")
        .replace("slots: 2", "slots: 3");
    expect_failure(
        &mut run,
        &good,
        &yaml(&model(), &slow),
        "ObjectiveMissed",
        "90000",
    )
    .await;
    let digest = yaml(&model(), ALONE).replace(
        "servedName",
        &format!("sha256: {}, servedName", "0a".repeat(32)),
    );
    expect_failure(
        &mut run,
        &good,
        &digest,
        "ModelDigestMismatch",
        "spec.model.sha256",
    )
    .await;

    // A file that cannot be read as a resource changes nothing at all.
    run.setup.write("spec: [");
    let report = run
        .wait_for("the file's problem", |report| {
            !text(report, "/fileProblem").is_empty()
        })
        .await;
    assert!(text(&report, "/fileProblem").contains("engine.yaml"));

    run.setup.write(&yaml(&model(), ALONE));
    let report = run.wait_for_condition("Ready", "True", "").await;
    assert_eq!(text(&report, "/status/activeRevision"), good);
    assert_eq!(text(&report, "/fileProblem"), "");
    client.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_revision_takes_over_beside_the_old_one_and_costs_no_request() {
    let mut run = Setup::new(ALONE).start();
    let report = run.wait_for_condition("Ready", "True", "").await;
    let old = text(&report, "/status/activeRevision");
    let client = Client::start(&run);
    run.setup
        .write(&yaml(&model(), &ALONE.replace("slots: 2", "slots: 3")));
    let report = run
        .wait_for("the new revision", |report| {
            let active = text(report, "/status/activeRevision");
            !active.is_empty()
                && active != old
                && text(report, "/status/lastGoodRevision") == active
        })
        .await;
    assert_eq!(text(&report, "/status/activeBackend"), "Cpu");
    client.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_under_its_name_is_another_revision_and_the_old_one_is_kept() {
    let mut setup = Setup::new(ALONE);
    let file = setup.folder.path().join("own.gguf");
    std::fs::copy(model(), &file).unwrap();
    setup.write(&yaml(&file, ALONE));
    setup.address = crate::tools::free_address();
    let mut run = setup.start();
    let report = run.wait_for_condition("Ready", "True", "").await;
    let good = text(&report, "/status/activeRevision");
    std::fs::rename(says_nothing(run.setup.folder.path()), &file).unwrap();
    // The YAML file is the same: SIGHUP tells.
    run.process.signal(Signal::HUP);
    run.wait_for("the replaced file to fail", |report| {
        let desired = text(report, "/status/desiredRevision");
        failure(report, &desired).is_some_and(|one| text(&one, "/reason") == "GenerationFailed")
    })
    .await;
    // What was proven can still be started: its file is kept.
    let engine = run.engine_pid().unwrap();
    signal_pid(engine, Signal::KILL);
    run.wait_for("the old one to serve again", |report| {
        text(report, "/status/activeBackend") == "LastGood"
            && text(report, "/status/activeRevision") == good
    })
    .await;
    let chat = run.wait_for_answer().await;
    assert!(!chat.text.is_empty(), "{chat:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_is_found_by_its_generation_and_replaced() {
    let spec = ALONE
        .replace("probeTimeout: 60s", "probeTimeout: 2s, failureThreshold: 2")
        .replace("retryLimit: 0", "retryLimit: 3");
    let mut run = Setup::new(&spec).start();
    run.wait_for_condition("Ready", "True", "").await;
    let engine = run.engine_pid().unwrap();
    signal_pid(engine, Signal::STOP);
    run.wait_for_another_engine(engine).await;
    assert!(!crate::tools::is_alive(engine));
    assert_eq!(run.wait_for_answer().await.status, 200);
}
