//! What events do to the loop's state. Nothing is decided here; the next plan sees the result.

use super::super::event::Event;
use super::super::model::Fetched;
use super::Supervisor;
use crate::api::{ModelSource, Reason, RevisionId};
use crate::planner::{Failure, Garbage, Phase, Proof, Step, Work};
use crate::probe::health;
use crate::sources;

impl Supervisor {
    pub(super) fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::WorkProgress {
                revision,
                done,
                total,
            } => {
                if let Some(known) = self.known.get_mut(&revision)
                    && let Some(running) = &known.running
                {
                    let step = match running.work {
                        Work::Verify => &mut known.verify,
                        Work::BuildBundle => &mut known.build,
                        Work::FetchModel | Work::FetchBundle => &mut known.model,
                    };
                    *step = Step::Running { progress_at: now };
                    let work = running.work;
                    self.screen
                        .progress(&shown(&revision, work), work, done, total);
                }
            }
            Event::WorkEnded {
                revision,
                work,
                result,
            } => self.work_ended(&revision, work, result),
            Event::EngineReady(id) => {
                if let Some(engine) = self.engines.get_mut(&id)
                    && matches!(engine.instance.phase, Phase::Starting { .. })
                {
                    engine.instance.phase = Phase::Ready;
                }
            }
            Event::EngineEnded(id, status) => {
                let stays = self
                    .engines
                    .get_mut(&id)
                    .is_some_and(|engine| engine.ended(status, now));
                if !stays {
                    self.engines.remove(&id);
                }
            }
            Event::Proved(id, number, outcome) => {
                if let Some(engine) = self.engines.get_mut(&id)
                    && engine.proofs == number
                {
                    tracing::info!(engine = %id, ?outcome, "proved");
                    engine.instance.proof = Proof::Done {
                        at: now,
                        smoke: outcome.smoke,
                        objectives: outcome.objectives,
                        measured: outcome.measured,
                    };
                }
            }
            Event::Probed {
                instance,
                finding,
                throttled,
            } => {
                if let Some(engine) = self.engines.get_mut(&instance)
                    && let Some(health) = engine.instance.health
                {
                    tracing::debug!(engine = %instance, ?finding, "probed");
                    engine.instance.health = Some(health::after(health, &finding, throttled, now));
                }
            }
            Event::GatewayReady(start) => self.gateway.ready(start, now),
            Event::GatewayEnded(start, status) => self.gateway.ended(start, status, now),
            Event::RoutesInForce(start, generation) => self.gateway.in_force(start, generation),
            Event::Fallback(start, event) => self.take_fallback(start, event, now),
            Event::Collected(result) => {
                self.garbage = match result {
                    Ok(()) => Garbage::Idle,
                    Err(_) => Garbage::Failed { at: now },
                };
                self.forget_collected();
            }
            Event::FileChanged => self.reload(),
            Event::Stop => {
                self.screen.say("ending; press Ctrl-C again to end at once");
                self.stopping = true;
            }
        }
    }

    fn work_ended(
        &mut self,
        revision: &RevisionId,
        work: Work,
        result: Result<Box<Fetched>, Failure>,
    ) {
        let at = self.now();
        self.screen.finish(&shown(revision, work));
        let own_file = matches!(self.wanted.engine.model.source, ModelSource::File { .. });
        let Some(known) = self.known.get_mut(revision) else {
            return;
        };
        known.running = None;
        let step = match result {
            Ok(fetched) => {
                let Fetched { stored, facts } = *fetched;
                known.stored = Some(stored);
                known.facts = Some(facts);
                Step::Done
            }
            Err(failure) => {
                tracing::warn!(%revision, ?work, message = failure.message, "work failed");
                let worthless = failure.reason == Reason::ModelDigestMismatch
                    || failure.reason == Reason::ModelInvalid;
                if work == Work::Verify && worthless && !own_file {
                    // Fetched anew by the next try.
                    self.forget_model(revision);
                }
                if failure.reason == Reason::EngineDigestMismatch
                    && let Some(known) = self.known.get_mut(revision)
                {
                    // It was deleted, and is built anew by the next try.
                    known.build = Step::Todo;
                }
                Step::Failed { at, failure }
            }
        };
        if let Some(known) = self.known.get_mut(revision) {
            match work {
                Work::Verify => known.verify = step,
                Work::FetchModel => {
                    known.model = step;
                    // What was built lay beside the model that it replaces.
                    known.build = Step::Todo;
                }
                Work::BuildBundle => known.build = step,
                Work::FetchBundle => known.bundle = step,
            }
        }
    }

    /// Deletes what was fetched for a revision and turned out to be wrong.
    fn forget_model(&mut self, revision: &RevisionId) {
        let Some(known) = self.known.get_mut(revision) else {
            return;
        };
        // What cannot be deleted is found wrong again.
        if let Some(stored) = known.stored.take() {
            let path = self.revisions.model(&stored);
            let _left = stored
                .elsewhere
                .and_then(|_| std::fs::remove_file(path).ok());
            let _left = self.revisions.delete(revision);
        }
        sources::forget(&self.state.path("models"));
        known.facts = None;
        known.model = Step::Todo;
    }

    fn forget_collected(&mut self) {
        let there = self.revisions.all();
        let desired = &self.wanted.revision;
        self.known.retain(|id, known| {
            id == desired
                || known.running.is_some()
                || there.iter().any(|stored| stored.revision == *id)
        });
    }
}

/// The name of work that moves, for people.
pub(super) fn shown(revision: &RevisionId, work: Work) -> String {
    match work {
        Work::BuildBundle => format!("engine {revision}"),
        Work::FetchModel | Work::FetchBundle | Work::Verify => format!("model {revision}"),
    }
}
