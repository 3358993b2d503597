//! From `kubectl apply` to a promoted engine, with real pods of real images.

use std::time::{Duration, Instant};

use super::history::History;
use super::support::{Cluster, LIMIT, holds};
use crate::tools;

const SAMPLE: &str = include_str!("../../../manifests/samples/smollm2-claim.yaml");

#[test]
fn an_applied_model_is_answered_at_once_promoted_and_taken_down() {
    let cluster = Cluster::shared();
    let place = cluster.place("path");
    let history = History::start(&place, "smollm2");
    let begun = Instant::now();
    place.kubectl(&["apply", "-f", "-"], SAMPLE);

    let (first, answered) = place.first_answer("smollm2", begun);
    println!(
        "first token after {answered:?} from {}: {:?}",
        first.backend, first.text
    );
    assert_eq!(first.backend, "Ollama");
    let wait = |condition: &str, limit: &str| {
        place.kubectl(&["wait", condition, "ie/smollm2", limit], "");
    };
    wait("--for=condition=Available", "--timeout=30s");
    place.until("smollm2", "Ready", |one| holds(one, "Ready"));
    println!("Ready after {:?}", begun.elapsed());
    wait("--for=condition=Ready", "--timeout=5s");
    let promoted = place.chat("smollm2");
    assert_eq!(promoted.backend, "Cpu");
    println!(
        "promoted answer, first token after {:?}: {:?}",
        promoted.first, promoted.text
    );
    let table = place.kubectl(&["get", "ie,edgenodes"], "");
    println!("{table}");
    assert!(
        table.contains("Jetson Orin NX 16GB") && table.contains("smollm2"),
        "{table}"
    );

    // Nothing more is written, not by another operator either.
    let writes = || cluster.count(|line| line.starts_with("enginewright_operator_writes_total"));
    let before = writes();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(writes(), before, "it rests");
    cluster.restart_operator();
    let reconciled = "enginewright_operator_reconciliations_total";
    tools::wait_for("a reconciliation", LIMIT, || {
        (cluster.count(|line| line.starts_with(reconciled)) > 0).then_some(())
    });
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(writes(), 0, "another operator takes over what is there");
    for command in ["operator", "gateway", "companion", "agent"] {
        let resident = cluster.resident(&format!("enginewright {command}"));
        println!("{command}: {resident:?} KiB resident");
    }

    place.kubectl(&["delete", "ie/smollm2", "--timeout=120s"], "");
    history.end();
    place.leave();
}
