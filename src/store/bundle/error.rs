//! Why a directory is not a bundle that may be used.

use std::path::{Path, PathBuf};

use super::{MANIFEST, SCHEMA};

/// What is wrong with a bundle, or with writing one.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is no manifest.
    #[error("{} is no engine bundle: it has no manifest.json; make one with `enginewright engine build`", .path.display())]
    NotABundle {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not what was written there.
    #[error(
        "the engine bundle {} is damaged: {file} {problem}; delete the directory and build or fetch \
         the engine again", .bundle.display()
    )]
    Damaged {
        /// The directory.
        bundle: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A newer program has written it.
    #[error(
        "the engine bundle {} has schema {found}, this program knows up to {SCHEMA}: use the version \
         of enginewright that built it, or build the engine again with this one", .bundle.display()
    )]
    Newer {
        /// The directory.
        bundle: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// Something in it cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something of it cannot be written.
    #[error("{} cannot be written: {source}{}", .path.display(), hint(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something at its place already that is not this bundle.
    #[error(
        "{} is there already and is no whole bundle ({problem}): move it away or choose another \
         directory with --out", .path.display()
    )]
    Occupied {
        /// The place.
        path: PathBuf,
        /// What is wrong with what is there.
        problem: String,
    },
}

fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ": free some space there, or choose another directory with --out"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ": give this user the right to write there, or choose another directory with --out"
        }
        _ => "",
    }
}

/// What is wrong with the bytes of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ManifestProblem {
    Newer(u64),
    Damaged(String),
}

impl ManifestProblem {
    pub(super) fn at(self, bundle: &Path) -> BundleError {
        let bundle = bundle.to_owned();
        match self {
            Self::Newer(found) => BundleError::Newer { bundle, found },
            Self::Damaged(problem) => BundleError::Damaged {
                bundle,
                file: MANIFEST.to_owned(),
                problem,
            },
        }
    }
}
