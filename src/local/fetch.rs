//! Models that have to be brought to this machine first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::event::{Event, Events};
use super::model::{failure, transient};
use super::ollama::api::Ollama;
use super::ollama::{pull_to_disk, store};
use crate::api::{Reason, RevisionId};
use crate::planner::Failure;

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Nothing for this long ends a transfer; the next try goes on where it stopped.
const SILENCE: Duration = Duration::from_mins(1);

/// Who fetches for whom.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// For which revision.
    pub revision: RevisionId,
    /// The client.
    pub client: reqwest::Client,
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

    /// Downloads one file into `folder` under a name made from its URL. What an earlier try left is
    /// gone on with; whether it is the right file is for the verification to find out.
    ///
    /// # Errors
    /// A failure of the source, or of the world.
    pub async fn https(&self, url: &str, folder: &Path) -> Result<PathBuf, Failure> {
        let name = hex::encode(Sha256::digest(url));
        let target = folder.join(format!("{name}.gguf"));
        if target.is_file() {
            return Ok(target);
        }
        let partial = folder.join(format!("{name}.partial"));
        self.download(url, &partial).await?;
        tokio::fs::rename(&partial, &target)
            .await
            .and_then(|()| crate::store::atomic::sync_folder(folder))
            .map_err(|error| disk(&error))?;
        Ok(target)
    }

    async fn download(&self, url: &str, partial: &Path) -> Result<(), Failure> {
        let mut file = tokio::fs::File::options()
            .create(true)
            .append(true)
            .open(partial)
            .await
            .map_err(|error| disk(&error))?;
        let there = file.metadata().await.map_err(|error| disk(&error))?.len();
        let mut request = self.client.get(url);
        if there > 0 {
            request = request.header(reqwest::header::RANGE, format!("bytes={there}-"));
        }
        let mut response = request.send().await.map_err(|error| link(url, &error))?;
        let mut done = there;
        match response.status().as_u16() {
            206 => {}
            // The server does not resume, or has all been taken: from the beginning.
            200 => {
                file.set_len(0).await.map_err(|error| disk(&error))?;
                done = 0;
            }
            416 if there > 0 => {
                // What is there is not a part of this file, or all of it.
                file.set_len(0).await.map_err(|error| disk(&error))?;
                let text = format!("{url} could not be resumed and starts anew.");
                return Err(transient(Reason::ModelUnreachable, &text));
            }
            status => return Err(refused(url, status)),
        }
        let total = response.content_length().map(|rest| done + rest);
        let mut report = self.reporter();
        loop {
            let chunk = tokio::time::timeout(SILENCE, response.chunk())
                .await
                .map_err(|_| transient(Reason::ModelUnreachable, &format!("{url} fell silent.")))?
                .map_err(|error| link(url, &error))?;
            let Some(chunk) = chunk else { break };
            file.write_all(&chunk).await.map_err(|error| disk(&error))?;
            done += chunk.len() as u64;
            report(done, total);
        }
        if total.is_some_and(|total| done < total) {
            let text = format!("{url} broke off; the next try goes on there.");
            return Err(transient(Reason::ModelUnreachable, &text));
        }
        file.sync_all().await.map_err(|error| disk(&error))
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
    ) -> Result<PathBuf, Failure> {
        if let Some(found) = places.iter().find_map(|place| store::find(place, name)) {
            return Ok(found);
        }
        let (Some(running), Some(own)) = (running, places.first()) else {
            return Err(transient(
                Reason::ModelUnreachable,
                &format!("{name} is not on this machine, and no Ollama of ours runs to fetch it."),
            ));
        };
        pull_to_disk(&running, own, name, &mut self.reporter()).await
    }
}

fn link(url: &str, error: &reqwest::Error) -> Failure {
    let why = if error.is_timeout() {
        "does not answer in time"
    } else if error.is_connect() {
        "does not accept connections"
    } else {
        "broke off"
    };
    transient(Reason::ModelUnreachable, &format!("{url} {why}."))
}

fn refused(url: &str, status: u16) -> Failure {
    let text = format!("{url} answers with status {status}.");
    match status {
        401 | 403 => failure(Reason::ModelUnauthorized, &text),
        404 | 410 => failure(Reason::ModelNotFound, &text),
        _ => transient(Reason::ModelUnreachable, &text),
    }
}

fn disk(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => {
            transient(Reason::OutOfDisk, "There is no space for the model.")
        }
        _ => transient(
            Reason::EnvironmentError,
            &format!("The model cannot be stored: {error}."),
        ),
    }
}
