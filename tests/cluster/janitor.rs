//! The folder of a cluster and the processes in it, ended for certain: a shell waits until the test
//! process is gone, then ends them and removes the folder (`janitor.sh`).

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;

/// Bytes of a component's log that a failure message shows.
const TAIL: usize = 3000;

/// A folder whose processes end with it, and with this process.
#[derive(Debug)]
pub struct Premises {
    folder: PathBuf,
    janitor: Child,
    components: Mutex<Vec<Child>>,
}

impl Premises {
    /// A new folder below the system's temporary one.
    pub fn new() -> Self {
        // `keep`: the janitor removes it.
        let folder = tempfile::Builder::new()
            .prefix("enginewright-cluster-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        for inner in ["pid", "log", "pki"] {
            std::fs::create_dir(folder.join(inner)).expect("a folder in a new folder");
        }
        let janitor = Command::new("sh")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/janitor.sh"))
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal is sent to the whole group of the test process.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self {
            folder,
            janitor,
            components: Mutex::new(Vec::new()),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder, as text.
    pub fn path(&self, relative: &str) -> String {
        self.folder.join(relative).display().to_string()
    }

    /// Starts a component; its two outputs go to `log/NAME`. Its command line must name the folder:
    /// by that the janitor knows it.
    pub fn start(&self, name: &str, mut command: Command) {
        let log = File::create(self.folder.join("log").join(name)).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        std::fs::write(
            self.folder.join("pid").join(name),
            format!("{}\n", child.id()),
        )
        .expect("a pid file");
        self.components
            .lock()
            .expect("no panic while held")
            .push(child);
    }

    /// How the first component that ended has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut components = self.components.lock().expect("no panic while held");
        components
            .iter_mut()
            .find_map(|child| child.try_wait().expect("a child can be waited for"))
    }

    /// The end of a component's log.
    pub fn log(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        let read = File::open(self.folder.join("log").join(name))
            .map(|mut file| file.read_to_end(&mut bytes));
        let start = bytes.len().saturating_sub(TAIL);
        let tail = String::from_utf8_lossy(&bytes[start..]);
        format!("--- end of the log of {name} ({read:?})\n{tail}")
    }
}

impl Drop for Premises {
    fn drop(&mut self) {
        // The janitor begins when its input ends.
        drop(self.janitor.stdin.take());
        let _ended = self.janitor.wait();
        for child in self.components.get_mut().into_iter().flatten() {
            let _reaped = child.wait();
        }
    }
}
