//! `enginewright crds`: prints the custom resource definitions.

use super::Exit;

/// Print the custom resource definitions as YAML, for `kubectl apply -f -`
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self) -> Exit {
        let Self {} = self;
        Exit::Ok
    }
}
