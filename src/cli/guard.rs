//! `enginewright guard`, hidden: ties a child process to the process that started it.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use super::{Exit, fail};
use crate::local::guard;

/// Run a program that must not outlive the process that started it (used by `run`)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Process id of the starting process.
    #[arg(long)]
    parent: u32,

    /// Stay beside the program and end everything it starts, too.
    #[arg(long)]
    tree: bool,

    /// Seconds the program may take to end by itself when told to.
    #[arg(long, default_value_t = 5)]
    grace: u64,

    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let Self {
            parent,
            tree,
            grace,
            command,
        } = self;
        // clap requires at least one word.
        let Some((program, arguments)) = command.split_first() else {
            return Exit::BadInput.into();
        };
        if !tree {
            return fail(Exit::Environment, &guard::exec(parent, program, arguments)).into();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ended = match runtime {
            Ok(runtime) => runtime.block_on(guard::watch(
                parent,
                Duration::from_secs(grace),
                program,
                arguments,
            )),
            Err(error) => return fail(Exit::Environment, &error).into(),
        };
        match ended {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
            Err(error) => fail(Exit::Environment, &error).into(),
        }
    }
}
