//! What the planner orders, done with processes and files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::super::build::{self, Build};
use super::super::engine::{Engine, Start};
use super::super::event::Event;
use super::super::fetch::Fetch;
use super::super::model::{self, Fetched, Job, Origin};
use super::event::shown;
use super::{Running, Supervisor};
use crate::api::{ModelSource, Reason, RevisionId};
use crate::model::ollama_store;
use crate::planner::{
    Action, Failure, Garbage, InstanceId, Step, StopReason, Timestamp, Work, failure, transient,
};
use crate::sources::Brought;

/// Longest time one request of a proof may take, whatever the probe's own limit is: three answers
/// must fit into the planner's deadline for a proof.
const PROOF_REQUEST: Duration = Duration::from_secs(28);

/// For an engine that failed to end by itself: one that hangs does not.
const FAILED_GRACE: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) fn act(&mut self, action: Action, now: Timestamp) {
        tracing::debug!(?action);
        match action {
            Action::EnsureGateway => self.gateway.ensure(now),
            Action::StopGateway => self.gateway.stop(self.wanted.engine.rollout.drain_timeout),
            Action::EnsureFallback => self.ensure_fallback(now),
            Action::ParkFallback => self.park_fallback(),
            Action::StopFallback => self.stop_fallback(),
            Action::Begin { revision, work } => self.begin(&revision, work, now),
            Action::Cancel {
                revision,
                work,
                stalled,
            } => self.cancel(&revision, work, stalled, now),
            Action::StartEngine {
                instance,
                revision,
                attempt,
                memory_bytes,
                exclusive,
            } => {
                tracing::info!(engine = %instance, %revision, attempt, "starting");
                self.start_engine(instance, &revision, memory_bytes, exclusive, now);
            }
            Action::Prove { instance } => {
                let health = self.wanted.engine.health;
                let limit = health.probe_timeout.min(PROOF_REQUEST);
                let objectives = self.wanted.engine.objectives;
                if let Some(engine) = self.engines.get_mut(&instance) {
                    engine.prove(objectives, limit, now, &self.events);
                }
            }
            Action::Watch { instance, interval } => {
                let limit = self.wanted.engine.health.probe_timeout;
                let objectives = self.wanted.engine.objectives;
                if let Some(engine) = self.engines.get_mut(&instance) {
                    engine.watch(interval, objectives, limit, &self.events);
                }
            }
            Action::StopEngine { instance, why } => {
                tracing::info!(engine = %instance, ?why, "stopping");
                let drain = self.wanted.engine.rollout.drain_timeout;
                // One that failed has no answers that are worth waiting for.
                let grace = match why {
                    StopReason::Failed => drain.min(FAILED_GRACE),
                    StopReason::Superseded | StopReason::MakeRoom | StopReason::Removed => drain,
                };
                let stays = self
                    .engines
                    .get_mut(&instance)
                    .is_some_and(|engine| engine.stop(grace));
                if !stays {
                    self.engines.remove(&instance);
                }
            }
            Action::Route(route) => self.route(route),
            Action::CollectGarbage { keep } => self.collect_garbage(keep),
        }
    }

    fn start_engine(
        &mut self,
        id: InstanceId,
        revision: &RevisionId,
        memory_bytes: u64,
        exclusive: bool,
        now: Timestamp,
    ) {
        if self.engines.contains_key(&id) {
            return;
        }
        let stored = self
            .known
            .get(revision)
            .and_then(|known| known.stored.as_ref());
        let Some(stored) = stored else {
            // The planner only starts what was verified; without a record there is nothing to start.
            tracing::error!(%revision, "nothing is stored of a revision that was to be started");
            return;
        };
        let model = self.revisions.model(stored);
        let logs = self.state.path("logs");
        let bundle = self
            .tensorrt()
            .and_then(|tensorrt| Some((self.revisions.engine(revision)?, tensorrt.clone())));
        let engine = Engine::start(
            &Start {
                id,
                revision: revision.clone(),
                memory_bytes,
                exclusive,
                model: &model,
                engine: bundle
                    .as_ref()
                    .map(|(bundle, tensorrt)| (bundle.path(), tensorrt)),
                served: &stored.served,
                grace: self.wanted.engine.rollout.drain_timeout,
                logs: &logs,
            },
            &self.client,
            now,
            &self.events,
        );
        self.engines.insert(id, engine);
        super::super::process::keep_newest(&logs, "engine-", 8);
    }

    fn begin(&mut self, revision: &RevisionId, work: Work, now: Timestamp) {
        let running_at = Step::Running { progress_at: now };
        let Some(known) = self.known.get_mut(revision) else {
            return;
        };
        if known.running.is_some() {
            return;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            revision: revision.clone(),
            revisions: self.revisions.clone(),
            digests: self.digests.clone(),
            events: self.events.clone(),
            cancelled: Arc::clone(&cancelled),
        };
        let task = match work {
            Work::Verify => {
                known.verify = running_at;
                let stored = known.stored.clone();
                let on_gpu = self.tensorrt().is_some();
                tokio::spawn(async move {
                    let finish = job.clone();
                    let result = spawn_blocking(move || match stored {
                        Some(stored) => {
                            let fetched = model::verify(&job, &stored)?;
                            if on_gpu {
                                model::verify_engine(&job)?;
                            }
                            Ok(fetched)
                        }
                        None => Err(failure(Reason::ModelNotFound, "Nothing is stored.")),
                    });
                    finish.finish(work, flatten(result.await));
                })
            }
            Work::FetchModel => {
                known.model = running_at;
                let origin = known.origin.clone();
                self.spawn_fetch(job, origin)
            }
            Work::FetchBundle => {
                known.bundle = Step::Failed {
                    at: now,
                    failure: failure(Reason::EngineNotFound, "Registries are for clusters."),
                };
                return;
            }
            Work::BuildBundle => {
                let Some(task) = self.spawn_build(job) else {
                    return;
                };
                task
            }
        };
        if let Some(known) = self.known.get_mut(revision) {
            known.running = Some(Running {
                work,
                cancelled,
                _task: AbortOnDropHandle::new(task),
            });
        }
    }

    /// `None` for what cannot be ordered: a build without a model, or where the processor serves.
    fn spawn_build(&mut self, job: Job) -> Option<tokio::task::JoinHandle<()>> {
        let tensorrt = self.tensorrt()?.clone();
        let now = self.now();
        let known = self.known.get_mut(&job.revision)?;
        let (stored, facts) = (known.stored.clone()?, known.facts.clone()?);
        known.build = Step::Running { progress_at: now };
        let build = Build {
            model: self.revisions.model(&stored),
            served: stored.served.clone(),
            out: self.revisions.engines(&job.revision),
            logs: self.state.path("logs"),
            tensorrt,
        };
        Some(tokio::spawn(async move {
            let built = build::build(&job, &build).await;
            let result = built.map(|()| Box::new(Fetched { stored, facts }));
            job.finish(Work::BuildBundle, result);
        }))
    }

    fn spawn_fetch(&self, job: Job, origin: Option<Origin>) -> tokio::task::JoinHandle<()> {
        let fetch = Fetch {
            revision: job.revision.clone(),
            events: self.events.clone(),
        };
        let wanted = self.wanted.engine.model.clone();
        let access = self.settings.access.clone();
        let file = self.wanted.model_file.clone();
        let downloads = self.state.path("models");
        let mut places = vec![self.state.path("ollama/models")];
        places.extend(self.settings.ollama_models.iter().cloned());
        let ollama = self.own_ollama();
        tokio::spawn(async move {
            let brought = match (&wanted.source, file) {
                (ModelSource::File { .. }, Some(file)) => Ok(Brought::at_hand(file)),
                (ModelSource::Ollama { name }, _)
                    if wanted.endpoint.is_none() && (ollama.is_some() || is_in(&places, name)) =>
                {
                    fetch.ollama(name, &places, ollama).await
                }
                _ => fetch.remote(&wanted, &access, &downloads).await,
            };
            let finish = job.clone();
            let result = match (brought, origin) {
                (Ok(brought), Some(origin)) => {
                    flatten(spawn_blocking(move || model::adopt(&job, &origin, &brought)).await)
                }
                (Ok(_), None) => Err(failure(
                    Reason::ModelNotFound,
                    "The spec of this revision is not known any more.",
                )),
                (Err(failure), _) => Err(failure),
            };
            finish.finish(Work::FetchModel, result);
        })
    }

    fn cancel(&mut self, revision: &RevisionId, work: Work, stalled: bool, now: Timestamp) {
        let Some(known) = self.known.get_mut(revision) else {
            return;
        };
        let step = match work {
            Work::Verify => &mut known.verify,
            Work::FetchModel => &mut known.model,
            Work::BuildBundle => &mut known.build,
            Work::FetchBundle => return,
        };
        if !matches!(step, Step::Running { .. }) {
            return;
        }
        *step = if stalled {
            Step::Failed {
                at: now,
                failure: transient(
                    if work == Work::BuildBundle {
                        Reason::BuildStalled
                    } else {
                        Reason::ModelUnreachable
                    },
                    "Nothing moved for longer than engine.build.progressDeadline.",
                ),
            }
        } else {
            Step::Todo
        };
        if let Some(running) = known.running.take() {
            running.cancelled.store(true, Ordering::Relaxed);
        }
        self.screen.finish(&shown(revision, work));
    }

    fn collect_garbage(&mut self, keep: BTreeSet<RevisionId>) {
        self.garbage = Garbage::Running;
        let (revisions, events) = (self.revisions.clone(), self.events.clone());
        spawn_blocking(move || {
            let _ended = events.send(Event::Collected(revisions.collect_garbage(&keep)));
        });
    }
}

fn is_in(places: &[PathBuf], name: &str) -> bool {
    places
        .iter()
        .any(|place| ollama_store::find(place, name).is_some())
}

/// A task that panicked is a failure of the world.
fn flatten<T>(result: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    result.unwrap_or_else(|error| {
        Err(transient(
            Reason::EnvironmentError,
            &format!("The work was cut off: {error}."),
        ))
    })
}
