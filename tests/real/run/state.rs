//! The state directory and the endpoint's address: taken, newer, read-only, full.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::support::{ALONE, LIMIT, Run, Setup, text, yaml};
use crate::tools::{Process, enginewright, model};

/// Runs until it refuses: its exit code and what it wrote.
fn refusal(command: Command) -> (Option<i32>, String) {
    let mut process = Process::start(command);
    let status = process.wait_for_exit(Duration::from_secs(20));
    (status.code(), process.output())
}

#[test]
fn a_port_in_use_is_said_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::new(ALONE);
    setup.address = taken.local_addr().unwrap();
    let (code, output) = refusal(setup.command());
    assert_eq!(code, Some(4), "{output}");
    let port = setup.address.port().to_string();
    assert!(
        output.contains("in use") && output.contains(&port) && output.contains("--listen"),
        "{output}"
    );
}

#[test]
fn every_mistake_in_the_file_is_said_at_once() {
    let setup = Setup::new(ALONE);
    setup.write(&yaml(
        Path::new("/m.gguf"),
        "engine: { slots: 0, precision: Fp9 }\nhealht: {}",
    ));
    let (code, output) = refusal(setup.command());
    assert_eq!(code, Some(1), "{output}");
    for path in ["spec.engine.slots", "spec.engine.precision", "spec.healht"] {
        assert!(output.contains(path), "{path} in {output}");
    }
}

#[tokio::test]
async fn two_runs_do_not_share_a_directory_and_the_first_goes_on() {
    let mut run = Setup::new(ALONE).start();
    run.wait_for_backend("Cpu").await;
    let mut second = Setup::new(ALONE);
    let folder = std::mem::replace(&mut second.folder, tempfile::tempdir().unwrap());
    let mut command = enginewright(["run", "--listen", "127.0.0.1:0", "--file"]);
    command.arg(folder.path().join("engine.yaml"));
    command.arg("--state-dir").arg(run.setup.state());
    let (code, output) = refusal(command);
    assert_eq!(code, Some(4), "{output}");
    assert!(
        output.contains(&run.process.pid().to_string()) && output.contains("--state-dir"),
        "{output}"
    );
    assert_eq!(run.chat("Say hello.", 4).await.unwrap().status, 200);
}

