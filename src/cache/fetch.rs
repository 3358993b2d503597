//! Brings a revision's model into the cache.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::meter::Meter;
use super::{Report, revisions};
use crate::api::{ModelSource, Reason, RevisionId, Sha256Hex};
use crate::engine::Served;
use crate::local::model::read_facts;
use crate::local::revisions::New;
use crate::planner::{Failure, failure, transient};
use crate::sources::{self, Access, Brought};
use crate::store::digest;

/// Bytes that are copied between two looks at how far it is.
const STEP: u64 = 8 << 20;
/// Where the managed Ollama keeps its models in a cache.
const OLLAMA: &str = "ollama/models/blobs";

/// What to fetch, and where to.
#[derive(Debug)]
pub struct Fetch {
    /// Where the model comes from.
    pub source: ModelSource,
    /// What its server is reached with.
    pub access: Access,
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
/// after an interruption without harm. `meter` is told how far it is.
pub async fn fetch(order: Fetch, meter: Arc<Meter>) -> Report {
    match run(order, meter).await {
        Ok(report) => report,
        Err(failure) => Report::Failed(failure),
    }
}

async fn run(order: Fetch, meter: Arc<Meter>) -> Result<Report, Failure> {
    let folder = |name: &str| {
        let path = order.cache.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|error| disk(&error))
            .map(|()| path)
    };
    folder("revisions")?;
    let downloads = folder("downloads")?;
    let deadline = order.progress_deadline;
    let brought = tokio::select! {
        brought = bring(&order, &meter, &downloads) => brought?,
        () = meter.stalled(deadline) => {
            return Err(transient(
                Reason::ModelUnreachable,
                "Nothing moved for longer than engine.build.progressDeadline.",
            ));
        }
    };
    spawned(move || store(&order, &brought)).await
}

/// Runs what blocks.
async fn spawned<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        transient(
            Reason::EnvironmentError,
            &format!("It was cut off: {error}."),
        )
    })?
}

/// The model as a file that this process may link into the cache.
async fn bring(order: &Fetch, meter: &Arc<Meter>, downloads: &Path) -> Result<Brought, Failure> {
    match &order.source {
        ModelSource::Pvc { path, .. } => {
            let Some(claims) = &order.claims else {
                return Err(failure(Reason::SpecInvalid, "The claim is not mounted."));
            };
            let from = claims.join(path);
            let to = downloads.join(format!("{}.gguf", order.revision));
            let meter = Arc::clone(meter);
            let copied = spawned(move || copy(&from, &to, &meter).map(|()| to)).await?;
            let mut brought = Brought::at_hand(copied);
            brought.fetched = true;
            Ok(brought)
        }
        ModelSource::File { .. } => Err(failure(
            Reason::SpecInvalid,
            &format!(
                "{} is a path of a node, which pods here may not read.",
                order.source
            ),
        )),
        source => {
            let cache = &order.cache;
            let at_hand = |sha256: &Sha256Hex| at_hand(cache, sha256);
            let sha256 = order.sha256.as_ref();
            let progress = Meter::progress(meter);
            sources::bring(source, sha256, &order.access, downloads, progress, &at_hand)
                .await
                .map_err(|error| error.failure())
        }
    }
}

/// A file of the cache with this digest: another revision's, or Ollama's own.
fn at_hand(cache: &Path, sha256: &Sha256Hex) -> Option<PathBuf> {
    let store = revisions(cache);
    let same =
        |one: &&crate::local::revisions::Stored| one.sha256.as_deref() == Some(sha256.as_str());
    let revision = store.all().iter().find(same).map(|one| store.model(one));
    let blob = cache.join(OLLAMA).join(format!("sha256-{sha256}"));
    revision.or_else(|| blob.is_file().then_some(blob))
}

/// Copied, because a link cannot cross volumes and the user's file may change under us.
fn copy(from: &Path, to: &Path, meter: &Meter) -> Result<(), Failure> {
    let there = |error: std::io::Error| {
        failure(
            Reason::ModelNotFound,
            &format!("There is no such file in the claim: {error}."),
        )
    };
    let metadata = std::fs::metadata(from).map_err(there)?;
    if !metadata.is_file() {
        return Err(failure(
            Reason::ModelNotFound,
            "The path in the claim is no file.",
        ));
    }
    let mut from = File::open(from).map_err(there)?;
    let mut to = File::create(to).map_err(|error| disk(&error))?;
    let mut done = 0;
    loop {
        let copied = std::io::copy(&mut (&mut from).take(STEP), &mut to);
        let copied = copied.map_err(|error| disk(&error))?;
        if copied == 0 {
            break;
        }
        done += copied;
        meter.moved(done, Some(metadata.len()));
    }
    to.sync_all().map_err(|error| disk(&error))
}

fn store(order: &Fetch, brought: &Brought) -> Result<Report, Failure> {
    let file = &brought.model;
    let drop_file = || {
        // What is wrong is fetched anew by the next try; what is a revision's stays with it.
        if brought.fetched {
            let _left = std::fs::remove_file(file);
        }
    };
    let found = match &brought.sha256 {
        Some(checked) => checked.clone(),
        None => {
            digest::sha256(file, &mut |_| true)
                .map_err(|error| disk(&error))?
                .0
        }
    };
    if let Some(wanted) = &order.sha256
        && *wanted != found
    {
        drop_file();
        return Err(failure(
            Reason::ModelDigestMismatch,
            &format!(
                "The digest of {} is sha256 {found}, and spec.model.sha256 is {wanted}.",
                order.source
            ),
        ));
    }
    let facts = read_facts(file).inspect_err(|_| drop_file())?;
    let store = revisions(&order.cache);
    let stored = store
        .store(&New {
            revision: &order.revision,
            source: &order.source.to_string(),
            served: &order.served,
            model: file,
            declared: order.sha256.as_ref(),
            modelfile: &brought.modelfile,
        })
        .map_err(|error| disk(&error))?;
    if stored.elsewhere.is_some() {
        let text = "The cache's file system has no hard links.";
        return Err(failure(Reason::EnvironmentError, text));
    }
    store
        .note_digest(&stored, &found)
        .map_err(|error| disk(&error))?;
    drop_file();
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
