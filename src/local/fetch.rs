//! Models that have to be brought to this machine first.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Event, Events};
use super::ollama::api::Ollama;
use super::ollama::pull_to_disk;
use crate::api::{Model, Reason, RevisionId};
use crate::model::ollama_store;
use crate::planner::{Failure, transient};
use crate::sources::{self, Access, Brought, Progress};

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Who fetches for whom.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// For which revision.
    pub revision: RevisionId,
    /// Where to report.
    pub events: Events,
}

impl Fetch {
    fn reporter(&self) -> impl FnMut(u64, Option<u64>) + Send + use<> {
        let (revision, events) = (self.revision.clone(), self.events.clone());
        let mut last: Option<Instant> = None;
        move |done, total| {
            if last.is_none_or(|last| last.elapsed() > REPORT_EVERY) {
                last = Some(Instant::now());
                let _ended = events.send(Event::WorkProgress {
                    revision: revision.clone(),
                    done,
                    total,
                });
            }
        }
    }

    /// Brings a model from where it is published into `folder`. What an earlier try left is gone on
    /// with.
    ///
    /// # Errors
    /// A failure of the source, or of the world.
    pub async fn remote(
        &self,
        model: &Model,
        access: &Access,
        folder: &Path,
    ) -> Result<Brought, Failure> {
        let reporter = Mutex::new(self.reporter());
        let progress: Progress = Arc::new(move |done, total| {
            (reporter.lock().unwrap_or_else(PoisonError::into_inner))(done, total);
        });
        let access = Access {
            endpoint: model.endpoint.clone(),
            ..access.clone()
        };
        let sha256 = model.sha256.as_ref();
        sources::bring(&model.source, sha256, &access, folder, progress, &|_| None)
            .await
            .map_err(|error| error.failure())
    }

    /// The file of a model of Ollama's: where one of `places` has it, else through a running Ollama
    /// that keeps its models in the first of them.
    ///
    /// # Errors
    /// A failure of the source, or of the world.
    pub async fn ollama(
        &self,
        name: &str,
        places: &[PathBuf],
        running: Option<Ollama>,
    ) -> Result<Brought, Failure> {
        if let Some(found) = places.iter().find_map(|place| in_store(place, name)) {
            return Ok(found);
        }
        let (Some(running), Some(own)) = (running, places.first()) else {
            return Err(transient(
                Reason::ModelUnreachable,
                &format!("{name} is not on this machine, and no Ollama of ours runs to fetch it."),
            ));
        };
        pull_to_disk(&running, name, &mut self.reporter()).await?;
        in_store(own, name).ok_or_else(|| {
            let own = own.display();
            transient(
                Reason::ModelUnreachable,
                &format!("Ollama fetched {name}, but its file is not in {own}."),
            )
        })
    }
}

/// A model in a store of Ollama's, with what lies beside it there.
fn in_store(store: &Path, name: &str) -> Option<Brought> {
    let mut brought = Brought::at_hand(ollama_store::find(store, name)?.path);
    brought.modelfile = ollama_store::modelfile(store, name);
    Some(brought)
}