#[test]
fn state_of_a_newer_version_is_refused_and_left_alone() {
    for (name, content) in [
        ("version.json", r#"{"schema": 99}"#),
        ("durable.json", r#"{"version": 99}"#),
    ] {
        let setup = Setup::new(ALONE);
        std::fs::create_dir(setup.state()).unwrap();
        let file = setup.state().join(name);
        std::fs::write(&file, content).unwrap();
        let (code, output) = refusal(setup.command());
        assert_eq!(code, Some(4), "{output}");
        assert!(output.contains("newer version"), "{output}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn a_damaged_file_is_named_with_what_to_do() {
    let setup = Setup::new(ALONE);
    std::fs::create_dir(setup.state()).unwrap();
    std::fs::write(setup.state().join("durable.json"), "{\"version\": 1, ").unwrap();
    let (code, output) = refusal(setup.command());
    assert_eq!(code, Some(4), "{output}");
    assert!(
        output.contains("durable.json") && output.contains("damaged"),
        "{output}"
    );
}

/// `run` in a mount namespace of its own, where its state directory is a file system of `options`.
fn on_own_file_system(setup: &Setup, options: &str) -> Command {
    std::fs::create_dir_all(setup.state()).unwrap();
    let run = setup.command();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o \"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"");
    command.arg("sh").arg(options).arg(setup.state());
    command.arg(run.get_program()).args(run.get_args());
    command
}

#[test]
fn a_read_only_directory_is_said_with_what_to_do() {
    let setup = Setup::new(ALONE);
    let (code, output) = refusal(on_own_file_system(&setup, "ro,size=1m"));
    assert_eq!(code, Some(4), "{output}");
    assert!(
        output.contains("cannot be written") && output.contains("--state-dir"),
        "{output}"
    );
}

#[test]
fn a_full_disk_is_said_with_what_to_do() {
    let setup = Setup::new(ALONE);
    let (code, output) = refusal(on_own_file_system(&setup, "size=4k"));
    assert_eq!(code, Some(4), "{output}");
    assert!(output.contains("full"), "{output}");
}

#[tokio::test]
async fn a_disk_that_becomes_full_stops_changes_but_not_answers_and_all_goes_on_afterwards() {
    let setup = Setup::new(ALONE);
    let command = on_own_file_system(&setup, "size=2m");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut process = Process::start(command);
    process.wait_for_output("Cpu answers", LIMIT);
    // The file system is seen through the process that has it mounted.
    let inside = format!("/proc/{}/root{}", process.pid(), setup.state().display());
    let filler = Path::new(&inside).join("filler");
    let fill = std::fs::write(&filler, vec![1; 4 << 20]);
    assert!(fill.is_err(), "the file system is small");
    // Another generation, which cannot be persisted.
    setup.write(&yaml(&model(), &ALONE.replace("soak: 1s", "soak: 2s")));
    process.wait_for_output("nothing can be changed until", LIMIT);
    let chat = client
        .post(format!("http://{}/v1/chat/completions", setup.address))
        .json(&super::support::body("Say hello.", 4, false))
        .timeout(LIMIT)
        .send()
        .await
        .unwrap();
    assert_eq!(chat.status().as_u16(), 200);
    std::fs::remove_file(&filler).unwrap();
    let report = Path::new(&inside).join("status.json");
    crate::tools::wait_for("the new generation", LIMIT, || {
        let bytes = std::fs::read(&report).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let generation = value.pointer("/status/observedGeneration")?.as_u64()?;
        (generation == 2 && text(&value, "/stateProblem").is_empty()).then_some(())
    });
}

#[tokio::test]
async fn what_was_proven_is_known_after_a_restart() {
    let mut run = Setup::new(ALONE).start();
    let before = run.wait_for_condition("Ready", "True", "").await;
    run.process.signal(Signal::TERM);
    assert_eq!(run.process.wait_for_exit(LIMIT).code(), Some(0));
    let super::support::Run { process, setup, .. } = run;
    drop(process);
    std::fs::remove_file(setup.state().join("status.json")).unwrap();
    let mut run = setup.start();
    let after = run.wait_for_condition("Ready", "True", "").await;
    for pointer in ["/status/lastGoodRevision", "/status/observedGeneration"] {
        assert_eq!(before.pointer(pointer), after.pointer(pointer), "{pointer}");
    }
}

#[test]
fn status_without_a_run_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = enginewright(["status", "--state-dir"]);
    command.arg(folder.path());
    let (code, output) = refusal(command);
    assert_eq!(code, Some(4), "{output}");
    assert!(output.contains("enginewright run"), "{output}");
}

#[tokio::test]
async fn with_keys_the_endpoint_lets_nobody_in_without_one() {
    let setup = Setup::new(ALONE);
    let keys = setup.folder.path().join("keys");
    std::fs::write(&keys, "sk-of-a-test\n").unwrap();
    let mut command = setup.command();
    command.arg("--api-keys-file").arg(&keys);
    let mut run = Run {
        process: Process::start(command),
        setup,
        client: reqwest::Client::builder().no_proxy().build().unwrap(),
    };
    run.wait_for_backend("Cpu").await;
    let url = run.url("/v1/models");
    let without = run.client.get(&url).send().await.unwrap();
    assert_eq!(without.status(), 401);
    let with = run.client.get(&url).bearer_auth("sk-of-a-test");
    assert_eq!(with.send().await.unwrap().status(), 200);
    assert!(!run.process.output().contains("sk-of-a-test"));
}
