//! `enginewright engine`: makes, shows and checks engine bundles by hand or in a build Job.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::Exit;
use crate::store::bundle::BundleError;
use crate::tensorrt::Search;

mod build;
mod inspect;
mod model;
mod progress;
mod source;
mod verify;

/// Build, show and check engine bundles
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(Box<build::Args>),
    Inspect(inspect::Args),
    Verify(verify::Args),
}

impl Args {
    pub(super) fn run(self) -> Exit {
        match self.command {
            Command::Build(args) => args.run(),
            Command::Inspect(args) => args.run(),
            Command::Verify(args) => args.run(),
        }
    }
}

/// Where TensorRT is.
#[derive(Debug, clap::Args)]
pub(super) struct TensorRtArgs {
    /// The shim `libenginewright_trt.so`, or its folder; by default beside the program or in
    /// /usr/lib/enginewright.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_SHIM")]
    shim: Option<PathBuf>,

    /// TensorRT's library, or its folder; by default where the dynamic linker finds it, beside the
    /// shim, or where JetPack has it.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_TENSORRT")]
    tensorrt: Option<PathBuf>,
}

impl TensorRtArgs {
    pub(super) fn search(&self) -> Search {
        Search {
            shim: self.shim.clone(),
            tensorrt: self.tensorrt.clone(),
        }
    }
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// The exit code that a bundle's error stands for.
fn exit_of(error: &BundleError) -> Exit {
    match error {
        BundleError::NotABundle { .. } => Exit::BadInput,
        BundleError::Damaged { .. } | BundleError::Newer { .. } => Exit::Damaged,
        BundleError::Read { .. } | BundleError::Write { .. } | BundleError::Occupied { .. } => {
            Exit::Environment
        }
    }
}

/// Two columns without lines.
fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"));
    lines.collect()
}
