//! Engine bundles: a directory that holds an engine and everything that is needed to serve it.
//!
//! | file | what |
//! |---|---|
//! | `manifest.json` | schema, key with its inputs, size and SHA-256 of every file, who built it with what |
//! | `engine.plan` | TensorRT's plan: native code for one TensorRT build, GPU architecture and platform |
//! | `tokenizer.json` | the vocabulary |
//! | `chat_template.jinja` | the model's chat template, empty where it states none |
//! | `config.json` | the model's dimensions |
//!
//! It decides what a whole bundle is, not which bundle is wanted. A directory is never trusted because it
//! exists: [`Bundle::open`] believes the manifest only when the manifest's own digest is right, and
//! [`Bundle::verify`] every other file only by the digest in the manifest. A bundle is written under a
//! temporary name, brought to the disk and renamed, so that a half-written one has no name.

mod draft;
mod error;
mod manifest;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use draft::{Draft, HashedFile};
pub use error::BundleError;
pub use manifest::{
    Built, EngineFacts, FileFacts, Manifest, Measured, Port, ProfileFacts, SCHEMA, SizeBounds,
};

/// The manifest.
pub const MANIFEST: &str = "manifest.json";
/// The manifest's signature; optional.
pub const SIGNATURE: &str = "manifest.sig";
/// The plan.
pub const PLAN: &str = "engine.plan";
/// The vocabulary.
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template.
pub const TEMPLATE: &str = "chat_template.jinja";
/// The model's dimensions.
pub const CONFIG: &str = "config.json";
/// What the manifest must list, and nothing else.
pub const FILES: [&str; 4] = [PLAN, TOKENIZER, TEMPLATE, CONFIG];

/// Longest manifest that is read.
const MOST_BYTES: u64 = 1 << 20;
/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// A bundle whose manifest is whole.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Reads and checks the manifest, and that exactly the listed files are there with their sizes.
    ///
    /// # Errors
    /// When there is none, it is damaged or of a newer schema, or a file is missing, extra, no regular
    /// file, or of another size.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let bytes = read_manifest(path)?;
        let manifest = Manifest::parse(&bytes).map_err(|problem| problem.at(path))?;
        let bundle = Self {
            path: path.to_owned(),
            manifest,
        };
        bundle.check_names()?;
        for (name, facts) in &bundle.manifest.files {
            let found = bundle.size(name)?;
            if found != facts.size {
                return Err(bundle.damaged(
                    name,
                    format!("has {found} bytes, the manifest states {}", facts.size),
                ));
            }
        }
        Ok(bundle)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads every file and compares its digest; `progress` gets the bytes done and of how many.
    ///
    /// # Errors
    /// The first file that cannot be read or is not what the manifest states.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), BundleError> {
        let total = self.manifest.files.values().map(|file| file.size).sum();
        let mut done = 0;
        for (name, facts) in &self.manifest.files {
            let found = self.digest(name, &mut |count| {
                done += count;
                progress(done, total);
            })?;
            if found != facts.sha256 {
                let problem = format!(
                    "has the digest {found}, the manifest states {}",
                    facts.sha256
                );
                return Err(self.damaged(name, problem));
            }
        }
        Ok(())
    }

    fn digest(&self, name: &str, read: &mut dyn FnMut(u64)) -> Result<String, BundleError> {
        let path = self.file(name);
        let unreadable = |source| BundleError::Read {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            let count = file.read(&mut chunk).map_err(unreadable)?;
            if count == 0 {
                return Ok(hex::encode(hash.finalize()));
            }
            hash.update(chunk.get(..count).unwrap_or_default());
            read(count as u64);
        }
    }

    /// Exactly the known files: what nobody lists could be anything.
    fn check_names(&self) -> Result<(), BundleError> {
        let entries = std::fs::read_dir(&self.path).map_err(|source| BundleError::Read {
            path: self.path.clone(),
            source,
        })?;
        let known: BTreeSet<&str> = FILES.into_iter().chain([MANIFEST, SIGNATURE]).collect();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(name.as_str()) {
                return Err(self.damaged(&name, "is not part of a bundle".to_owned()));
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64, BundleError> {
        let path = self.file(name);
        // Not following links: the bytes must be inside the bundle.
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
            Ok(_) => Err(self.damaged(name, "is no regular file".to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(self.damaged(name, "is missing".to_owned()))
            }
            Err(source) => Err(BundleError::Read { path, source }),
        }
    }

    fn damaged(&self, file: &str, problem: String) -> BundleError {
        BundleError::Damaged {
            bundle: self.path.clone(),
            file: file.to_owned(),
            problem,
        }
    }
}

fn read_manifest(path: &Path) -> Result<Vec<u8>, BundleError> {
    let file = path.join(MANIFEST);
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            BundleError::NotABundle {
                path: path.to_owned(),
            }
        }
        _ => BundleError::Read {
            path: file.clone(),
            source,
        },
    };
    let metadata = std::fs::symlink_metadata(&file).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(BundleError::Damaged {
            bundle: path.to_owned(),
            file: MANIFEST.to_owned(),
            problem: "is no regular file of at most 1 MiB".to_owned(),
        });
    }
    std::fs::read(&file).map_err(unreadable)
}

#[cfg(test)]
pub(crate) mod tests;
