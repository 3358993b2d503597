//! From `kubectl apply` to the first token, and what the time until promotion is spent on: each run has
//! a resource of its own and ends it. `ENGINEWRIGHT_RUNS` says how many runs.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{History, State, condition};
use super::support::{Cluster, Place, holds};

/// Four lines of a user, and no waiting for a soak time.
const SPEC: &str = "model: {source: \"pvc://models/SmolLM2-135M-Instruct.Q4_1.gguf\"}\n\
    engine: {maxInputTokens: 512, maxOutputTokens: 256, slots: 2, policy: Never}\n\
    health: {probeInterval: 1s, soak: 1s, probeTimeout: 60s}\n\
    placement: {cache: {size: 1Gi}}";

/// An Ollama that runs already and has the model, as somebody's own would.
const OTHERS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: modelfile}
data: {Modelfile: "FROM /models/SmolLM2-135M-Instruct.Q4_1.gguf\nPARAMETER num_ctx 768\nPARAMETER num_thread 1\n"}
---
apiVersion: v1
kind: Service
metadata: {name: others}
spec: {selector: {app: others}, ports: [{port: 11434}]}
---
apiVersion: v1
kind: Pod
metadata: {name: others, labels: {app: others}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: ollama
    image: localhost/ollama:test
    command: [ollama, serve]
    env:
    - {name: OLLAMA_HOST, value: "0.0.0.0:11434"}
    - {name: OLLAMA_MODELS, value: /tmp/store}
    - {name: HOME, value: /tmp}
    - {name: OLLAMA_KEEP_ALIVE, value: "-1"}
    readinessProbe: {httpGet: {path: /api/version, port: 11434}, periodSeconds: 1}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: tmp, mountPath: /tmp}, {name: modelfile, mountPath: /modelfile}, {name: models, mountPath: /models}]
  volumes:
  - {name: tmp, emptyDir: {}}
  - {name: modelfile, configMap: {name: modelfile}}
  - {name: models, persistentVolumeClaim: {claimName: models, readOnly: true}}
"#;

fn runs() -> usize {
    std::env::var("ENGINEWRIGHT_RUNS").map_or(2, |text| text.parse().unwrap())
}

/// What is reached, in this order of columns.
const STAGES: [&str; 6] = [
    "model on the node",
    "status says Available",
    "first token at the client",
    "engine ready",
    "promoted",
    "gone after deletion",
];

/// When a state was first seen that is as `wanted` says.
fn when(states: &[State], wanted: impl Fn(&Value) -> bool) -> Duration {
    let first = states.iter().find(|state| wanted(&state.object));
    first.expect("each stage is seen").at
}

fn reason(object: &Value) -> Option<&str> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter().find(|one| one["type"] == "Ready")?["reason"].as_str()
}

/// One resource from its creation to its end: when each stage was reached, the last one since the order
/// to delete it.
fn run(place: &Place, name: &str, spec: &str) -> [Duration; STAGES.len()] {
    let history = History::start(place, name);
    let begun = Instant::now();
    place.apply(name, spec);
    let (answer, first) = place.first_answer(name, begun);
    assert_eq!(answer.backend, "Ollama");
    place.until(name, "Ready", |one| holds(one, "Ready"));
    assert_eq!(place.chat(name).backend, "Cpu");
    let ended = Instant::now();
    let resource = format!("ie/{name}");
    place.kubectl(&["delete", &resource, "--timeout=120s"], "");
    let ended = ended.elapsed();
    let states = history.end();
    let says = |kind: &'static str| when(&states, |object| condition(object, kind) == "True");
    let proven = when(&states, |object| {
        object["status"]["activeBackend"].as_str() == Some("Cpu")
    });
    let proving = when(&states, |object| {
        ["Proving", "Promoting", "Soaking", "Serving"].contains(&reason(object).unwrap_or_default())
    });
    [
        says("ModelFetched"),
        says("Available"),
        first,
        proving,
        proven,
        ended,
    ]
}

/// All runs, and of each stage the median, the 95th percentile (nearest rank) and the longest.
fn report(what: &str, all: &[[Duration; STAGES.len()]]) {
    println!("{what}: {} runs, seconds since apply", all.len());
    for one in all {
        println!("run {:.2?}", one.map(|stage| stage.as_secs_f64()));
    }
    for (column, stage) in STAGES.iter().enumerate() {
        let mut seconds: Vec<f64> = all.iter().map(|one| one[column].as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        let rank = |percent: usize| seconds[(seconds.len() * percent).div_ceil(100) - 1];
        println!(
            "| {stage} | {:.2} | {:.2} | {:.2} |",
            rank(50),
            rank(95),
            rank(100)
        );
    }
}

#[test]
fn a_resource_is_answered_by_an_ollama_of_its_own_before_its_engine_is_ready() {
    let place = Cluster::shared().place("own");
    let all: Vec<_> = (0..runs())
        .map(|number| run(&place, &format!("own-{number}"), SPEC))
        .collect();
    report("its own Ollama, nothing on the node but images", &all);
    place.leave();
}

#[test]
fn a_resource_is_answered_at_once_by_an_ollama_that_has_the_model() {
    let place = Cluster::shared().place("theirs");
    place.kubectl(&["apply", "-f", "-"], OTHERS);
    place.kubectl(&["wait", "pod/others", "--for=condition=Ready"], "");
    let inside = |words: &[&str]| {
        let all = [&["exec", "others", "--", "ollama"], words].concat();
        place.kubectl(&all, "")
    };
    inside(&["create", "theirs", "-f", "/modelfile/Modelfile"]);
    inside(&["run", "theirs", "Say yes."]);
    let address = ["get", "service", "others", "-o=jsonpath={.spec.clusterIP}"];
    let address = place.kubectl(&address, "");
    let spec = format!(
        "{SPEC}\nfallback: {{ollama: {{address: \"http://{address}:11434\", model: theirs}}}}"
    );
    let all: Vec<_> = (0..runs())
        .map(|number| run(&place, &format!("theirs-{number}"), &spec))
        .collect();
    report("an Ollama that has the model", &all);
    place.kubectl(
        &["delete", "pod/others", "service/others", "cm/modelfile"],
        "",
    );
    place.leave();
}
