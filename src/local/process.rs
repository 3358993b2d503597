//! Child processes: started under the guard, with their output in a bounded file, ended orderly and
//! then for certain.
//!
//! Must be used from the runtime's own thread, which lives as long as the process: the kernel's
//! parent-death signal is about the *thread* that started a child.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid};
use tokio::process::{Child, Command};

use super::guard::own_program;

/// Where a child's output is cut off; it is only there to be read after a failure.
const LOG_LIMIT: u64 = 4 << 20;
/// Longest quote of a child's last words.
const LAST_WORDS: usize = 300;
/// Begin of the message that our own programs end with.
const OWN_MESSAGE: &str = "enginewright: ";

/// What to start.
#[derive(Debug)]
pub struct Order {
    /// The program; `None`: this one.
    pub program: Option<PathBuf>,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Environment added to ours.
    pub environment: Vec<(&'static str, OsString)>,
    /// What it gets as standard input.
    pub stdin: Option<OwnedFd>,
    /// Where its output goes.
    pub log: PathBuf,
    /// It starts processes of its own, which must end with it.
    pub tree: bool,
}

/// A running child.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: Option<Pid>,
    log: PathBuf,
    tree: bool,
}

/// Starts a child that does not outlive this process.
///
/// # Errors
/// What the operating system says.
pub fn start(order: Order) -> std::io::Result<Running> {
    let Order {
        program,
        arguments,
        environment,
        stdin,
        log,
        tree,
    } = order;
    let output = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&log)?;
    drop(output);
    let append = || File::options().append(true).open(&log);
    let mut command = Command::new(own_program());
    command.arg0("enginewright");
    command.args(["guard", "--parent", &std::process::id().to_string()]);
    if tree {
        command.arg("--tree");
    }
    for variable in std::env::vars_os().map(|(name, _)| name) {
        if is_ours_alone(&variable) {
            command.env_remove(variable);
        }
    }
    command
        .arg("--")
        .arg(program.as_deref().unwrap_or_else(|| own_program()))
        .args(arguments)
        .envs(environment)
        .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
        .stdout(append()?)
        .stderr(append()?)
        // A Ctrl-C at the terminal is for `run`, which ends its children in order.
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn()?;
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    Ok(Running {
        child,
        pid,
        log,
        tree,
    })
}

/// Variables that configure `run` and would mean something else to a child: its own flags under the
/// same names, and the channel to systemd. What concerns logs and traces is meant for all.
fn is_ours_alone(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    let logs = name.starts_with("ENGINEWRIGHT_LOG");
    name.starts_with("ENGINEWRIGHT_") && !logs || name == "NOTIFY_SOCKET"
}

impl Running {
    /// Process id, for reports.
    pub fn id(&self) -> Option<u32> {
        self.pid
            .and_then(|pid| u32::try_from(pid.as_raw_pid()).ok())
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits for its end by itself. May be dropped and called again.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.end_orphans();
        Ok(status)
    }

    /// A guard that was killed leaves what its program had started: it falls to this process, which
    /// is a sub-reaper, and is known by the process group that began with the guard.
    fn end_orphans(&self) {
        let Some(group) = self.pid.filter(|_| self.tree) else {
            return;
        };
        // No such group: nothing was left.
        if kill_process_group(group, Signal::KILL).is_ok() {
            // Killed processes end at once; those that are not our children are not waited for.
            while let Ok(Some(_)) = waitpgid(group, WaitOptions::empty()) {}
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // The child is reaped only through `self.child`, so the number is still its own.
        if let (Some(pid), Some(_)) = (self.pid, self.child.id()) {
            let _gone = kill_process(pid, signal);
        }
    }

    /// Asks it to end, waits, and ends it hard when `grace` is over.
    pub async fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait())
            .await
            .is_err()
        {
            // Only fails when it has ended meanwhile.
            let _ended = self.child.kill().await;
        }
        self.end_orphans();
    }
}

/// Cuts a log that has grown too long. Writers append, so they go on at its new end.
pub fn bound_log(path: &Path) {
    let long = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT);
    if long {
        // A log that cannot be cut only takes space.
        let _kept = File::options()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(0));
    }
}

/// Deletes all but the `count` newest files in `folder` whose name begins with `prefix`.
pub fn keep_newest(folder: &Path, prefix: &str, count: usize) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(count) {
        // A log that cannot be deleted only takes space.
        let _kept = std::fs::remove_file(path);
    }
}

/// The last thing a child said: the message of our own programs, else the last line.
pub fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let end = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(end.saturating_sub(8192))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let own = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix(OWN_MESSAGE));
    let last = lines.iter().rev().find(|line| !line.is_empty()).copied();
    let words: String = own.or(last)?.chars().take(LAST_WORDS).collect();
    // It becomes part of a sentence.
    Some(words.trim_end_matches(['.', ':', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_our_own_message_or_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(last_words(&log), None);
        std::fs::write(&log, "one\ntwo\n\n").unwrap();
        assert_eq!(last_words(&log).as_deref(), Some("two"));
        std::fs::write(&log, "enginewright: no model: write one\nnoise\n").unwrap();
        assert_eq!(last_words(&log).as_deref(), Some("no model: write one"));
    }

    #[test]
    fn children_do_not_inherit_what_configures_run() {
        for (name, expected) in [
            ("ENGINEWRIGHT_LISTEN", true),
            ("ENGINEWRIGHT_API_KEYS_FILE", true),
            ("NOTIFY_SOCKET", true),
            ("ENGINEWRIGHT_LOG", false),
            ("ENGINEWRIGHT_LOG_FORMAT", false),
            ("PATH", false),
        ] {
            assert_eq!(is_ours_alone(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_log_is_cut_when_it_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for (length, expected) in [(LOG_LIMIT, LOG_LIMIT), (LOG_LIMIT + 1, 0)] {
            File::create(&log).unwrap().set_len(length).unwrap();
            bound_log(&log);
            assert_eq!(std::fs::metadata(&log).unwrap().len(), expected);
        }
    }
}
