//! A bundle in the making: a directory with a temporary name until it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Bundle, BundleError, FileFacts, MANIFEST, Manifest};
use crate::store::atomic;

/// Bytes collected before they are written: TensorRT writes some plans in small pieces.
const BUFFER: usize = 1 << 20;

/// The files of a bundle that are there so far. Dropped before [`Draft::publish`], it leaves nothing;
/// killed, it leaves a directory whose name says that it is not a bundle, which the next build removes.
#[derive(Debug)]
pub struct Draft {
    folder: tempfile::TempDir,
    files: BTreeMap<String, FileFacts>,
}

/// Writes a file and hashes what is written.
#[derive(Debug)]
pub struct HashedFile {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Draft {
    /// Begins one beside the place where the bundle shall be. The caller has the lock on `parent`.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn begin(parent: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Write {
            path: parent.to_owned(),
            source,
        };
        std::fs::create_dir_all(parent).map_err(failed)?;
        Ok(Self {
            folder: atomic::temporary_folder(parent).map_err(failed)?,
            files: BTreeMap::new(),
        })
    }

    /// Where it is being written.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes one file through `write` and brings it to the disk.
    ///
    /// # Errors
    /// What `write` says, or [`BundleError::Write`].
    pub fn file<E: From<BundleError>>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut HashedFile) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path().join(name);
        let failed = |source| E::from(Self::failed(&path, source));
        let mut file = HashedFile {
            file: BufWriter::with_capacity(BUFFER, File::create_new(&path).map_err(failed)?),
            hash: Sha256::new(),
            size: 0,
        };
        write(&mut file)?;
        let HashedFile { file, hash, size } = file;
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let facts = FileFacts {
            size,
            sha256: hex::encode(hash.finalize()),
        };
        self.files.insert(name.to_owned(), facts);
        Ok(())
    }

    fn failed(path: &Path, source: std::io::Error) -> BundleError {
        BundleError::Write {
            path: path.to_owned(),
            source,
        }
    }

    /// Sizes and digests so far, for the manifest.
    pub fn files(&self) -> &BTreeMap<String, FileFacts> {
        &self.files
    }

    /// Writes the manifest, last, and gives the whole its name `to`. A bundle that is there already is
    /// replaced: the caller decided so.
    ///
    /// # Errors
    /// When it cannot be written; nothing at `to` was changed then.
    pub fn publish(mut self, manifest: &Manifest, to: &Path) -> Result<Bundle, BundleError> {
        let bytes = manifest
            .to_bytes()
            .map_err(|error| Self::failed(to, std::io::Error::other(error)))?;
        // Before it has a name: what could not be opened again is no bundle.
        Manifest::parse(&bytes).map_err(|problem| problem.at(to))?;
        self.file::<BundleError>(MANIFEST, |file| {
            let written = file.write_all(&bytes);
            written.map_err(|source| Self::failed(to, source))
        })?;
        let path = self.path().to_owned();
        let failed = |source| Self::failed(to, source);
        // Names inside first, then the name of the whole.
        atomic::sync_folder(&path).map_err(failed)?;
        // From here on the directory is not removed by being dropped.
        let kept = self.folder.keep();
        if let Err(source) = rename(&kept, to) {
            let _best_effort = std::fs::remove_dir_all(&kept);
            return Err(failed(source));
        }
        Bundle::open(to)
    }
}

/// Gives `from` the name `to`. What is there already is exchanged in one step, so that there is a whole
/// bundle at every moment, and then removed.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};

    if !to.try_exists()? {
        return atomic::publish(from, to);
    }
    renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?;
    atomic::sync_folder(
        to.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new(".")),
    )?;
    // It has the temporary name now: where this fails, the next build removes it.
    let _later = std::fs::remove_dir_all(from);
    Ok(())
}
