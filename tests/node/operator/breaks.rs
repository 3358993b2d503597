//! What goes wrong, with clients that ask all the while: none of them notices.

use std::time::Duration;

use enginewright::api::InferenceEngine;
use rustix::process::{Pid, Signal, kill_process};

use super::client::Load;
use super::history::History;
use super::support::{Cluster, LIMIT, Place, holds, word};
use crate::tools;

/// Small, quick to judge, with a fallback that keeps the model loaded.
const GOOD: &str = "model: {source: \"pvc://models/SmolLM2-135M-Instruct.Q4_1.gguf\"}\n\
    engine: {maxInputTokens: 512, maxOutputTokens: 256, slots: 2, policy: Never}\n\
    health: {probeInterval: 1s, soak: 3s, probeTimeout: 60s}\n\
    placement: {cache: {size: 1Gi}}\n\
    fallback: {residency: Warm}\n\
    rollout: {retryLimit: 0, backoff: {initial: 1s, max: 2s}, drainTimeout: 10s}";

/// The good one with some words in place of others.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replace(old, new)
}

fn active(engine: &InferenceEngine) -> Option<String> {
    engine.status.as_ref()?.active_revision.clone()
}

fn is_ready_with(engine: &InferenceEngine, revision: &str) -> bool {
    holds(engine, "Ready") && active(engine).as_deref() == Some(revision)
}

/// Waits until the newest spec is answered from the last good revision, for this reason.
fn expect_rollback(place: &Place, good: &str, reason: &str) -> InferenceEngine {
    let rolled_back = place.until("smol", reason, |one| {
        let Some(status) = &one.status else {
            return false;
        };
        let failed = status.failed_revisions.iter().find(|failed| {
            Some(&failed.revision) == status.desired_revision.as_ref()
                && failed.reason.as_str() == reason
        });
        failed.is_some()
            && status.observed_generation == one.metadata.generation
            && active(one).as_deref() == Some(good)
            && holds(one, "Stalled")
    });
    let (ready, why) = word(&rolled_back, "Ready").unwrap();
    println!("{reason}: Ready={ready} because of {why}");
    assert_eq!(ready, "False");
    assert!(holds(&rolled_back, "Available"));
    let status = rolled_back.status.as_ref().unwrap();
    assert_eq!(status.active_backend.to_string(), "LastGood");
    rolled_back
}

#[test]
fn bad_revisions_are_rolled_back_with_their_reason_and_cost_no_request() {
    let cluster = Cluster::shared();
    let place = cluster.place("revisions");
    let history = History::start(&place, "smol");
    place.apply("smol", GOOD);
    let good = place.until("smol", "Ready", |one| holds(one, "Ready"));
    let good = active(&good).unwrap();
    let load = Load::start(&place, "smol", 1, 12);

    let other = "0a".repeat(32);
    let wrong = with("Q4_1.gguf\"", &format!("Q4_1.gguf\", sha256: \"{other}\""));
    place.apply("smol", &wrong);
    expect_rollback(&place, &good, "ModelDigestMismatch");

    place.apply(
        "smol",
        &format!(
            "{}\nobjectives: {{tokensPerSecond: 100000}}",
            with("slots: 2", "slots: 3")
        ),
    );
    expect_rollback(&place, &good, "ObjectiveMissed");

    let image = "runtime: {type: Image, startupDeadline: 10s, image: {\
        image: \"localhost/engines/missing:1\", port: 8000, healthPath: /health, modelName: m}}";
    place.apply("smol", &format!("{GOOD}\n{image}"));
    let missing = expect_rollback(&place, &good, "EnvironmentError");
    let failed = missing.status.unwrap().failed_revisions;
    let said = |text: &str| failed.iter().any(|one| one.message.contains(text));
    assert!(
        said("ErrImagePull") || said("ImagePullBackOff"),
        "{failed:#?}"
    );

    place.apply("smol", GOOD);
    place.until("smol", "Ready again", |one| is_ready_with(one, &good));
    let better = with("slots: 2", "slots: 4");
    place.apply("smol", &better);
    place.until("smol", "the better revision", |one| {
        holds(one, "Ready") && active(one).as_deref() != Some(good.as_str())
    });
    let tally = load.stop();
    println!(
        "rollbacks: {} requests, begun by {:?}",
        tally.requests, tally.backends
    );
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.requests > 5, "{tally:?}");
    place.kubectl(&["delete", "ie/smol", "--timeout=120s"], "");
    history.end();
    place.leave();
}

