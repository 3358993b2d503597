//! `make bench`: the speed and memory figures of the README, each a ratio within one run.
//!
//! Prints one markdown table. It measures and reports; thresholds are in the README, not here,
//! because a shared machine makes a timed test lie.

mod failover;
mod overload;
mod parts;
mod steady;

use std::io::Write;

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let parts = Parts::find()?;
    let mut rows = Vec::new();
    for (name, measured) in [
        (
            "decode and prefill against a bare llama.cpp loop",
            steady::engine(&parts).await,
        ),
        ("prefix reuse", steady::prefix(&parts).await),
        (
            "a long prompt beside a running stream",
            steady::stall(&parts).await,
        ),
        ("the gateway's cost", steady::gateway(&parts).await),
        (
            "a failure before the first token",
            failover::added_time(&parts).await,
        ),
        ("an idle `run`", failover::idle(&parts).await),
        ("overload", overload::tenfold(&parts).await),
        ("silent connections", overload::silent(&parts).await),
        ("Ollama", steady::ollama(&parts).await),
    ] {
        say(&format!("-- {name}: done"));
        match measured {
            Ok(more) => rows.extend(more),
            Err(error) => {
                say(&format!("{name} could not be measured: {error}"));
                return Err(format!("{name} could not be measured").into());
            }
        }
    }
    say("\n| what | goal | measured |\n|---|---|---|");
    for Row { what, figure, goal } in &rows {
        say(&format!("| {what} | {goal} | {figure} |"));
    }
    Ok(())
}
