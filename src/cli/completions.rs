//! `enginewright completions`: shell completions, generated from the command line's definition.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Print shell completions, for example `enginewright completions bash >
/// /etc/bash_completion.d/enginewright`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let Self { shell } = self;
        clap_complete::generate(
            shell,
            &mut Cli::command(),
            "enginewright",
            &mut std::io::stdout(),
        );
        Exit::Ok
    }
}
