//! A registry, a cache, and `enginewright fetch` into it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::tools::{self, Process, enginewright, free_address};

/// For what moves the whole model on a busy machine.
pub const LIMIT: Duration = Duration::from_mins(2);

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// The model's digest.
pub fn digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| hex::encode(Sha256::digest(std::fs::read(tools::model()).unwrap())))
}

/// A real registry on loopback, in a folder of its own.
pub struct Registry {
    pub address: SocketAddr,
    _process: Process,
}

impl Registry {
    /// With its data in `folder`. `auth`: the part of its configuration about who may ask.
    pub fn start(folder: &Path, auth: &str) -> Self {
        let address = free_address();
        let config = folder.join("registry.yaml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{address}\"}}\n{auth}",
            folder.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(tools::registry());
        command.arg("serve").arg(&config);
        command.env("OTEL_TRACES_EXPORTER", "none");
        let process = Process::start(command);
        tools::wait_for_port(address, LIMIT);
        Self {
            address,
            _process: process,
        }
    }
}

/// One for all tests that only read. It ends with this process: the thread that started it lives as
/// long.
pub fn shared() -> SocketAddr {
    static REGISTRY: OnceLock<SocketAddr> = OnceLock::new();
    *REGISTRY.get_or_init(|| {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Nobody cleans up after a thread that never ends: the next run does.
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registry");
            let _none_there = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            let registry = Registry::start(&folder, "");
            send.send(registry.address).unwrap();
            loop {
                std::thread::park();
            }
        });
        receive.recv().unwrap()
    })
}

/// Pushes a file with ORAS and says the digest of its manifest.
pub fn push_with_oras(registry: &str, repository: &str, file: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = file.split_once(':').unwrap_or((file, ""));
    std::fs::hard_link(tools::model(), folder.path().join(path))
        .or_else(|_| std::fs::copy(tools::model(), folder.path().join(path)).map(drop))
        .unwrap();
    let output = Command::new(tools::oras())
        .args(["push", "--plain-http", "--format", "json"])
        .args(more)
        .args([&format!("{registry}/{repository}:v1"), file])
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{problem}");
    let said: Value = serde_json::from_str(&said).unwrap();
    said["digest"].as_str().unwrap().to_owned()
}

/// A cache, as a claim of a node.
pub struct Cache {
    pub folder: tempfile::TempDir,
}

impl Cache {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The command that fetches `source` for `revision`.
    pub fn fetch(&self, source: &str, revision: &str, more: &[&str]) -> Command {
        let mut command = enginewright(["fetch", source, "--served-name", "m"]);
        command
            .args(["--revision", revision, "--log", "info"])
            .args(more);
        command.arg("--cache").arg(self.folder.path());
        command.arg("--report").arg(self.report_path(revision));
        for name in ["HF_TOKEN", "HF_ENDPOINT", "ENGINEWRIGHT_CREDENTIALS"] {
            command.env_remove(name);
        }
        // A proxy of this machine's is not meant.
        command.env("NO_PROXY", "127.0.0.1,localhost");
        command
    }

    fn report_path(&self, revision: &str) -> PathBuf {
        self.folder.path().join(format!("{revision}.report"))
    }

    /// What was reported.
    pub fn report(&self, revision: &str) -> Value {
        let bytes = std::fs::read(self.report_path(revision)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub fn revision(&self, revision: &str) -> PathBuf {
        self.folder.path().join("revisions").join(revision)
    }

    /// Fetches, which must succeed, and checks that it is the model.
    pub fn fetched(&self, source: &str, revision: &str, more: &[&str]) -> PathBuf {
        let mut process = Process::start(self.fetch(source, revision, more));
        let status = process.wait_for_exit(LIMIT);
        assert!(status.success(), "{status}\n{}", process.output());
        let report = self.report(revision);
        assert_eq!(report["fetched"]["sha256"], digest(), "{report}");
        self.is_the_model(revision)
    }

    /// The model of a revision, whose bytes are looked at.
    pub fn is_the_model(&self, revision: &str) -> PathBuf {
        let model = self.revision(revision).join("model.gguf");
        let found = hex::encode(Sha256::digest(std::fs::read(&model).unwrap()));
        assert_eq!(found, digest());
        assert_eq!(self.left(), Vec::<String>::new(), "nothing lies about");
        model
    }

    /// Fetches, which must fail; the failure's reason and message.
    pub fn refused(&self, source: &str, revision: &str, more: &[&str]) -> (String, String) {
        let mut process = Process::start(self.fetch(source, revision, more));
        let status = process.wait_for_exit(LIMIT);
        assert!(!status.success(), "{}", process.output());
        assert!(!self.revision(revision).exists());
        let failed = &self.report(revision)["failed"];
        let text = |name: &str| failed[name].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }

    /// What is left of transfers.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("downloads"));
        let names = entries.into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != ".lock")
            .collect()
    }

    /// Bytes that have arrived of what is not whole yet.
    pub fn partial(&self) -> u64 {
        let path = self.folder.path().join("downloads");
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "partial"))
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

/// A folder as a Secret is mounted.
pub fn secret(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A path as an argument.
pub fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
