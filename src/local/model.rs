//! Work on a revision's model: bring it here, check it. Runs beside the loop and reports to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::config::Served;
use super::event::{Event, Events};
use super::revisions::{New, Revisions, Stored};
use crate::api::{Reason, RevisionId, Sha256Hex};
use crate::model::gguf::{GgufError, GgufFile};
use crate::model::{ModelError, ModelFacts};
use crate::planner::{Failure, Work, failure, transient};
use crate::sources::Brought;
use crate::store::digest::{self, DigestCache, FileIdentity};

/// Least time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// What came out of work on a model.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The record on disk.
    pub stored: Stored,
    /// What the file's metadata say.
    pub facts: ModelFacts,
}

/// What a piece of work needs.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which revision.
    pub revision: RevisionId,
    /// Where models of revisions are kept.
    pub revisions: Revisions,
    /// Digests computed before.
    pub digests: Digests,
    /// Where to report.
    pub events: Events,
    /// Set to end the work.
    pub cancelled: Arc<AtomicBool>,
}

/// Digests computed before, kept on disk.
#[derive(Clone, Debug)]
pub struct Digests {
    file: PathBuf,
}

impl Digests {
    /// Kept in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// The digest of a file: the one computed before, or computed now.
    ///
    /// # Errors
    /// When it cannot be read, or `progress` said no.
    pub fn of(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> std::io::Result<Sha256Hex> {
        let load = || -> DigestCache {
            // A cache that cannot be read is only computed anew.
            crate::store::read_json(&self.file)
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        if let Some(known) = load().get(path) {
            return Ok(known);
        }
        let (digest, identity) = digest::sha256(path, progress)?;
        let mut cache = load();
        cache.insert(path, identity, &digest);
        if let Ok(bytes) = serde_json::to_vec_pretty(&cache) {
            // One that cannot be written costs time at the next start.
            let _lost = crate::store::atomic::write(&self.file, &bytes);
        }
        Ok(digest)
    }
}

/// The model as the user named it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// As written.
    pub source: String,
    /// What an engine is started with.
    pub served: Served,
    /// Digest that the spec demands.
    pub declared: Option<Sha256Hex>,
}

/// Takes a file that is there into the revision's folder. Blocks.
///
/// # Errors
/// A failure of the revision, or of the world.
pub fn adopt(job: &Job, origin: &Origin, brought: &Brought) -> Result<Box<Fetched>, Failure> {
    let file = &brought.model;
    FileIdentity::of(file).map_err(|error| not_a_file(file, &error))?;
    let facts = read_facts(file)?;
    let stored = job
        .revisions
        .store(&New {
            revision: &job.revision,
            source: &origin.source,
            served: &origin.served,
            model: file,
            declared: origin.declared.as_ref(),
            modelfile: &brought.modelfile,
        })
        .map_err(|error| disk(&error))?;
    Ok(Box::new(Fetched { stored, facts }))
}

/// Checks the bytes that an engine would load. Blocks; reports progress.
///
/// # Errors
/// A failure of the revision, or of the world.
pub fn verify(job: &Job, stored: &Stored) -> Result<Box<Fetched>, Failure> {
    let path = job.revisions.model(stored);
    let total = FileIdentity::of(&path)
        .map_err(|error| not_a_file(&path, &error))?
        .size;
    let mut reported = Instant::now();
    let mut progress = |done: u64| {
        if reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            job.report(done, Some(total));
        }
        !job.cancelled.load(Ordering::Relaxed)
    };
    let digest = job
        .digests
        .of(&path, &mut progress)
        .map_err(|error| disk(&error))?;
    for (expected, whose) in [
        (&stored.declared, "the one in spec.model.sha256"),
        (&stored.sha256, "the one found when it was first verified"),
    ] {
        if let Some(expected) = expected
            && expected != digest.as_str()
        {
            return Err(failure(
                Reason::ModelDigestMismatch,
                &format!(
                    "The digest of the model from {} is sha256 {digest}, and {whose} is \
                     {expected}.",
                    stored.source
                ),
            ));
        }
    }
    let facts = read_facts(&path)?;
    let stored = job
        .revisions
        .note_digest(stored, &digest)
        .map_err(|error| disk(&error))?;
    Ok(Box::new(Fetched { stored, facts }))
}

/// Checks every byte of the engine that was built for a revision. Blocks. One that is not what was built
/// is deleted, so that it is built anew.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn verify_engine(job: &Job) -> Result<(), Failure> {
    let Some(bundle) = job.revisions.engine(&job.revision) else {
        let text = "The engine that was built is not there any more.";
        return Err(failure(Reason::EngineNotFound, text));
    };
    let total = bundle.manifest().files.values().map(|file| file.size).sum();
    let mut reported = Instant::now();
    let verified = bundle.verify(&mut |done, _| {
        if reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            job.report(done, Some(total));
        }
    });
    verified.map_err(|error| {
        // What cannot be deleted is found wrong again.
        let _left = std::fs::remove_dir_all(bundle.path());
        failure(
            Reason::EngineDigestMismatch,
            &format!("The engine is damaged: {error}."),
        )
    })
}

/// What a model file's metadata say.
///
/// # Errors
/// When it is no model that can be served.
pub fn read_facts(path: &Path) -> Result<ModelFacts, Failure> {
    let file = GgufFile::open(path).map_err(|error| unreadable(path, &error))?;
    crate::model::check(&file).map_err(|error| unsupported(path, &error))
}

impl Job {
    /// Tells the loop that the work moves.
    pub fn report(&self, done: u64, total: Option<u64>) {
        // The loop only ends when everything does.
        let _ended = self.events.send(Event::WorkProgress {
            revision: self.revision.clone(),
            done,
            total,
        });
    }

    /// Reports how the work ended, unless nobody waits for it any more.
    pub fn finish(&self, work: Work, result: Result<Box<Fetched>, Failure>) {
        if !self.cancelled.load(Ordering::Relaxed) {
            let _ended = self.events.send(Event::WorkEnded {
                revision: self.revision.clone(),
                work,
                result,
            });
        }
    }
}

fn not_a_file(path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let path = path.display();
    match error.kind() {
        NotFound | NotADirectory => failure(
            Reason::ModelNotFound,
            &format!("There is no model file at {path}."),
        ),
        _ => failure(
            Reason::ModelNotFound,
            &format!("The model file {path} cannot be used: {error}."),
        ),
    }
}

fn unreadable(path: &Path, error: &GgufError) -> Failure {
    failure(
        Reason::ModelInvalid,
        &format!(
            "{} is no GGUF model that can be read: {error}.",
            path.display()
        ),
    )
}

fn unsupported(path: &Path, error: &ModelError) -> Failure {
    let reason = match error {
        ModelError::Architecture { .. } => Reason::ModelUnsupported,
        ModelError::Entry { .. } | ModelError::Tensor { .. } => Reason::ModelInvalid,
    };
    failure(
        reason,
        &format!("{} cannot be served: {error}.", path.display()),
    )
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
