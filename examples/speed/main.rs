//! `make bench`: the speed and memory figures of the README, each a ratio within one run.
//!
//! Prints one markdown table, or the parts of it that its arguments name. It measures and reports;
//! thresholds are in the README, not here, because a shared machine makes a timed test lie.

mod failover;
mod overload;
mod parts;
mod steady;

use std::io::Write;
use std::pin::Pin;

use parts::{Failure, Parts};

/// One line of the table.
pub struct Row {
    what: &'static str,
    figure: String,
    goal: &'static str,
}

impl Row {
    /// A figure and what it should be.
    pub fn new(what: &'static str, goal: &'static str, figure: String) -> Self {
        Self { what, figure, goal }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the run at the next process that notices.
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}

type Measured = Pin<Box<dyn Future<Output = Result<Vec<Row>, Failure>>>>;

/// The parts in the order of the README, by the names that `speed NAME …` takes.
fn all(parts: &'static Parts) -> Vec<(&'static str, Measured)> {
    vec![
        ("engine", Box::pin(steady::engine(parts))),
        ("prefix", Box::pin(steady::prefix(parts))),
        ("stall", Box::pin(steady::stall(parts))),
        ("gateway", Box::pin(steady::gateway(parts))),
        ("failover", Box::pin(failover::added_time(parts))),
        ("idle", Box::pin(failover::idle(parts))),
        ("overload", Box::pin(overload::tenfold(parts))),
        ("silent", Box::pin(overload::silent(parts))),
        ("ollama", Box::pin(steady::ollama(parts))),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let parts = Parts::find()?;
    // Every measurement ends with the program; only the folder of the logs must go.
    let folder = parts.folder.path().to_owned();
    let measured = report(Box::leak(Box::new(parts)), &wanted).await;
    std::fs::remove_dir_all(folder)?;
    measured
}

/// Prints each line as it is measured: what was measured stands also where a later part fails.
async fn report(parts: &'static Parts, wanted: &[String]) -> Result<(), Failure> {
    let parts = all(parts);
    if let Some(name) = wanted
        .iter()
        .find(|name| parts.iter().all(|(n, _)| n != name))
    {
        let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no part '{name}'; there are {}", names.join(", ")).into());
    }
    say("| what | goal | measured |\n|---|---|---|");
    let mut failed = Vec::new();
    for (name, measured) in parts {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        match measured.await {
            Ok(rows) => {
                for Row { what, figure, goal } in &rows {
                    say(&format!("| {what} | {goal} | {figure} |"));
                }
            }
            Err(error) => failed.push(format!("{name} could not be measured: {error}")),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("\n").into())
}
