//! What long-running subcommands arrange with the operating system.

use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};

/// SIGKILL when the parent ends: whoever supervises this process relies on it.
///
/// # Errors
/// When the order cannot be given, or the parent ended while it was.
pub(super) fn exit_with_parent() -> Result<(), String> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    if getppid() == parent {
        Ok(())
    } else {
        Err("the parent is already gone".into())
    }
}

/// How many descriptors this process may have open, after raising the soft limit to the hard one:
/// the usual 1,024 are fewer than the connections of a busy endpoint.
pub(super) fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where raising is forbidden, what is there is used.
    let _forbidden = setrlimit(Resource::Nofile, raised);
    let now = getrlimit(Resource::Nofile).current;
    now.map_or(usize::MAX, |count| {
        usize::try_from(count).unwrap_or(usize::MAX)
    })
}
