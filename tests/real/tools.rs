//! Finds the real parts that `make tools` laid down, and starts processes that cannot be forgotten.
//!
//! Everything is on loopback and on ephemeral ports, so that tests run side by side.
#![allow(
    dead_code,
    reason = "each test file uses the helpers it needs; together they need all"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Name of the model file that `make tools` unpacks.
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// The folder with the real parts: `.tools/`, or `ENGINEWRIGHT_TOOLS`.
pub fn directory() -> PathBuf {
    std::env::var_os("ENGINEWRIGHT_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools"),
        PathBuf::from,
    )
}

fn part(relative: &str) -> PathBuf {
    let path = directory().join(relative);
    assert!(
        path.exists(),
        "{} is missing: run `make tools` first",
        path.display()
    );
    path
}

/// The real model: `SmolLM2-135M-Instruct`, `Q4_1`, `ChatML`.
pub fn model() -> PathBuf {
    part(MODEL)
}

/// A real Ollama that may be started on any port with any `OLLAMA_MODELS`.
pub fn ollama() -> PathBuf {
    part("bin/ollama")
}

/// A real OCI registry.
pub fn registry() -> PathBuf {
    part("cluster/bin/registry")
}

/// A real client of registries.
pub fn oras() -> PathBuf {
    part("cluster/bin/oras")
}

/// A Python with the real client libraries `openai` and `ollama`.
pub fn python() -> PathBuf {
    part("venv/bin/python")
}

/// TensorRT-RTX and the shim for it.
pub fn tensorrt() -> PathBuf {
    part("trt/libenginewright_trt.so");
    part("trt")
}

/// NVIDIA's headers for which the shim is made, one folder for each version.
pub fn trt_headers() -> PathBuf {
    part("trt-headers")
}

/// A Python with the packages `gguf` and `safetensors`.
pub fn formats_python() -> PathBuf {
    part("formats/bin/python")
}

/// The program under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_enginewright"))
}

/// A command of the program under test: `enginewright(["serve", "--help"])`.
pub fn enginewright<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// An address on loopback that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
}

/// A port of [`free_address`].
pub fn free_port() -> u16 {
    free_address().port()
}

/// Asks every 20 ms until `check` gives a value; fails naming `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something accepts connections at `address`.
pub fn wait_for_port(address: SocketAddr, limit: Duration) {
    wait_for(&format!("{address} to accept connections"), limit, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
    });
}

/// A child process that is ended when dropped, with what it wrote at hand for failure messages.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Process {
    /// Starts `command` with standard output and standard error going to one file.
    pub fn start(mut command: Command) -> Self {
        let output = tempfile::NamedTempFile::new().expect("a temporary file");
        let file = || Stdio::from(File::options().append(true).open(output.path()).unwrap());
        let child = command
            .stdin(Stdio::null())
            .stdout(file())
            .stderr(file())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, output }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far, both streams.
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        File::open(self.output.path())
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .expect("the output file can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has written `text`.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) {
        let start = Instant::now();
        while !self.output().contains(text) {
            let ended = self.child.try_wait().expect("the child can be waited for");
            assert!(
                ended.is_none() || self.output().contains(text),
                "ended ({ended:?}) before it wrote {text:?}:\n{}",
                self.output()
            );
            assert!(
                start.elapsed() < limit,
                "{text:?} not written within {limit:?}:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "still running after {limit:?}:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Orderly first, so that what it started ends too; then for certain.
        if self.is_running() {
            self.signal(Signal::TERM);
            let start = Instant::now();
            while self.is_running() && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Sends a signal to a process by its id; one that is gone is no error.
pub fn signal_pid(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone_already = kill_process(pid, signal);
    }
}

/// Ids of all processes that descend from `pid`, itself not included.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let all = processes();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, p)| *p == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !matches!(state_and_parent(&stat), Some(('Z' | 'X', _)) | None))
}

/// The command line of a process, blanks between its words.
pub fn command_line(pid: u32) -> String {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .unwrap_or_default()
}

fn processes() -> Vec<(u32, u32)> {
    std::fs::read_dir("/proc")
        .expect("/proc can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, state_and_parent(&stat)?.1))
        })
        .collect()
}

/// `pid (name, which may hold blanks and brackets) state parent …`
fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
