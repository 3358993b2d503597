//! What long-running subcommands arrange with the operating system.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, fail};
use crate::telemetry::{self, TelemetryArgs};

/// Runs a subcommand to its end on one thread, with logs and, where they are asked for, traces.
///
/// One thread: these subcommands wait, they do not compute, and a board has better use for the
/// memory and the wake-ups of a second one.
pub(super) fn on_one_thread<T: From<Exit>>(
    telemetry: &TelemetryArgs,
    subcommand: impl Future<Output = T>,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Environment, &error).into(),
    };
    // The exporter of traces starts tasks, and ends them before the runtime goes.
    let entered = runtime.enter();
    let guard = match telemetry::init(telemetry) {
        Ok(guard) => guard,
        Err(error) => return fail(Exit::BadInput, &error).into(),
    };
    let exit = runtime.block_on(subcommand);
    drop(guard);
    drop(entered);
    // Work that is still being done (a digest) is not waited for.
    runtime.shutdown_background();
    exit
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
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
