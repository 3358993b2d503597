//! What goes on beside reconciliations: asking engines, gateways and companions. Each task writes
//! what it found into the notes and, if that matters, has the resource looked at again. It decides
//! nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::clock::Clock;
use super::notes::{Companion, InForce, Notes};
use super::workloads::{COMPANION_PORT, GATEWAY_PORT, Order};
use crate::api::Objectives;
use crate::companion::Said;
use crate::local::ollama::api::Ollama;
use crate::planner::{Health, InstanceId, Proof, Route};
use crate::probe::{Prober, health, proof};

/// Longest time one request of a proof may take: three answers must fit into the planner's deadline.
const PROOF_REQUEST: Duration = Duration::from_secs(28);
/// For one question about a state.
const QUESTION: Duration = Duration::from_secs(2);
/// Between two such questions at first; later ten times as long.
const LOOK: Duration = Duration::from_millis(100);
/// Questions after which they become rarer.
const EAGER: u32 = 100;
/// Questions after which the kubelet is asked again to refresh the route table.
const NUDGE: u32 = 30;

/// A task of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Proves an engine.
    Proof(InstanceId),
    /// Watches an engine.
    Watch(InstanceId),
    /// Waits until gateways have taken a table over.
    Routes,
    /// Asks the companion.
    Companion,
    /// Asks an Ollama at an address.
    External,
}

/// Notes and tasks of one resource.
#[derive(Debug, Default)]
pub struct Known {
    notes: Mutex<Notes>,
    /// Tasks, each with what it was begun for.
    tasks: Mutex<HashMap<Key, (String, AbortOnDropHandle<()>)>>,
    /// Failures in a row.
    failures: Mutex<u32>,
}

impl Known {
    /// The notes.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// Counts a failure, or forgets them; says how many in a row there are now.
    pub fn failures(&self, failed: bool) -> u32 {
        let mut failures = lock(&self.failures);
        *failures = if failed {
            failures.saturating_add(1)
        } else {
            0
        };
        *failures
    }

    /// Whether a task runs that was begun for the same.
    pub fn runs(&self, key: &Key, purpose: &str) -> bool {
        lock(&self.tasks)
            .get(key)
            .is_some_and(|(old, task)| old == purpose && !task.is_finished())
    }

    /// Ends the tasks for which `keep` says no.
    pub fn keep(&self, keep: impl Fn(&Key) -> bool) {
        lock(&self.tasks).retain(|key, _| keep(key));
    }

    fn start(&self, key: Key, purpose: String, task: impl Future<Output = ()> + Send + 'static) {
        let handle = AbortOnDropHandle::new(tokio::spawn(task));
        lock(&self.tasks).insert(key, (purpose, handle));
    }
}

/// A panic while notes were held leaves notes that are only findings: they are made anew.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins tasks of one resource.
#[derive(Clone)]
pub struct Asker {
    /// Its notes.
    pub known: Arc<Known>,
    /// One HTTP client for everything.
    pub http: reqwest::Client,
    /// The operator's clock.
    pub clock: Clock,
    /// Has the resource looked at again.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// An engine that can be asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its number.
    pub id: InstanceId,
    /// Where it listens.
    pub origin: String,
    /// What it calls its model.
    pub model: String,
    /// What it must reach.
    pub objectives: Objectives,
    /// For one request.
    pub limit: Duration,
}

impl Asker {
    fn prober(&self, target: &Target) -> Prober {
        Prober::new(self.http.clone(), &target.origin, &target.model)
    }

    /// Proves an engine.
    pub fn prove(&self, target: Target) {
        let number = {
            let mut notes = self.known.notes();
            let findings = notes.engines.entry(target.id).or_default();
            findings.proofs += 1;
            findings.proof = Proof::Running {
                since: self.clock.now(),
            };
            findings.proofs
        };
        let asker = self.clone();
        let key = Key::Proof(target.id);
        self.known.start(key, number.to_string(), async move {
            let limit = target.limit.min(PROOF_REQUEST);
            let prober = asker.prober(&target);
            let outcome = proof::prove(&prober, &target.objectives, limit).await;
            tracing::info!(engine = %target.id, ?outcome, "proved");
            let at = asker.clock.now();
            if let Some(findings) = asker.known.notes().engines.get_mut(&target.id)
                && findings.proofs == number
            {
                findings.proof = Proof::Done {
                    at,
                    smoke: outcome.smoke,
                    objectives: outcome.objectives,
                    measured: outcome.measured,
                };
            }
            (asker.wake)();
        });
    }

