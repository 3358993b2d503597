//! Container images from files, without a container engine: a tar of JSON and one layer, as
//! `ctr images import` takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What is in an image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Its name and tag.
    pub reference: String,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Files on this machine by their path in the image.
    files: BTreeMap<String, PathBuf>,
}

impl Image {
    /// An empty image that starts `entrypoint`.
    pub fn new(reference: &str, entrypoint: &[&str]) -> Self {
        Self {
            reference: reference.to_owned(),
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            files: BTreeMap::new(),
        }
    }

    /// The same under another name.
    pub fn named(mut self, reference: &str) -> Self {
        reference.clone_into(&mut self.reference);
        self
    }

    /// With a file of this machine at `path`.
    pub fn file(mut self, path: &str, source: impl Into<PathBuf>) -> Self {
        let path = path.trim_start_matches('/').to_owned();
        self.files.insert(path, source.into());
        self
    }

    /// With a program at `path` and the libraries it is linked to.
    pub fn program(self, path: &str, source: &Path) -> Self {
        libraries(source)
            .into_iter()
            .fold(self, |image, library| image.file(&library, &library))
            .file(path, source)
    }

    /// Writes the image to a file.
    pub fn write(&self, to: &Path) {
        let layer = self.layer();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Env": ["PATH=/usr/bin:/bin"],
                // Not root, as in the published image: pods that say nothing run as this user.
                "User": "65532:65532",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        })
        .to_string();
        let names = (
            format!("{}.json", digest(config.as_bytes())),
            format!("{}/layer.tar", digest(&layer)),
        );
        let manifest = json!([
            {"Config": names.0, "RepoTags": [self.reference], "Layers": [names.1]}
        ]);
        let file = std::fs::File::create(to).expect("a file for the image");
        let mut archive = Builder::new(file);
        append(&mut archive, &names.0, config.as_bytes(), 0o644);
        append(&mut archive, &names.1, &layer, 0o644);
        append(
            &mut archive,
            "manifest.json",
            manifest.to_string().as_bytes(),
            0o644,
        );
        archive.into_inner().expect("the image is written");
    }

    fn layer(&self) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o1777);
        header.set_size(0);
        archive
            .append_data(&mut header, "tmp/", std::io::empty())
            .expect("a folder in memory");
        for (path, source) in &self.files {
            let content = std::fs::read(source)
                .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
            append(&mut archive, path, &content, 0o755);
        }
        archive.into_inner().expect("the layer is in memory")
    }
}

fn append(archive: &mut Builder<impl std::io::Write>, path: &str, content: &[u8], mode: u32) {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, path, content)
        .unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Paths of the shared libraries that `ldd` lists, the loader among them.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .expect("ldd starts");
    // A static program has none, and ldd says so by failing.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}
