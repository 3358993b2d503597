//! The state directory: what must survive a crash is written so that it does, and only one process
//! writes it.
//!
//! It decides how bytes get to the disk, not which. What is in the directory:
//!
//! | path | what | lost when deleted |
//! |---|---|---|
//! | `version.json` | schema of this directory | nothing |
//! | `lock` | held by the one `run` that uses it | nothing |
//! | `durable.json` | the planner's memory across restarts | quarantine, last good revision |
//! | `status.json` | the last report, for `enginewright status` | nothing |
//! | `routes.json` | the gateway's route table | nothing |
//! | `revisions/` | one folder per revision: its spec and its model | what can be rolled back to |
//! | `models/` | models that were downloaded | a download |
//! | `ollama/` | the managed Ollama's models | a copy of the model |
//! | `logs/` | output of the child processes | nothing |

pub mod atomic;
pub mod bundle;
pub mod digest;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Schema of the state directory that this program reads and writes.
pub const SCHEMA: u32 = 1;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something in it cannot be created or written.
    #[error(
        "the state directory {} cannot be written ({source}): give this user the right to write \
         there, or choose another with --state-dir", .path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No space is left.
    #[error("the disk with the state directory {} is full: free some space there", .path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// Something in it cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file in it is not what was written there.
    #[error(
        "{} is damaged ({detail}): delete it; the state directory's documentation says what is \
         lost with it", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A newer program has written it.
    #[error(
        "the state directory {} has schema {found}, this program knows up to {SCHEMA}: it was \
         written by a newer version; start that version, or choose another directory with \
         --state-dir", .path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// Another process uses it.
    #[error(
        "the state directory {} is in use by process {holder}: stop that `enginewright run` first, \
         or choose another directory with --state-dir", .path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its process id, as far as it can be read.
        holder: String,
    },
}

impl StoreError {
    fn write(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::NotWritable { path, source },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Version {
    schema: u32,
}

/// The state directory, open and locked for this process until dropped.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held open: closing it releases the lock, also when the process is killed.
    _lock: File,
}

impl StateDir {
    /// Creates the directory where it is missing, locks it, checks its schema and that it can be
    /// written.
    ///
    /// # Errors
    /// Every variant of [`StoreError`]; nothing was changed in a directory of a newer version.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::write(root, source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let lock = lock(&root)?;
        let directory = Self { root, _lock: lock };
        if let Some(Version { schema }) = directory.read_json("version.json")?
            && schema > SCHEMA
        {
            return Err(StoreError::Newer {
                path: directory.root,
                found: schema,
            });
        }
        directory.write_json("version.json", &Version { schema: SCHEMA })?;
        atomic::remove_leftovers(&directory.root);
        for folder in ["revisions", "models", "logs"] {
            directory.folder(folder)?;
        }
        Ok(directory)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder in it, created where missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.path(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|source| StoreError::write(&self.root, source))?;
        Ok(path)
    }

    /// Replaces a file as a whole: after a crash it is the old one or the new one.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::NotWritable`]; the old file is intact.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| StoreError::Damaged {
            path: self.path(name),
            detail: error.to_string(),
        })?;
        bytes.push(b'\n');
        atomic::write(&self.path(name), &bytes)
            .map_err(|source| StoreError::write(&self.root, source))
    }

    /// Reads a file that [`StateDir::write_json`] wrote; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Damaged`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        read_json(&self.path(name))
    }
}

/// Reads a JSON file without holding the directory's lock: what `status` does while `run` runs.
///
/// # Errors
/// [`StoreError::Read`] or [`StoreError::Damaged`].
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoreError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            detail: error.to_string(),
        })
}

/// The process that uses a state directory now; `None` when nobody does.
pub fn holder(root: &Path) -> Option<String> {
    let file = File::open(root.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_holder(file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::write(root, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::Locked {
                path: root.to_owned(),
                holder: read_holder(file),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Only for the message of the next one who tries.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

fn read_holder(mut file: File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| Read::by_ref(&mut file).take(32).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_missing_is_none() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = StateDir::open(&temporary.path().join("a/b")).unwrap();
        assert_eq!(directory.read_json::<Vec<u32>>("x.json").unwrap(), None);
        directory.write_json("x.json", &[1, 2]).unwrap();
        assert_eq!(
            directory.read_json::<Vec<u32>>("x.json").unwrap(),
            Some(vec![1, 2])
        );
    }

    #[test]
    fn a_second_user_is_refused_with_the_first_ones_process_id() {
        let temporary = tempfile::tempdir().unwrap();
        assert_eq!(holder(temporary.path()), None);
        let first = StateDir::open(temporary.path()).unwrap();
        let error = StateDir::open(temporary.path()).unwrap_err();
        let own = std::process::id().to_string();
        assert!(
            matches!(&error, StoreError::Locked { holder, .. } if *holder == own),
            "{error}"
        );
        assert_eq!(holder(temporary.path()), Some(own));
        drop(first);
        assert_eq!(holder(temporary.path()), None);
        StateDir::open(temporary.path()).unwrap();
    }

    #[test]
    fn a_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        drop(StateDir::open(temporary.path()).unwrap());
        let file = temporary.path().join("version.json");
        std::fs::write(&file, r#"{"schema": 99, "more": true}"#).unwrap();
        let error = StateDir::open(temporary.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found: 99, .. }),
            "{error}"
        );
        let after = std::fs::read_to_string(&file).unwrap();
        assert_eq!(after, r#"{"schema": 99, "more": true}"#);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = StateDir::open(temporary.path()).unwrap();
        std::fs::write(directory.path("x.json"), "{").unwrap();
        let error = directory.read_json::<Vec<u32>>("x.json").unwrap_err();
        assert!(error.to_string().contains("x.json"), "{error}");
    }

    #[test]
    fn a_place_where_nothing_can_be_created_is_named_with_the_remedy() {
        let error = StateDir::open(Path::new("/proc/enginewright")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/proc/enginewright") && text.contains("--state-dir"),
            "{text}"
        );
    }
}
