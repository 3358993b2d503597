//! What is needed of an engine's folder to serve it. Reads the manifest and files that were seen to
//! have the digests it states; writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::loader::{BuiltFor, TensorRtConfig};
use crate::backend::LoadError;
use crate::hardware::{Platform, Sm};
use crate::tensorrt::{Search, Wait};

/// The manifest.
pub const MANIFEST: &str = "manifest.json";
/// The plan.
pub const PLAN: &str = "engine.plan";
/// See [`crate::text::TextFiles`].
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template.
pub const TEMPLATE: &str = "chat_template.jinja";
/// Ending of the file beside the folder that holds what TensorRT compiled on this device: it may be
/// lost, and is no part of the engine.
const KERNELS: &str = "kernels";
/// Longest text file: a vocabulary of a million tokens.
const LONGEST: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    inputs: Inputs,
    files: BTreeMap<String, FileEntry>,
}

/// The inputs of the engine's key that this machine must meet.
#[derive(Debug, Deserialize)]
struct Inputs {
    tensorrt: String,
    sm: Sm,
    platform: Platform,
}

#[derive(Debug, Deserialize)]
struct FileEntry {
    size: u64,
    sha256: String,
}

/// An engine's folder.
#[derive(Debug)]
pub struct EngineFolder {
    folder: PathBuf,
    manifest: Manifest,
}

impl EngineFolder {
    /// Reads the manifest.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(MANIFEST);
        let failed = |error: &dyn std::fmt::Display| {
            LoadError::Model(format!(
                "{}: {error}: this is no engine; `enginewright engine build` makes one",
                path.display()
            ))
        };
        let text = std::fs::read(&path).map_err(|error| failed(&error))?;
        Ok(Self {
            manifest: serde_json::from_slice(&text).map_err(|error| failed(&error))?,
            folder: folder.to_owned(),
        })
    }

    fn entry(&self, name: &str) -> Result<&FileEntry, LoadError> {
        let entry = self.manifest.files.get(name);
        entry.ok_or_else(|| self.damaged(name, &"the manifest does not list it"))
    }

    fn damaged(&self, name: &str, why: &dyn std::fmt::Display) -> LoadError {
        let path = self.folder.join(name);
        LoadError::Model(format!(
            "{}: {why}: the engine is damaged; build or fetch it again",
            path.display()
        ))
    }

    /// The content of a text file, which has the digest that the manifest states.
    ///
    /// # Errors
    /// When it is missing or was changed.
    pub fn text(&self, name: &str) -> Result<String, LoadError> {
        let entry = self.entry(name)?;
        if entry.size > LONGEST {
            return Err(self.damaged(name, &format!("it has {} bytes", entry.size)));
        }
        let bytes = std::fs::read(self.folder.join(name));
        let bytes = bytes.map_err(|error| self.damaged(name, &error))?;
        if hex::encode(Sha256::digest(&bytes)) != entry.sha256 {
            return Err(self.damaged(name, &"its digest is not the manifest's"));
        }
        String::from_utf8(bytes).map_err(|error| self.damaged(name, &error))
    }

    /// Bytes of the plan.
    ///
    /// # Errors
    /// When the manifest does not list it.
    pub fn plan_bytes(&self) -> Result<u64, LoadError> {
        Ok(self.entry(PLAN)?.size)
    }

    /// What the back end loads; the plan is verified there, as it is mapped.
    ///
    /// # Errors
    /// When the manifest does not list a plan.
    pub fn config(&self, search: Search) -> Result<TensorRtConfig, LoadError> {
        let Inputs {
            tensorrt,
            sm,
            platform,
        } = &self.manifest.inputs;
        Ok(TensorRtConfig {
            plan: self.folder.join(PLAN),
            sha256: self.entry(PLAN)?.sha256.clone(),
            built_for: BuiltFor {
                tensorrt: tensorrt.clone(),
                sm: *sm,
                platform: *platform,
            },
            kernels: Some(self.folder.with_added_extension(KERNELS)),
            search,
            device: 0,
            wait: Wait::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(sha256: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TEMPLATE), "abc").unwrap();
        let manifest = format!(
            r#"{{"schema":1,"inputs":{{"tensorrt":"10.3.0.30","sm":"8.7","platform":"L4t"}},
                "files":{{"chat_template.jinja":{{"size":3,"sha256":"{sha256}"}},
                "engine.plan":{{"size":9,"sha256":"00"}}}}}}"#
        );
        std::fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        folder
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_folder_gives_files_with_the_stated_digest_only() {
        let good = folder(ABC);
        let engine = EngineFolder::open(good.path()).unwrap();
        assert_eq!(engine.text(TEMPLATE).unwrap(), "abc");
        let config = engine.config(Search::default()).unwrap();
        assert_eq!(
            (config.sha256.as_str(), config.built_for.sm),
            ("00", Sm::new(8, 7))
        );
        let missing = engine.text(TOKENIZER).unwrap_err().to_string();
        assert!(missing.contains("does not list it"), "{missing}");

        let bad = folder(&ABC.replace('b', "c"));
        let error = EngineFolder::open(bad.path()).unwrap().text(TEMPLATE);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("chat_template.jinja") && error.contains("fetch it again"));
    }

    #[test]
    fn a_folder_without_a_manifest_is_no_engine() {
        let folder = tempfile::tempdir().unwrap();
        let error = EngineFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("engine build"), "{error}");
        std::fs::write(folder.path().join(MANIFEST), "{}").unwrap();
        assert!(EngineFolder::open(folder.path()).is_err());
    }
}
