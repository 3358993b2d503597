//! Revisions on disk: each in a folder of its own with what is needed to start it again after the
//! spec, or the user's file, has moved on.
//!
//! The model is a hard link where the file system allows one: when the user replaces the file by
//! another one, what was proven is still there to roll back to, and no byte was copied. Elsewhere
//! the user's own path is kept, and the check of its digest tells when it is not the same any more.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Served;
use crate::api::{RevisionId, Sha256Hex};
use crate::model::modelfile::{self, Modelfile};
use crate::store::atomic;
use crate::store::bundle::Bundle;
use crate::store::digest::FileIdentity;

/// Version of [`Stored`]'s form on disk.
const VERSION: u32 = 1;
/// Name of the record in a revision's folder.
const RECORD: &str = "revision.json";
/// Name of the folder of engines in a revision's folder.
const ENGINES: &str = "engine";
/// Name of the linked model in a revision's folder.
const MODEL: &str = "model.gguf";

/// The record of one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    version: u32,
    /// Which.
    pub revision: RevisionId,
    /// Where the model came from, for people.
    pub source: String,
    /// What an engine is started with.
    pub served: Served,
    /// The user's own file where it could not be linked; absent where the folder has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<PathBuf>,
    /// Digest that the spec demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Digest found when it was first verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a new revision is made of.
#[derive(Clone, Debug)]
pub struct New<'a> {
    /// Its name.
    pub revision: &'a RevisionId,
    /// Where the model came from, for people.
    pub source: &'a str,
    /// What an engine is started with.
    pub served: &'a Served,
    /// The model file as it was found.
    pub model: &'a Path,
    /// Digest that the spec demands.
    pub declared: Option<&'a Sha256Hex>,
    /// What is kept beside it.
    pub modelfile: &'a Modelfile,
}

/// The folder `revisions/` of the state directory.
#[derive(Clone, Debug)]
pub struct Revisions {
    folder: PathBuf,
}

impl Revisions {
    /// In `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, revision: &RevisionId) -> PathBuf {
        self.folder.join(revision.as_str())
    }

    /// The model file of a stored revision.
    pub fn model(&self, stored: &Stored) -> PathBuf {
        stored
            .elsewhere
            .clone()
            .unwrap_or_else(|| self.path(&stored.revision).join(MODEL))
    }

    /// Folder for a revision's engine.
    pub fn engines(&self, revision: &RevisionId) -> PathBuf {
        self.path(revision).join(ENGINES)
    }

    /// The engine built for a revision: the newest bundle in its folder whose manifest can be read.
    pub fn engine(&self, revision: &RevisionId) -> Option<Bundle> {
        let entries = std::fs::read_dir(self.engines(revision)).ok()?;
        let bundles = entries
            .flatten()
            .filter_map(|entry| Bundle::open(&entry.path()).ok());
        bundles.max_by_key(|bundle| {
            let manifest = bundle.file(crate::store::bundle::MANIFEST);
            std::fs::metadata(manifest)
                .and_then(|facts| facts.modified())
                .ok()
        })
    }

    /// Stores a revision: complete under its name, or not there at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn store(&self, new: &New<'_>) -> std::io::Result<Stored> {
        let temporary = atomic::temporary_folder(&self.folder)?;
        let link = temporary.path().join(MODEL);
        // A link to a symbolic link would be one to the link, not to the file.
        let file = new.model.canonicalize()?;
        let elsewhere = match std::fs::hard_link(&file, &link) {
            Ok(()) => None,
            Err(_) => Some(file),
        };
        let stored = Stored {
            version: VERSION,
            revision: new.revision.clone(),
            source: new.source.to_owned(),
            served: new.served.clone(),
            elsewhere,
            declared: new.declared.map(|digest| digest.as_str().to_owned()),
            sha256: None,
        };
        if !new.modelfile.is_empty() {
            let bytes = serde_json::to_vec_pretty(new.modelfile)?;
            atomic::write(&temporary.path().join(modelfile::FILE), &bytes)?;
        }
        write_record(temporary.path(), &stored)?;
        atomic::sync_folder(temporary.path())?;
        let target = self.path(new.revision);
        remove(&target)?;
        atomic::publish(&temporary.keep(), &target)?;
        Ok(stored)
    }

    /// Notes the digest that was found.
    ///
    /// # Errors
    /// What the file system says.
    pub fn note_digest(&self, stored: &Stored, digest: &Sha256Hex) -> std::io::Result<Stored> {
        let noted = Stored {
            sha256: Some(digest.as_str().to_owned()),
            ..stored.clone()
        };
        write_record(&self.path(&stored.revision), &noted)?;
        Ok(noted)
    }

    /// All revisions whose record can be read and whose model is there.
    pub fn all(&self) -> Vec<Stored> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let mut found: Vec<Stored> = entries
            .flatten()
            .filter_map(|entry| {
                let bytes = std::fs::read(entry.path().join(RECORD)).ok()?;
                let stored: Stored = serde_json::from_slice(&bytes).ok()?;
                let own_name = entry.file_name().to_str() == Some(stored.revision.as_str());
                let usable = stored.version == VERSION
                    && own_name
                    && FileIdentity::of(&self.model(&stored)).is_ok();
                usable.then_some(stored)
            })
            .collect();
        found.sort_by(|a, b| a.revision.cmp(&b.revision));
        found
    }

    /// Deletes one revision; the user's own file stays.
    ///
    /// # Errors
    /// What the file system says.
    pub fn delete(&self, revision: &RevisionId) -> std::io::Result<()> {
        remove(&self.path(revision))
    }

    /// Deletes every folder but those of `keep`, also what is no readable revision.
    ///
    /// # Errors
    /// What the file system says; what could be deleted was.
    pub fn collect_garbage(&self, keep: &BTreeSet<RevisionId>) -> std::io::Result<()> {
        let mut result = Ok(());
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name();
            let kept = keep
                .iter()
                .any(|revision| name.to_str() == Some(revision.as_str()));
            if !kept {
                result = remove(&entry.path()).and(result);
            }
        }
        result
    }
}

