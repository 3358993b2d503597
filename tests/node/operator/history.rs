//! Every state that a resource was seen in, and what the real kstatus library says of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use enginewright::api::InferenceEngine;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::Value;

use super::support::Place;
use crate::cluster::kstatus;

/// Looks at a resource until it is told to stop.
pub struct History {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<State>>,
}

/// One state.
#[derive(Clone, Debug)]
pub struct State {
    /// Since the beginning of the history.
    pub at: Duration,
    pub object: Value,
}

impl History {
    pub fn start(place: &Place, name: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, cluster) = (Arc::clone(&stop), place.cluster);
        let (namespace, name) = (place.namespace.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            cluster.node.run(async |client| {
                let kind = ApiResource::erase::<InferenceEngine>(&());
                let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind);
                let (begun, mut seen) = (Instant::now(), None);
                let mut states = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    if let Ok(Some(found)) = api.get_opt(&name).await
                        && found.metadata.resource_version != seen
                    {
                        seen.clone_from(&found.metadata.resource_version);
                        states.push(State {
                            at: begun.elapsed(),
                            object: serde_json::to_value(&found).unwrap(),
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                states
            })
        });
        Self { stop, thread }
    }

    /// All states; fails where kstatus says anything else of one than its conditions mean.
    pub fn end(self) -> Vec<State> {
        self.stop.store(true, Ordering::Relaxed);
        let states = self.thread.join().unwrap();
        let objects: Vec<Value> = states.iter().map(|one| one.object.clone()).collect();
        for (state, verdict) in states.iter().zip(kstatus(&objects)) {
            println!("{}", line(state, &verdict.status));
            assert_eq!(verdict.status, meant(&state.object), "{:#}", state.object);
        }
        states
    }
}

/// A condition's status.
pub fn condition(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array();
    let one = all.and_then(|all| all.iter().find(|one| one["type"] == kind));
    one.map_or_else(String::new, |one| {
        one["status"].as_str().unwrap_or_default().to_owned()
    })
}

/// What tools that know only kstatus shall see.
fn meant(object: &Value) -> &'static str {
    let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if current && condition(object, "Stalled") == "True" {
        "Failed"
    } else if current && condition(object, "Ready") == "True" {
        assert_ne!(condition(object, "FallbackActive"), "True", "{object:#}");
        "Current"
    } else {
        "InProgress"
    }
}

fn line(state: &State, verdict: &str) -> String {
    let status = &state.object["status"];
    let ready = status["conditions"].as_array().and_then(|all| {
        let ready = all.iter().find(|one| one["type"] == "Ready")?;
        Some(format!("{}: {}", ready["reason"], ready["message"]))
    });
    format!(
        "{:7.2} s {verdict:10} backend {} available {} {}",
        state.at.as_secs_f64(),
        status["activeBackend"],
        condition(&state.object, "Available"),
        ready.unwrap_or_default()
    )
}
