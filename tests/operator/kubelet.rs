//! A kubelet that only says what a test wants: pods get a loopback address and serve there what the
//! operator asks them for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use enginewright::controller::names;
use enginewright::model::catalogue;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What becomes of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Serves,
    Exits,
    Mute,
}

/// What the pods of a namespace do.
pub struct Kubelet {
    fates: Arc<Mutex<BTreeMap<String, Fate>>>,
    /// Addresses served, with their pods.
    _task: AbortOnDropHandle<()>,
}

/// The one node there is.
pub async fn node(client: &Client) {
    let api: Api<Node> = Api::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "orin", "labels": {"kubernetes.io/hostname": "orin"}},
    }))
    .unwrap();
    api.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {
        "allocatable": {"memory": "16Gi", "cpu": "8", "pods": "110"},
        "capacity": {"memory": "16Gi", "cpu": "8", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    api.patch_status("orin", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

impl Kubelet {
    pub fn start(client: Client, namespace: &str) -> Self {
        let fates: Arc<Mutex<BTreeMap<String, Fate>>> = Arc::default();
        let task = run(client, namespace.to_owned(), Arc::clone(&fates));
        Self {
            fates,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }

    /// What becomes of the engines of a revision from now on.
    pub fn decide(&self, revision: &str, fate: Fate) {
        self.fates.lock().unwrap().insert(revision.to_owned(), fate);
    }
}

async fn run(client: Client, namespace: String, fates: Arc<Mutex<BTreeMap<String, Fate>>>) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let mut begun: BTreeSet<String> = BTreeSet::new();
    let mut served = Vec::new();
    loop {
        let pods = api.list(&ListParams::default()).await;
        for pod in pods.map(|list| list.items).unwrap_or_default() {
            let uid = pod.uid().unwrap();
            if pod.metadata.deletion_timestamp.is_some() || !begun.insert(uid) {
                continue;
            }
            let address = next_address();
            let fate = pod
                .labels()
                .get(names::REVISION)
                .and_then(|revision| fates.lock().unwrap().get(revision).copied())
                .unwrap_or(Fate::Serves);
            let component = pod
                .labels()
                .get(names::COMPONENT)
                .cloned()
                .unwrap_or_default();
            if let Some((port, router)) = service(&client, &namespace, &pod, &component, fate) {
                let listener = TcpListener::bind((address.as_str(), port)).await.unwrap();
                served.push(AbortOnDropHandle::new(tokio::spawn(async move {
                    axum::serve(listener, router).await.unwrap();
                })));
            }
            let status = json!({"status": status(&component, &address, fate, &pod)});
            let patch = Patch::Merge(&status);
            // A pod that went meanwhile needs no status.
            let _gone = api
                .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                .await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An address of a pod's own: tests run side by side, and each has pods that listen on the same ports.
fn next_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::SeqCst);
    // Another run of the tests on this machine has another process id.
    let run = std::process::id() % 200 + 20;
    format!("127.{run}.{}.{}", number / 250 % 250, number % 250 + 1)
}

fn service(
    client: &Client,
    namespace: &str,
    pod: &Pod,
    component: &str,
    fate: Fate,
) -> Option<(u16, Router)> {
    let engine = pod.labels().get(names::ENGINE).cloned().unwrap_or_default();
    match component {
        "gateway" => Some((8080, gateway(client, namespace, &engine))),
        "engine" if fate != Fate::Exits => Some((8000, inference(fate))),
        "ollama" => Some((8081, companion(client, namespace, &pod.name_any()))),
        _ => None,
    }
}

/// A gateway that has the newest table at once.
fn gateway(client: &Client, namespace: &str, engine: &str) -> Router {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = format!("{engine}-routes");
    let ready = move || async move {
        let map = maps.get_opt(&name).await.ok().flatten();
        let text = map.and_then(|map| map.data?.get("routes.json").cloned());
        let table: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
        let generation = table.map_or(Value::Null, |table| table["generation"].clone());
        Json(json!({"ready": true, "routes_generation": generation}))
    };
    Router::new().route("/readyz", get(ready))
}

/// A companion that does at once what its pod's annotation says.
fn companion(client: &Client, namespace: &str, pod: &str) -> Router {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.to_owned();
    let state = move || async move {
        let pod = pods.get_opt(&name).await.ok().flatten();
        let order = pod.and_then(|pod| pod.annotations().get(names::ORDER).cloned());
        Json(json!({"order": order.unwrap_or_else(|| "standby".to_owned()), "done": true}))
    };
    Router::new().route("/state", get(state))
}

/// A server that generates the same sentence, or nothing.
fn inference(fate: Fate) -> Router {
    let words: &[&str] = match fate {
        Fate::Mute => &[],
        _ => &["Paris", " is", " the", " capital", " of", " France", "."],
    };
    let mut body = String::new();
    let mut say = |value: Value| {
        writeln!(body, "data: {value}\n").unwrap();
    };
    for word in words {
        say(json!({"choices": [{"index": 0, "delta": {"content": word}}]}));
    }
    say(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    say(json!({"choices": [], "usage": {
        "prompt_tokens": 1, "completion_tokens": words.len(), "total_tokens": words.len() + 1,
    }}));
    body.push_str("data: [DONE]\n\n");
    let chat = move || async move { ([(header::CONTENT_TYPE, "text/event-stream")], body) };
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .fallback(|| async { StatusCode::NOT_FOUND })
}

fn status(component: &str, address: &str, fate: Fate, pod: &Pod) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let names: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.containers.iter().map(|one| one.name.clone()))
        .collect();
    let (phase, ready, state) = match component {
        "fetch" | "collect" => {
            let report = json!({"fetched": {
                "sha256": "0a".repeat(32),
                "facts": catalogue::find("smollm2-135m").unwrap(),
            }});
            let ended = json!({"exitCode": 0, "reason": "Completed", "message": report.to_string(),
                "startedAt": now, "finishedAt": now});
            ("Succeeded", false, json!({"terminated": ended}))
        }
        "engine" if fate == Fate::Exits => {
            let ended = json!({"exitCode": 3, "reason": "Error", "startedAt": now, "finishedAt": now,
                "message": "{\"message\":\"the model cannot be loaded\"}"});
            ("Running", false, json!({"terminated": ended}))
        }
        _ => ("Running", true, json!({"running": {"startedAt": now}})),
    };
    let containers: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"name": name, "image": "x", "imageID": "x", "ready": ready, "started": ready,
                "restartCount": 0, "state": state})
        })
        .collect();
    json!({
        "phase": phase, "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "containerStatuses": containers,
        "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" },
             "lastTransitionTime": now},
            {"type": "ContainersReady", "status": if ready { "True" } else { "False" },
             "lastTransitionTime": now},
        ],
    })
}