fn write_record(folder: &Path, stored: &Stored) -> std::io::Result<()> {
    let bytes = serde_json::to_vec_pretty(stored)?;
    atomic::write(&folder.join(RECORD), &bytes)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Served {
        Served {
            served_name: "m".to_owned(),
            precision: crate::api::Precision::Auto,
            slots: 2,
            max_input_tokens: 100,
            max_output_tokens: 50,
        }
    }

    fn setup() -> (tempfile::TempDir, Revisions, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let revisions = folder.path().join("revisions");
        std::fs::create_dir(&revisions).unwrap();
        let model = folder.path().join("user.gguf");
        std::fs::write(&model, "first").unwrap();
        (folder, Revisions::new(revisions), model)
    }

    fn store(revisions: &Revisions, name: &str, model: &Path) -> Stored {
        revisions
            .store(&New {
                revision: &RevisionId::new(name),
                source: "file:///user.gguf",
                served: &served(),
                model,
                declared: None,
                modelfile: &Modelfile::default(),
            })
            .unwrap()
    }

    #[test]
    fn what_was_stored_outlives_the_users_replacement_of_the_file() {
        let (folder, revisions, model) = setup();
        let stored = store(&revisions, "aaaa", &model);
        let other = folder.path().join("new.gguf");
        std::fs::write(&other, "second").unwrap();
        std::fs::rename(&other, &model).unwrap();
        assert_eq!(revisions.all(), std::slice::from_ref(&stored));
        assert_eq!(std::fs::read(revisions.model(&stored)).unwrap(), b"first");
    }

    #[test]
    fn a_symbolic_link_is_followed_to_the_file() {
        let (folder, revisions, model) = setup();
        let link = folder.path().join("link.gguf");
        std::os::unix::fs::symlink(&model, &link).unwrap();
        let stored = store(&revisions, "aaaa", &link);
        std::fs::remove_file(&link).unwrap();
        assert_eq!(std::fs::read(revisions.model(&stored)).unwrap(), b"first");
    }

    #[test]
    fn the_digest_is_noted_and_what_is_not_a_revision_is_not_listed() {
        let (folder, revisions, model) = setup();
        let stored = store(&revisions, "aaaa", &model);
        let digest = Sha256Hex::new(&"0a".repeat(32)).unwrap();
        let noted = revisions.note_digest(&stored, &digest).unwrap();
        let record = folder.path().join("revisions/bbbb");
        std::fs::create_dir(&record).unwrap();
        std::fs::write(record.join(RECORD), "{").unwrap();
        // A copy under another name is not that revision.
        std::fs::create_dir(folder.path().join("revisions/cccc")).unwrap();
        std::fs::copy(
            folder.path().join("revisions/aaaa").join(RECORD),
            folder.path().join("revisions/cccc").join(RECORD),
        )
        .unwrap();
        assert_eq!(revisions.all(), [noted]);
    }

    #[test]
    fn garbage_is_all_that_is_not_kept_and_never_the_users_file() {
        let (_folder, revisions, model) = setup();
        let kept = store(&revisions, "aaaa", &model);
        store(&revisions, "bbbb", &model);
        revisions
            .collect_garbage(&BTreeSet::from([RevisionId::new("aaaa")]))
            .unwrap();
        assert_eq!(revisions.all(), [kept]);
        revisions.delete(&RevisionId::new("aaaa")).unwrap();
        assert!(revisions.all().is_empty());
        assert!(model.exists());
    }
}
