//! The guard: nothing that a child starts outlives the process that wanted it.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::tools::{Process, descendants, enginewright, is_alive, signal_pid, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

/// A shell that starts a guard, which runs `script`; the shell stands for `run`.
fn parent_of_guard(arguments: &str, script: &str) -> Process {
    let program = crate::tools::binary().display();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "'{program}' guard --parent $$ {arguments} -- sh -c '{script}' & wait"
    ));
    Process::start(shell)
}

fn wait_for_descendants(process: &Process, count: usize) -> Vec<u32> {
    wait_for("all processes to run", LIMIT, || {
        let found = descendants(process.pid());
        (found.len() == count).then_some(found)
    })
}

fn wait_until_gone(pids: &[u32]) {
    wait_for(&format!("{pids:?} to be gone"), LIMIT, || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn a_guarded_program_dies_with_its_parent() {
    let parent = parent_of_guard("", "while :; do sleep 0.1; done & wait");
    let pids = wait_for_descendants(&parent, 3);
    let guarded = descendants(parent.pid()).first().copied().unwrap();
    parent.signal(Signal::KILL);
    wait_until_gone(&[guarded]);
    // The simple form promises nothing for what the program itself started: end it here.
    for pid in pids {
        signal_pid(pid, Signal::KILL);
    }
}

#[test]
fn a_guarded_tree_dies_with_its_parent_even_where_it_ignores_signals_and_its_own_parents_end() {
    // The grandchild survives SIGTERM and belongs to a session of its own; its parent ends at once.
    let script = "trap \"\" TERM; (trap \"\" TERM; setsid sleep 1000 &) ; sleep 1000";
    let parent = parent_of_guard("--tree", script);
    // Guard, shell, two sleeps.
    let pids = wait_for_descendants(&parent, 4);
    parent.signal(Signal::KILL);
    wait_until_gone(&pids);
}

#[test]
fn a_guarded_program_dies_when_its_guard_is_killed() {
    let parent = parent_of_guard("--tree", "exec sleep 1000");
    let pids = wait_for_descendants(&parent, 2);
    let guard = descendants(parent.pid()).first().copied().unwrap();
    signal_pid(guard, Signal::KILL);
    wait_until_gone(&pids);
}

#[test]
fn told_to_end_a_guard_waits_for_the_program_and_then_ends_what_it_left_behind() {
    let script = "trap \"echo ending; exit 7\" TERM; sleep 1000 & echo started; while :; do sleep 0.05; done";
    let mut command = enginewright(["guard", "--tree", "--parent"]);
    command.arg(std::process::id().to_string());
    command.args(["--", "sh", "-c", script]);
    let mut guard = Process::start(command);
    guard.wait_for_output("started", LIMIT);
    let pids = descendants(guard.pid());
    guard.signal(Signal::TERM);
    let status = guard.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(7), "{}", guard.output());
    assert!(guard.output().contains("ending"));
    wait_until_gone(&pids);
}

#[test]
fn told_to_end_a_guard_kills_a_program_that_does_not_listen() {
    let script = "trap \"\" TERM; echo started; while :; do sleep 0.05; done";
    let mut command = enginewright(["guard", "--tree", "--grace", "1", "--parent"]);
    command.arg(std::process::id().to_string());
    command.args(["--", "sh", "-c", script]);
    let mut guard = Process::start(command);
    guard.wait_for_output("started", LIMIT);
    let pids = descendants(guard.pid());
    guard.signal(Signal::TERM);
    let status = guard.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(128 + 9), "{}", guard.output());
    wait_until_gone(&pids);
}

#[test]
fn a_guard_reports_how_the_program_ended_and_starts_nothing_without_its_parent() {
    let own = std::process::id().to_string();
    let run = |arguments: &[&str]| {
        let status = enginewright(["guard"]).args(arguments).status().unwrap();
        (status.code(), status.signal())
    };
    assert_eq!(
        run(&["--parent", &own, "--tree", "--", "sh", "-c", "exit 3"]),
        (Some(3), None)
    );
    assert_eq!(
        run(&["--parent", &own, "--", "sh", "-c", "exit 3"]),
        (Some(3), None)
    );
    // Process 1 is not the parent of this guard.
    assert_eq!(run(&["--parent", "1", "--", "true"]), (Some(4), None));
    assert_eq!(
        run(&["--parent", &own, "--", "/no/such/program"]),
        (Some(4), None)
    );
}