    /// Probes an engine from now on.
    pub fn watch(&self, target: Target, interval: Duration) {
        let purpose = format!("{}{interval:?}{:?}", target.origin, target.objectives);
        let key = Key::Watch(target.id);
        if self.known.runs(&key, &purpose) {
            return;
        }
        {
            let mut notes = self.known.notes();
            let findings = notes.engines.entry(target.id).or_default();
            let before = findings.health.unwrap_or_default();
            findings.health = Some(Health { interval, ..before });
        }
        let asker = self.clone();
        self.known.start(key, purpose, async move {
            let prober = asker.prober(&target);
            loop {
                tokio::time::sleep(interval).await;
                let (finding, throttled) =
                    health::probe(&prober, &target.objectives, target.limit).await;
                let now = asker.clock.now();
                let mut matters = false;
                let mut notes = asker.known.notes();
                let passed = notes.passed;
                if let Some(findings) = notes.engines.get_mut(&target.id)
                    && let Some(before) = findings.health
                {
                    let next = health::after(before, &finding, throttled, now);
                    let without_time = |health: Health| Health {
                        last_success: None,
                        ..health
                    };
                    let awaited = passed.is_some_and(|at| {
                        before.last_success < Some(at) && next.last_success >= Some(at)
                    });
                    matters = awaited || without_time(before) != without_time(next);
                    findings.health = Some(next);
                    if awaited {
                        notes.passed = None;
                    }
                }
                drop(notes);
                if matters {
                    tracing::info!(engine = %target.id, ?finding, "probed");
                    (asker.wake)();
                }
            }
        });
    }

    /// Waits until all `gateways` (UID and address) have taken over the table of `generation`, which
    /// says `route`.
    pub fn confirm(&self, generation: u64, route: Route, gateways: BTreeMap<String, String>) {
        let purpose = format!("{generation}{gateways:?}");
        if self.known.runs(&Key::Routes, &purpose) {
            return;
        }
        let asker = self.clone();
        self.known.start(Key::Routes, purpose, async move {
            let mut asked = 0;
            loop {
                let mut all = true;
                for address in gateways.values() {
                    let url = format!("http://{address}:{GATEWAY_PORT}/readyz");
                    all &= asker.generation(&url).await == Some(generation);
                }
                if all {
                    break;
                }
                asked += 1;
                if asked % NUDGE == 0 {
                    asker.known.notes().nudges += 1;
                    (asker.wake)();
                }
                tokio::time::sleep(if asked < EAGER { LOOK } else { LOOK * 10 }).await;
            }
            let pods: BTreeSet<String> = gateways.into_keys().collect();
            let mut notes = asker.known.notes();
            notes.nudges = 0;
            notes.in_force = Some(InForce {
                generation,
                route,
                pods,
            });
            drop(notes);
            (asker.wake)();
        });
    }

    /// Generation of the table in force. A gateway without any back end says 503, and that too.
    async fn generation(&self, url: &str) -> Option<u64> {
        let request = self.http.get(url).timeout(QUESTION);
        let body: serde_json::Value = request.send().await.ok()?.json().await.ok()?;
        body.get("routes_generation")?.as_u64()
    }

    /// Asks the companion in a pod until it has carried out `order`.
    pub fn ask_companion(&self, pod: String, address: &str, order: Order) {
        let purpose = format!("{pod}{order:?}");
        if self.known.runs(&Key::Companion, &purpose) {
            return;
        }
        let url = format!("http://{address}:{COMPANION_PORT}/state");
        let asker = self.clone();
        self.known.start(Key::Companion, purpose, async move {
            let mut asked = 0;
            loop {
                let request = asker.http.get(&url).timeout(QUESTION);
                let said = match request.send().await {
                    Ok(response) => response.json::<Said>().await.ok(),
                    Err(_) => None,
                };
                if let Some(said) = said {
                    let next = Companion {
                        pod: pod.clone(),
                        order: said.order,
                        done: said.done,
                        problem: said.problem,
                    };
                    let ended = next.done && next.order == Some(order);
                    let news = asker.known.notes().companion.as_ref() != Some(&next);
                    if news {
                        asker.known.notes().companion = Some(next);
                        (asker.wake)();
                    }
                    if ended {
                        return;
                    }
                }
                asked += 1;
                tokio::time::sleep(if asked < EAGER { LOOK } else { LOOK * 10 }).await;
            }
        });
    }

    /// Watches an Ollama that somebody else runs.
    pub fn watch_external(&self, url: String, model: String, interval: Duration) {
        let purpose = format!("{url} {model} {interval:?}");
        if self.known.runs(&Key::External, &purpose) {
            return;
        }
        let asker = self.clone();
        self.known.start(Key::External, purpose, async move {
            let ollama = Ollama::new(asker.http.clone(), &url);
            loop {
                let state = external(&ollama, &model).await;
                let news = asker.known.notes().external.as_ref() != Some(&state);
                if news {
                    asker.known.notes().external = Some(state);
                    (asker.wake)();
                }
                tokio::time::sleep(interval).await;
            }
        });
    }
}

async fn external(ollama: &Ollama, model: &str) -> Result<(), String> {
    let text = |error: crate::local::ollama::api::OllamaError| error.to_string();
    ollama.version().await.map_err(text)?;
    match ollama.show(model).await.map_err(text)? {
        Some(_) => Ok(()),
        None => Err(format!("it has no model {model}")),
    }
}
