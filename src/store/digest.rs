//! Digests of large files, with a memory of what was computed: gigabytes are hashed once, not at
//! every start.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::Sha256Hex;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Tells whether a file is still the one that was looked at, without reading it: device, number,
/// size and time of change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    /// Size in bytes.
    pub size: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl FileIdentity {
    /// Of a file.
    ///
    /// # Errors
    /// When there is none, or it is not a regular file.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if metadata.is_file() {
            Ok(Self::from_metadata(&metadata))
        } else {
            Err(std::io::Error::new(
                ErrorKind::InvalidInput,
                "it is not a regular file",
            ))
        }
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }

    /// What stays the same when the file is copied with its times, linked, or the disk is mounted
    /// elsewhere: size and time of change, as text to be hashed.
    pub fn content_hint(&self) -> String {
        let Self {
            size,
            modified_seconds,
            modified_nanoseconds,
            ..
        } = self;
        format!("{size}:{modified_seconds}.{modified_nanoseconds:09}")
    }
}

/// SHA-256 of a whole file; `progress` gets the bytes read so far and may stop it with `false`.
///
/// # Errors
/// When the file cannot be read; [`ErrorKind::Interrupted`] when stopped by `progress`.
pub fn sha256(
    path: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<(Sha256Hex, FileIdentity)> {
    let mut file = File::open(path)?;
    let before = FileIdentity::from_metadata(&file.metadata()?);
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut done = 0_u64;
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hasher.update(chunk.get(..count).unwrap_or_default());
        done += count as u64;
        if !progress(done) {
            return Err(ErrorKind::Interrupted.into());
        }
    }
    if FileIdentity::from_metadata(&file.metadata()?) != before {
        return Err(std::io::Error::other(
            "it was changed while it was read: wait until the copy is complete",
        ));
    }
    let digest = hex::encode(hasher.finalize());
    // Hex of SHA-256 always has the right form.
    let digest = Sha256Hex::new(&digest).ok_or(ErrorKind::InvalidData)?;
    Ok((digest, before))
}

/// Digests computed before, by path, valid while the file's identity is the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DigestCache(BTreeMap<PathBuf, (FileIdentity, String)>);

impl DigestCache {
    /// The digest, if it was computed for the file as it is now.
    pub fn get(&self, path: &Path) -> Option<Sha256Hex> {
        let (identity, digest) = self.0.get(path)?;
        let now = FileIdentity::of(path).ok()?;
        (now == *identity).then(|| Sha256Hex::new(digest))?
    }

    /// Remembers one, and forgets those of files that are gone.
    pub fn insert(&mut self, path: &Path, identity: FileIdentity, digest: &Sha256Hex) {
        self.0.retain(|path, _| path.exists());
        self.0
            .insert(path.to_owned(), (identity, digest.as_str().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_whole_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let (digest, identity) = sha256(file.path(), &mut |_| true).unwrap();
        assert_eq!(
            digest.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(identity.size, 3);
    }

    #[test]
    fn hashing_can_be_stopped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0; 3 * CHUNK]).unwrap();
        let mut seen = 0;
        let error = sha256(file.path(), &mut |done| {
            seen = done;
            false
        })
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(seen, CHUNK as u64);
    }

    #[test]
    fn a_remembered_digest_is_not_used_for_a_changed_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let (digest, identity) = sha256(file.path(), &mut |_| true).unwrap();
        let mut cache = DigestCache::default();
        assert_eq!(cache.get(file.path()), None);
        cache.insert(file.path(), identity, &digest);
        assert_eq!(cache.get(file.path()), Some(digest));
        std::fs::write(file.path(), b"abcd").unwrap();
        assert_eq!(cache.get(file.path()), None);
    }

    #[test]
    fn a_folder_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        FileIdentity::of(folder.path()).unwrap_err();
    }
}
