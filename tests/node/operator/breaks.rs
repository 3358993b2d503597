//! What goes wrong, with clients that ask all the while: none of them notices.

use enginewright::api::InferenceEngine;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Load, Tally};
use super::history::History;
use super::support::{Cluster, Place, holds, word};

/// Small, quick to judge, with a fallback that keeps the model loaded.
pub const GOOD: &str = "model: {source: \"pvc://models/SmolLM2-135M-Instruct.Q4_1.gguf\"}\n\
    engine: {maxInputTokens: 512, maxOutputTokens: 256, slots: 2, policy: Never}\n\
    health: {probeInterval: 1s, soak: 3s, probeTimeout: 60s}\n\
    placement: {cache: {size: 1Gi}}\n\
    fallback: {residency: Warm}\n\
    rollout: {retryLimit: 0, backoff: {initial: 1s, max: 2s}, drainTimeout: 10s}";

/// Clients that ask at the same time, and the length of their answers in tokens.
pub const CLIENTS: u32 = 8;
pub const TOKENS: u32 = 8;

/// Requests that each break is judged by, at least: `ENGINEWRIGHT_REQUESTS`.
fn requests() -> u32 {
    std::env::var("ENGINEWRIGHT_REQUESTS").map_or(500, |text| text.parse().unwrap())
}

/// Ends a load: enough was asked, and nobody noticed anything.
pub fn judge(what: &str, load: Load) -> Tally {
    load.reach(requests());
    let tally = load.stop();
    println!(
        "{what}: {} requests, {} failed, begun by {:?}",
        tally.requests,
        tally.failures.len(),
        tally.backends
    );
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    tally
}

/// The good one with some words in place of others.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replace(old, new)
}

pub fn active(engine: &InferenceEngine) -> Option<String> {
    engine.status.as_ref()?.active_revision.clone()
}

pub fn is_ready_with(engine: &InferenceEngine, revision: &str) -> bool {
    holds(engine, "Ready") && active(engine).as_deref() == Some(revision)
}

/// Waits until the newest spec is answered from the last good revision, for this reason.
pub fn expect_rollback(place: &Place, good: &str, reason: &str) -> InferenceEngine {
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
    let load = Load::start(&place, "smol", CLIENTS, TOKENS);

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

    // The kubelet tells what is in the way of a container 10 s later, with its next look at the pod.
    let image = format!(
        "runtime: {{type: Image, startupDeadline: 30s, image: {{\
         image: \"localhost/engines/missing@sha256:{other}\", port: 8000, healthPath: /health, \
         modelName: m}}}}"
    );
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
    judge("rollbacks", load);
    place.kubectl(&["delete", "ie/smol", "--timeout=120s"], "");
    history.end();
    place.leave();
}

/// How often the engine is killed.
const KILLS: u32 = 4;

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
    let load = Load::start(&place, "smol", CLIENTS, TOKENS);
    let mut kills = 0;
    for _ in 0..KILLS {
        load.wait_for("Cpu", requests() / KILLS / 2);
        let killed = kill_engines(cluster);
        assert!(killed > 0, "an engine that answers runs");
        kills += killed;
        load.wait_for("Ollama", 1);
    }
    place.until("smol", "Ready again", |one| holds(one, "Ready"));
    let tally = judge(&format!("{kills} engines killed"), load);
    assert!(tally.of("Cpu") > 0 && tally.of("Ollama") > 0, "{tally:?}");
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
    let load = Load::start(&place, "smol", CLIENTS, TOKENS);
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
    judge("every pod ended", load);
    cluster.upgrade("log=info");
    place.leave();
}
