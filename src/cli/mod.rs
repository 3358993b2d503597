//! The command line: one file per subcommand, each a clap struct that becomes typed configuration
//! and one call into the library. Nothing is decided here.
//!
//! Exit codes are stable, see [`Exit`].

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod access;
mod agent;
mod bench;
mod companion;
mod completions;
mod crds;
mod engine;
mod fetch;
mod gateway;
mod guard;
mod http;
mod listen;
mod operator;
mod plan;
mod process;
mod run;
mod serve;
mod status;

/// Stable exit codes of all subcommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The input is wrong: a flag, a file, a resource. The message says what to write.
    BadInput = 1,
    /// The input is right, but what it asks for cannot work here (`plan`).
    Infeasible = 2,
    /// A model could not be loaded, or the device failed.
    Engine = 3,
    /// A port, file, directory or process could not be had.
    Environment = 4,
    /// An engine bundle is damaged, incomplete, or of a newer schema.
    Damaged = 5,
    /// An engine bundle is whole, but for another TensorRT, GPU or platform.
    Mismatch = 6,
    /// Stopped by a signal; nothing was left behind.
    Stopped = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An LLM endpoint for NVIDIA Jetson: answers at once, gets fast when its engine is ready, never
/// goes dark when that engine fails.
#[derive(Debug, Parser)]
#[command(name = "enginewright", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Args),
    Bench(bench::Args),
    Plan(plan::Args),
    Crds(crds::Args),
    Engine(Box<engine::Args>),
    Completions(completions::Args),
    Gateway(gateway::Args),
    Run(run::Args),
    Status(status::Args),
    Operator(operator::Args),
    Fetch(fetch::Args),
    #[command(hide = true)]
    Check(fetch::Check),
    #[command(hide = true)]
    Collect(fetch::Collect),
    #[command(hide = true)]
    Companion(companion::Args),
    #[command(hide = true)]
    Guard(guard::Args),
    Serve(serve::Args),
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    // reqwest finds one default TLS provider, whatever starts first.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Agent(args) => args.run().into(),
        Command::Bench(args) => args.run().into(),
        Command::Plan(args) => args.run().into(),
        Command::Crds(args) => args.run().into(),
        Command::Engine(args) => args.run().into(),
        Command::Completions(args) => args.run().into(),
        Command::Gateway(args) => args.run().into(),
        Command::Run(args) => args.run(),
        Command::Status(args) => args.run().into(),
        Command::Operator(args) => args.run().into(),
        Command::Fetch(args) => args.run().into(),
        Command::Check(args) => args.run().into(),
        Command::Collect(args) => args.run().into(),
        Command::Companion(args) => args.run().into(),
        Command::Guard(args) => args.run(),
        Command::Serve(args) => args.run().into(),
    }
}

/// Writes to standard output; a reader that went away is no error worth a message.
fn out(text: &str) -> Exit {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(_) => Exit::Environment,
    }
}

/// Says on standard error what went wrong and returns the exit code for it.
fn fail(exit: Exit, error: &dyn Display) -> Exit {
    // Nothing can be done about a closed standard error; the exit code still tells.
    let _closed = writeln!(std::io::stderr(), "enginewright: {error}");
    exit
}
