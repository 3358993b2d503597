//! The engine of a revision is built by a Job on the node, with a real TensorRT: TensorRT-RTX builds
//! without a GPU. There is none here to run what was built, so that the engine's end is part of it.

use std::time::Instant;

use enginewright::api::{ConditionType, InferenceEngine, Reason};

use super::breaks::GOOD;
use super::history::History;
use super::support::{Cluster, TENSORRT, holds};

fn reason(engine: &InferenceEngine) -> Option<Reason> {
    let conditions = &engine.status.as_ref()?.conditions;
    let ready = conditions
        .iter()
        .find(|one| one.kind == ConditionType::Ready)?;
    Some(ready.reason)
}

#[test]
fn an_engine_is_built_in_a_job_while_the_fallback_answers_and_its_failure_leaves_it_answering() {
    let cluster = Cluster::shared();
    cluster.upgrade(&format!("tensorrtImage={TENSORRT}"));
    let place = cluster.place("builds");
    let history = History::start(&place, "smol");
    let begun = Instant::now();
    place.apply("smol", &GOOD.replace("policy: Never", "precision: Fp16"));
    place.until("smol", "the build to begin", |one| {
        reason(one) == Some(Reason::BuildingEngine)
    });
    println!("the build begins after {:?}", begun.elapsed());
    let job = place.kubectl(&["get", "jobs", "-o", "yaml"], "");
    for wanted in [
        "runtimeClassName: nvidia",
        "--sm=8.7",
        "--precision=Fp16",
        TENSORRT,
    ] {
        assert!(job.contains(wanted), "{wanted}: {job}");
    }
    place.until("smol", "the fallback to answer", |one| {
        holds(one, "Available")
    });
    assert_eq!(place.chat("smol").backend, "Ollama");

    // What was built is noted before it is started.
    let state = || {
        let path = "jsonpath={.data.state\\.json}";
        place.kubectl(&["get", "configmap", "smol-state", "-o", path], "")
    };
    place.until("smol", "the engine to be built", |_| {
        state().contains("\"bundle\"")
    });
    println!("built after {:?}", begun.elapsed());
    let failed = place.until("smol", "the engine to fail without a GPU", |one| {
        holds(one, "Stalled")
    });
    println!("{:#?}", failed.status);
    let status = failed.status.unwrap();
    assert_eq!(status.failed_revisions.len(), 1, "{status:?}");
    assert!(
        cluster.node.nvidia_calls().contains(" create "),
        "the GPU's runtime was not asked"
    );
    assert_eq!(place.chat("smol").backend, "Ollama");
    place.kubectl(&["delete", "ie/smol", "--timeout=120s"], "");
    history.end();
    place.leave();
    cluster.upgrade("tensorrtImage=");
}
