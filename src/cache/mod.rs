//! Work on a node's cache, done by Jobs in the cluster: bring a revision's model, check what will be
//! loaded, delete what is not wanted any more.
//!
//! It decides nothing about when; it reports what came of it, with whose fault a failure was.

mod fetch;
mod meter;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::api::{RevisionId, Sha256Hex};
use crate::local::revisions::Revisions;
use crate::model::ModelFacts;
use crate::planner::Failure;
use crate::store::digest;

pub use fetch::{Fetch, fetch};
pub use meter::Meter;

/// What a fetch or a build reports in its termination message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The model is in the cache, complete.
    #[serde(rename_all = "camelCase")]
    Fetched {
        /// Its digest.
        sha256: String,
        /// What its file says of itself.
        facts: ModelFacts,
    },
    /// The engine is in the cache, complete.
    #[serde(rename_all = "camelCase")]
    Built {
        /// Name of its bundle's folder.
        bundle: String,
    },
    /// It is not.
    Failed(Failure),
}

/// The folder of revisions in a cache.
pub fn revisions(cache: &Path) -> Revisions {
    Revisions::new(cache.join("revisions"))
}

/// Deletes every revision but those of `keep`.
///
/// # Errors
/// What the file system says.
pub fn collect(cache: &Path, keep: &BTreeSet<RevisionId>) -> std::io::Result<()> {
    let folder = cache.join("revisions");
    if !folder.is_dir() {
        return Ok(());
    }
    revisions(cache).collect_garbage(keep)
}

/// Why a model must not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is another file than the one that was verified.
    #[error("the digest of {path} is sha256 {found}, and {wanted} was verified: it was changed")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest found.
        found: Sha256Hex,
        /// The digest wanted.
        wanted: Sha256Hex,
    },
}

/// Checks the bytes that will be loaded.
///
/// # Errors
/// [`CheckError`].
pub fn check(path: &Path, wanted: &Sha256Hex) -> Result<(), CheckError> {
    let (found, _) = digest::sha256(path, &mut |_| true).map_err(|source| CheckError::Read {
        path: path.to_owned(),
        source,
    })?;
    if found == *wanted {
        return Ok(());
    }
    Err(CheckError::Changed {
        path: path.to_owned(),
        found,
        wanted: wanted.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_model_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let wanted = Sha256Hex::new(abc).unwrap();
        check(&path, &wanted).unwrap();
        std::fs::write(&path, "abd").unwrap();
        let error = check(&path, &wanted).unwrap_err();
        assert!(matches!(error, CheckError::Changed { .. }), "{error}");
    }

    #[test]
    fn collecting_in_an_empty_cache_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        collect(folder.path(), &BTreeSet::new()).unwrap();
    }
}
