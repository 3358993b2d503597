//! `runtime.type: Image`: a server that is not ours, from a registry, goes through the same states. It is
//! Ollama's OpenAI API on the model's file, standing for Triton, trtllm-serve and the like.

use enginewright::api::InferenceEngine;
use rustix::process::{Pid, Signal, kill_process};

use super::breaks::{CLIENTS, GOOD, TOKENS, active, expect_rollback, is_ready_with, judge};
use super::client::Load;
use super::history::History;
use super::support::{Cluster, OTHER, holds};

/// Hands the file to Ollama without a copy, names it `other`, and serves until it is ended.
const SERVE: &str = "\
    export OLLAMA_HOST=0.0.0.0:$PORT OLLAMA_MODELS=/tmp/models OLLAMA_CONTEXT_LENGTH=1024; \
    mkdir -p /tmp/models/blobs; sum=$(sha256sum $MODEL); \
    ln -s $MODEL /tmp/models/blobs/sha256-${sum%% *}; \
    ollama serve & until ollama list; do sleep 1; done; \
    echo FROM $MODEL >/tmp/Modelfile; echo PARAMETER num_thread 1 >>/tmp/Modelfile; \
    ollama create other -f /tmp/Modelfile && wait";
/// Is ready at once, and knows nothing of an API.
const MUTE: &str = "mkdir -p /tmp/v1/models; echo >/tmp/v1/models/other; httpd -f -p $PORT -h /tmp";

/// The good spec with this command in the other image.
fn spec(image: &str, command: &str) -> String {
    let command = serde_json::json!(["/bin/sh", "-c", command]);
    format!(
        "{GOOD}\nruntime: {{type: Image, startupDeadline: 120s, image: {{image: \"{image}\", \
         command: {command}, port: 8000, healthPath: /v1/models/other, modelName: other}}}}"
    )
}

fn backend(engine: &InferenceEngine) -> Option<String> {
    Some(engine.status.as_ref()?.active_backend.to_string())
}

#[test]
fn a_server_that_is_not_ours_is_promoted_falls_back_comes_back_and_is_rolled_back_to() {
    let cluster = Cluster::shared();
    let place = cluster.place("images");
    let image = cluster.push(OTHER, "engines/other");
    println!("{image}");
    let history = History::start(&place, "smol");
    place.apply("smol", GOOD);
    let own = place.until("smol", "Ready", |one| holds(one, "Ready"));
    let own = active(&own).unwrap();
    let load = Load::start(&place, "smol", CLIENTS, TOKENS);

    // One that is ready and answers nothing is not taken for an engine.
    place.apply("smol", &spec(&image, MUTE));
    expect_rollback(&place, &own, "GenerationFailed");

    place.apply(
        "smol",
        &spec(&image, SERVE).replace("retryLimit: 0", "retryLimit: 10"),
    );
    let other = place.until("smol", "the other server to be promoted", |one| {
        holds(one, "Ready") && backend(one).as_deref() == Some("Image")
    });
    let other = active(&other).unwrap();
    load.wait_for("Image", 8);

    let servers = cluster.node.processes("ollama serve");
    let theirs = |id: &&u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains("OLLAMA_MODELS=/tmp/models")
    };
    let id = *servers.iter().find(theirs).expect("the other server runs");
    kill_process(
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    load.wait_for("Ollama", 1);
    place.until("smol", "the other server again", |one| {
        is_ready_with(one, &other)
    });
    load.wait_for("Image", 8);

    // What was proven stays when its successor is bad.
    place.apply("smol", &spec(&image, "exit 3"));
    expect_rollback(&place, &other, "EngineCrashed");
    let tally = judge("a server that is not ours", load);
    assert!(tally.of("LastGood") > 0, "{tally:?}");
    let calls = cluster.node.nvidia_calls();
    assert!(
        calls.contains(" create "),
        "the GPU's runtime was not asked"
    );
    place.kubectl(&["delete", "ie/smol", "--timeout=120s"], "");
    history.end();
    place.leave();
}
