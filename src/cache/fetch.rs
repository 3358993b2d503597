//! Brings a revision's model into the cache.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Report, revisions};
use crate::api::{ModelSource, Reason, RevisionId, Sha256Hex};
use crate::engine::Served;
use crate::local::event::Event;
use crate::local::fetch::Fetch as Transfer;
use crate::local::model::{failure, read_facts, transient};
use crate::local::revisions::New;
use crate::planner::Failure;
use crate::store::digest;

/// Least time between two lines about progress.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What to fetch, and where to.
#[derive(Debug)]
pub struct Fetch {
    /// Where the model comes from.
    pub source: ModelSource,
    /// The cache.
    pub cache: PathBuf,
    /// For which revision.
    pub revision: RevisionId,
    /// What its record shall say.
    pub served: Served,
    /// Digest that the spec demands.
    pub sha256: Option<Sha256Hex>,
    /// Where the claim of a `pvc://` source is mounted.
    pub claims: Option<PathBuf>,
    /// Longest time without progress.
    pub progress_deadline: Duration,
}

/// Fetches, verifies, stores: complete under the revision's name, or not there at all. Runs again
/// after an interruption without harm.
pub async fn fetch(order: Fetch, client: reqwest::Client) -> Report {
    match run(order, client).await {
        Ok(report) => report,
        Err(failure) => Report::Failed(failure),
    }
}

async fn run(order: Fetch, client: reqwest::Client) -> Result<Report, Failure> {
    let folder = |name: &str| {
        let path = order.cache.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|error| disk(&error))
            .map(|()| path)
    };
    folder("revisions")?;
    let downloads = folder("downloads")?;
    let (events, inbox) = unbounded_channel();
    let transfer = Transfer {
        revision: order.revision.clone(),
        client,
        events,
    };
    let brought = tokio::select! {
        brought = bring(&order, &transfer, &downloads) => brought?,
        failure = watch(inbox, order.progress_deadline) => return Err(failure),
    };
    tokio::task::spawn_blocking(move || store(&order, &brought))
        .await
        .map_err(|error| {
            transient(
                Reason::EnvironmentError,
                &format!("It was cut off: {error}."),
            )
        })?
}

/// The model as a file that this process may link into the cache.
async fn bring(order: &Fetch, transfer: &Transfer, downloads: &Path) -> Result<PathBuf, Failure> {
    match &order.source {
        ModelSource::Https { url } => transfer.https(url, downloads).await,
        ModelSource::Pvc { path, .. } => {
            let Some(claims) = &order.claims else {
                return Err(failure(Reason::SpecInvalid, "The claim is not mounted."));
            };
            let from = claims.join(path);
            let name = downloads.join(format!("{}.gguf", order.revision));
            tokio::task::spawn_blocking(move || copy(&from, &name))
                .await
                .map_err(|error| {
                    transient(
                        Reason::EnvironmentError,
                        &format!("It was cut off: {error}."),
                    )
                })?
        }
        // Each further kind of source is one more arm: a file in `downloads`, progress in `transfer`.
        other => Err(failure(
            Reason::SpecInvalid,
            &format!(
                "{other} cannot be fetched in a cluster by this version; pvc:// and https:// can."
            ),
        )),
    }
}

/// Copied, because a link cannot cross volumes and the user's file may change under us.
fn copy(from: &Path, to: &Path) -> Result<PathBuf, Failure> {
    let metadata = std::fs::metadata(from).map_err(|error| {
        failure(
            Reason::ModelNotFound,
            &format!("There is no such file in the claim: {error}."),
        )
    })?;
    if !metadata.is_file() {
        return Err(failure(
            Reason::ModelNotFound,
            "The path in the claim is no file.",
        ));
    }
    std::fs::copy(from, to).map_err(|error| disk(&error))?;
    Ok(to.to_owned())
}

/// Says how far it is; returns when nothing moves for too long.
async fn watch(mut inbox: UnboundedReceiver<Event>, deadline: Duration) -> Failure {
    let mut said = Instant::now();
    loop {
        match tokio::time::timeout(deadline, inbox.recv()).await {
            Ok(Some(Event::WorkProgress { done, total, .. })) => {
                if said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    tracing::info!(done, total, "fetching");
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => std::future::pending().await,
            Err(_) => {
                return transient(
                    Reason::ModelUnreachable,
                    "Nothing moved for longer than engine.build.progressDeadline.",
                );
            }
        }
    }
}

fn store(order: &Fetch, brought: &Path) -> Result<Report, Failure> {
    let (found, _) = digest::sha256(brought, &mut |_| true).map_err(|error| disk(&error))?;
    if let Some(wanted) = &order.sha256
        && *wanted != found
    {
        // What is wrong is fetched anew by the next try.
        let _left = std::fs::remove_file(brought);
        return Err(failure(
            Reason::ModelDigestMismatch,
            &format!(
                "The digest of {} is sha256 {found}, and spec.model.sha256 is {wanted}.",
                order.source
            ),
        ));
    }
    let facts = match read_facts(brought) {
        Ok(facts) => facts,
        Err(failure) => {
            let _left = std::fs::remove_file(brought);
            return Err(failure);
        }
    };
    let store = revisions(&order.cache);
    let stored = store
        .store(&New {
            revision: &order.revision,
            source: &order.source.to_string(),
            served: &order.served,
            model: brought,
            declared: order.sha256.as_ref(),
        })
        .map_err(|error| disk(&error))?;
    if stored.elsewhere.is_some() {
        let text = "The cache's file system has no hard links.";
        return Err(failure(Reason::EnvironmentError, text));
    }
    let _left = std::fs::remove_file(brought);
    Ok(Report::Fetched {
        sha256: found.to_string(),
        facts,
    })
}

fn disk(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => transient(
            Reason::OutOfDisk,
            "There is no space for the model in the cache.",
        ),
        _ => transient(
            Reason::EnvironmentError,
            &format!("The model cannot be stored: {error}."),
        ),
    }
}
