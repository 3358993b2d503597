//! Files that are read in pieces at given positions.
//!
//! Positional reads into reused buffers, no memory map: a file that is truncated while it is mapped
//! ends the process with SIGBUS when the missing page is touched, which no error handling catches,
//! and a map cannot be made without `unsafe` for exactly that reason. A read gives an error instead,
//! and for data that is read once, from the first byte to the last, it costs one copy in the
//! processor's cache.

use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::OpenError;

/// An open file, and what it was when it was opened.
#[derive(Debug)]
pub(super) struct SourceFile {
    path: PathBuf,
    file: File,
    length: u64,
    changed: (i64, i64),
}

impl SourceFile {
    /// Opens a regular file.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Read {
            path: path.to_owned(),
            source,
        };
        // Before opening: opening a named pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(OpenError::NotAModel {
                path: path.to_owned(),
                problem: "is not a regular file",
            });
        }
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            length: metadata.len(),
            changed: changed(&metadata),
            file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The open file, to be read from its start.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` from byte `offset` on.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => self.was_changed(),
                kind => Error::new(kind, format!("{}: {error}", self.path.display())),
            })
    }

    /// Fails when size or time of change are no longer those of the opening.
    pub(super) fn check_unchanged(&self) -> std::io::Result<()> {
        let metadata = self.file.metadata()?;
        if metadata.len() == self.length && changed(&metadata) == self.changed {
            return Ok(());
        }
        Err(self.was_changed())
    }

    fn was_changed(&self) -> Error {
        Error::other(format!(
            "{} was changed while it was read: wait until the copy is complete, then start again",
            self.path.display()
        ))
    }
}

fn changed(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
