//! What is needed of an engine's bundle to serve it: text files that were seen to have the digests that
//! the manifest states, and what the back end loads. Writes nothing; what a whole bundle is, is
//! [`crate::store::bundle`]'s to say.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::loader::{BuiltFor, TensorRtConfig};
use crate::backend::LoadError;
use crate::store::bundle::{Bundle, FileFacts, PLAN};
use crate::tensorrt::{Search, Wait};

pub use crate::store::bundle::{TEMPLATE, TOKENIZER};

/// Ending of the file beside the bundle that holds what TensorRT compiled on this device: it may be
/// lost, and is no part of the engine.
const KERNELS: &str = "kernels";
/// Longest text file: a vocabulary of a million tokens.
const LONGEST: u64 = 64 << 20;

/// An engine's bundle, whose manifest was seen to be whole.
#[derive(Debug)]
pub struct EngineFolder {
    bundle: Bundle,
}

impl EngineFolder {
    /// Reads the manifest.
    ///
    /// # Errors
    /// When there is none, it is damaged, or a file is missing, extra or of another size.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let bundle = Bundle::open(folder).map_err(|error| LoadError::Model(error.to_string()))?;
        Ok(Self { bundle })
    }

    fn facts(&self, name: &str) -> Result<&FileFacts, LoadError> {
        let facts = self.bundle.manifest().files.get(name);
        facts.ok_or_else(|| self.damaged(name, &"the manifest does not list it"))
    }

    fn damaged(&self, name: &str, why: &dyn std::fmt::Display) -> LoadError {
        LoadError::Model(format!(
            "{}: {why}: the engine is damaged; build or fetch it again",
            self.bundle.file(name).display()
        ))
    }

    /// The content of a text file, which has the digest that the manifest states.
    ///
    /// # Errors
    /// When it is missing or was changed.
    pub fn text(&self, name: &str) -> Result<String, LoadError> {
        let facts = self.facts(name)?;
        if facts.size > LONGEST {
            return Err(self.damaged(name, &format!("it has {} bytes", facts.size)));
        }
        let bytes = std::fs::read(self.bundle.file(name));
        let bytes = bytes.map_err(|error| self.damaged(name, &error))?;
        if hex::encode(Sha256::digest(&bytes)) != facts.sha256 {
            return Err(self.damaged(name, &"its digest is not the manifest's"));
        }
        String::from_utf8(bytes).map_err(|error| self.damaged(name, &error))
    }

    /// Bytes of the plan.
    ///
    /// # Errors
    /// When the manifest does not list it.
    pub fn plan_bytes(&self) -> Result<u64, LoadError> {
        Ok(self.facts(PLAN)?.size)
    }

    /// What the back end loads; the plan is verified there, as it is mapped.
    ///
    /// # Errors
    /// When the manifest does not list a plan.
    pub fn config(&self, search: Search) -> Result<TensorRtConfig, LoadError> {
        let inputs = &self.bundle.manifest().inputs;
        Ok(TensorRtConfig {
            plan: self.bundle.file(PLAN),
            sha256: self.facts(PLAN)?.sha256.clone(),
            built_for: BuiltFor {
                tensorrt: inputs.tensorrt.clone(),
                sm: inputs.sm,
                platform: inputs.platform,
            },
            kernels: Some(self.bundle.path().with_added_extension(KERNELS)),
            search,
            device: 0,
            wait: Wait::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::hardware::Sm;
    use crate::store::bundle::tests::manifest;
    use crate::store::bundle::{BundleError, CONFIG, Draft, HashedFile, MANIFEST};

    fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let mut draft = Draft::begin(parent.path()).unwrap();
        for (name, text) in [
            (PLAN, "plan"),
            (TOKENIZER, "{}"),
            (TEMPLATE, "abc"),
            (CONFIG, "{}"),
        ] {
            let write = |file: &mut HashedFile| {
                file.write_all(text.as_bytes()).unwrap();
                Ok::<(), BundleError>(())
            };
            draft.file(name, write).unwrap();
        }
        let (manifest, path) = (
            manifest(draft.files().clone()),
            parent.path().join("engine"),
        );
        draft.publish(&manifest, &path).unwrap();
        (parent, path)
    }

    #[test]
    fn a_folder_gives_files_with_the_stated_digest_only() {
        let (_parent, path) = folder();
        let engine = EngineFolder::open(&path).unwrap();
        assert_eq!(engine.text(TEMPLATE).unwrap(), "abc");
        let config = engine.config(Search::default()).unwrap();
        assert_eq!(config.sha256, hex::encode(Sha256::digest("plan")));
        assert_eq!(config.built_for.sm, Sm::new(8, 7));
        let kernels = config.kernels.unwrap();
        assert_eq!(kernels, path.with_file_name("engine.kernels"));
        assert_eq!(engine.plan_bytes().unwrap(), 4);
        let missing = engine.text("other.json").unwrap_err().to_string();
        assert!(missing.contains("does not list it"), "{missing}");

        std::fs::write(path.join(TEMPLATE), "abd").unwrap();
        let error = EngineFolder::open(&path).unwrap().text(TEMPLATE);
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

    #[test]
    fn a_manifest_that_was_changed_or_says_more_than_is_known_is_refused() {
        let (_parent, path) = folder();
        let good = std::fs::read_to_string(path.join(MANIFEST)).unwrap();
        for changed in [
            good.replace("\"8.7\"", "\"9.0\""),
            good.replacen('{', "{\n  \"more\": 1,", 1),
        ] {
            assert_ne!(changed, good);
            std::fs::write(path.join(MANIFEST), changed).unwrap();
            let error = EngineFolder::open(&path).unwrap_err().to_string();
            assert!(error.contains("manifest.json"), "{error}");
        }
    }
}