/// Kills the engines that run on the node; how many.
fn kill_engines(cluster: &Cluster) -> usize {
    let engines = cluster.node.processes("enginewright serve --model=/cache/");
    for id in &engines {
        let id = Pid::from_raw(i32::try_from(*id).unwrap()).unwrap();
        kill_process(id, Signal::KILL).unwrap();
    }
    engines.len()
}

#[test]
fn killing_the_engine_under_streaming_clients_loses_no_request() {
    let cluster = Cluster::shared();
    let place = cluster.place("kills");
    place.apply("smol", &with("retryLimit: 0", "retryLimit: 10"));
    place.until("smol", "Ready", |one| holds(one, "Ready"));
    let load = Load::start(&place, "smol", 4, 24);
    let mut kills = 0;
    for _ in 0..3 {
        tools::wait_for("the engine's process", LIMIT, || {
            let runs = !cluster
                .node
                .processes("enginewright serve --model=/cache/")
                .is_empty();
            runs.then_some(())
        });
        place.until("smol", "the engine to serve", |one| {
            let backend = one.status.as_ref().map(|it| it.active_backend.to_string());
            backend.as_deref() == Some("Cpu")
        });
        std::thread::sleep(Duration::from_secs(5));
        kills += kill_engines(cluster);
        place.until("smol", "the fallback to answer", |one| {
            holds(one, "FallbackActive")
        });
    }
    place.until("smol", "Ready again", |one| holds(one, "Ready"));
    let tally = load.stop();
    println!(
        "{kills} kills: {} requests, begun by {:?}",
        tally.requests, tally.backends
    );
    assert_eq!(kills, 3);
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.requests >= 20, "{tally:?}");
    assert!(tally.backends.contains_key("Cpu") && tally.backends.contains_key("Ollama"));
    place.leave();
}

/// Names of the pods of a component.
fn pods(place: &Place, component: &str) -> Vec<String> {
    let label = format!("-l=app.kubernetes.io/component={component}");
    let names = place.kubectl(&["get", "pods", &label, "-o=name"], "");
    names.lines().map(str::to_owned).collect()
}

#[test]
fn ending_every_pod_in_turn_and_upgrading_the_operator_loses_no_request() {
    let cluster = Cluster::shared();
    let place = cluster.place("drains");
    place.apply("smol", GOOD);
    place.until("smol", "Ready", |one| holds(one, "Ready"));
    let load = Load::start(&place, "smol", 4, 24);
    for pod in pods(&place, "gateway") {
        place.kubectl(&["delete", &pod, "--timeout=120s"], "");
        let rollout = [
            "rollout",
            "status",
            "deployment/smol-gateway",
            "--timeout=120s",
        ];
        place.kubectl(&rollout, "");
    }
    for component in ["ollama", "engine"] {
        for pod in pods(&place, component) {
            place.kubectl(&["delete", &pod, "--timeout=120s"], "");
        }
        // One after the other: without engine and fallback nobody can answer.
        let label = format!("-l=app.kubernetes.io/component={component}");
        let ready = [
            "wait",
            "pods",
            &label,
            "--for=condition=Ready",
            "--timeout=120s",
        ];
        place.kubectl(&ready, "");
        place.until("smol", "Ready again", |one| holds(one, "Ready"));
    }
    cluster.upgrade("log=debug");
    place.until("smol", "Ready", |one| holds(one, "Ready"));
    let tally = load.stop();
    println!(
        "drains: {} requests, begun by {:?}",
        tally.requests, tally.backends
    );
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    assert!(tally.requests >= 20, "{tally:?}");
    cluster.upgrade("log=info");
    place.leave();
}
