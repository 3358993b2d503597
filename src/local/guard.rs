//! The process between `run` and a child: sees to it that the child does not outlive `run`, however
//! `run` ends.
//!
//! Two forms. [`exec`]: asks the kernel to kill this process when its parent dies and becomes the
//! child: enough for a program that starts no processes of its own. [`watch`]: stays, adopts whatever
//! the child and its descendants start (sub-reaper), and ends all of them when the child ends, when
//! it is told to, or when the parent dies: for Ollama, whose runners would otherwise live on.
//!
//! It decides nothing else: no restart, no health.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Exit code when the parent was gone before the guard stood.
const PARENT_GONE: i32 = 4;

/// Why a guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The kernel refused to tie this process to its parent.
    #[error("cannot tie this process to its parent: {0}")]
    Tie(#[source] std::io::Error),
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] std::io::Error),
    /// The parent died before the guard stood; nothing was started.
    #[error("the parent process is gone, nothing was started")]
    ParentGone,
}

/// Ties this process to `parent`: the kernel sends `death` when it dies. Must be called in the
/// child's first moments; the parent's *thread* that started it must live as long as the parent.
fn tie(parent: u32, death: Signal) -> Result<(), GuardError> {
    set_parent_process_death_signal(Some(death)).map_err(|error| GuardError::Tie(error.into()))?;
    // It may have died before the line above; then a sub-reaper or init is the parent now.
    if is_parent(parent) {
        Ok(())
    } else {
        Err(GuardError::ParentGone)
    }
}

/// SIGKILL for this process when its parent ends: for our own subcommands, which are started
/// directly by the supervisor that relies on it.
///
/// # Errors
/// When the order cannot be given, or the parent ended while it was.
pub fn exit_with_parent() -> Result<(), GuardError> {
    let parent = getppid().ok_or(GuardError::ParentGone)?;
    tie(parent.as_raw_pid().unsigned_abs(), Signal::KILL)
}

fn is_parent(pid: u32) -> bool {
    getppid().is_some_and(|parent| u32::try_from(parent.as_raw_pid()) == Ok(pid))
}

/// Becomes `program`, to be killed by the kernel as soon as `parent` dies. Returns only on failure.
pub fn exec(parent: u32, program: &OsString, arguments: &[OsString]) -> GuardError {
    if let Err(error) = tie(parent, Signal::KILL) {
        return error;
    }
    let source = Command::new(program).args(arguments).exec();
    GuardError::Start {
        program: program.to_string_lossy().into_owned(),
        source,
    }
}

/// Runs `program`, passes SIGTERM and SIGINT on to it, and ends it with all its descendants: after
/// `grace` when told to end, at once when `parent` dies. Returns the program's exit code, 128 plus
/// the signal's number where it was killed.
///
/// # Errors
/// When the program cannot be started or watched; then nothing of it runs.
pub async fn watch(
    parent: u32,
    grace: Duration,
    program: &OsString,
    arguments: &[OsString],
) -> Result<i32, GuardError> {
    // TERM can be caught, so that the descendants can be ended first. That it was the parent's death
    // is seen by who the parent is then.
    tie(parent, Signal::TERM)?;
    set_child_subreaper(Some(getpid())).map_err(|error| GuardError::Tie(error.into()))?;
    let mut ended = signal(SignalKind::child()).map_err(GuardError::Signals)?;
    let mut term = signal(SignalKind::terminate()).map_err(GuardError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(GuardError::Signals)?;
    let child = start(program, arguments)?;

    let mut deadline: Option<Instant> = None;
    let status = loop {
        if let Some(status) = reap(child) {
            break Some(status);
        }
        if !is_parent(parent) {
            break None;
        }
        tokio::select! {
            _ = ended.recv() => {}
            _ = term.recv() => {
                deadline.get_or_insert_with(|| Instant::now() + grace);
                signal_pid(child, Signal::TERM);
            }
            _ = interrupt.recv() => {
                deadline.get_or_insert_with(|| Instant::now() + grace);
                signal_pid(child, Signal::INT);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break None,
        }
    };
    let last = end_descendants(child);
    Ok(status.or(last).map_or(PARENT_GONE, exit_code))
}

/// Starts the program tied to this guard: should the guard itself be killed hard, the kernel kills
/// the program, and its descendants fall to `run`, which is a sub-reaper too.
fn start(program: &OsString, arguments: &[OsString]) -> Result<Pid, GuardError> {
    let own = getpid().as_raw_pid().to_string();
    let child = Command::new(own_program())
        .arg0("enginewright")
        .args(["guard", "--parent", &own, "--"])
        .arg(program)
        .args(arguments)
        .spawn()
        .map_err(|source| GuardError::Start {
            program: program.to_string_lossy().into_owned(),
            source,
        })?;
    // Reaped by `reap`, which takes whatever ended.
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(GuardError::ParentGone)
}

/// The program that runs now, also when its file was replaced by a newer version meanwhile.
pub fn own_program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// Reaps whatever ended; the status of `child` if it was among them.
fn reap(child: Pid) -> Option<ExitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = waitpid(None, WaitOptions::NOHANG) {
        if pid == child {
            found = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    found
}

/// Kills all descendants until none is left. New ones that appear meanwhile are caught by the next
/// round, because orphans fall to this sub-reaper.
///
/// Only for a process that is about to end: it reaps children that others may wait for.
pub fn end_descendants_of_this_process() {
    let _nobody_asks = end_descendants(getpid());
}

fn end_descendants(child: Pid) -> Option<ExitStatus> {
    let mut status = None;
    loop {
        let descendants = descendants(getpid());
        for pid in &descendants {
            signal_pid(*pid, Signal::KILL);
        }
        match waitpid(None, WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == child => {
                status = Some(ExitStatus::from_raw(ended.as_raw()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(_) => return status,
        }
    }
}

fn signal_pid(pid: Pid, signal: Signal) {
    // One that is gone already is what is wanted.
    let _gone = kill_process(pid, signal);
}

/// The exit code a shell would report.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

/// All living descendants of a process, itself not included.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let children = children_by_parent();
    let mut found = BTreeSet::new();
    let mut next = vec![root.as_raw_pid()];
    while let Some(parent) = next.pop() {
        for &child in children.get(&parent).into_iter().flatten() {
            if found.insert(child) {
                next.push(child);
            }
        }
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

fn children_by_parent() -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in_stat(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// `pid (name, which may hold blanks and brackets) state parent …`; `None` for what has ended.
fn parent_in_stat(stat: &str) -> Option<i32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_past_a_name_with_brackets_and_blanks() {
        assert_eq!(parent_in_stat("12 (a) b) c) S 7 12 12"), Some(7));
        assert_eq!(parent_in_stat("12 (sh) Z 7 12 12"), None);
        assert_eq!(parent_in_stat(""), None);
    }

    #[test]
    fn descendants_include_children_of_children() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .spawn()
            .unwrap();
        let shell_pid = Pid::from_child(&shell);
        let found = loop {
            let found = descendants(getpid());
            if found.len() >= 2 && found.contains(&shell_pid) && !descendants(shell_pid).is_empty()
            {
                break found;
            }
            std::thread::yield_now();
        };
        for pid in descendants(shell_pid) {
            assert!(found.contains(&pid));
            signal_pid(pid, Signal::KILL);
        }
        shell.wait().unwrap();
    }
}
