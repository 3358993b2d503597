//! `scripts/gpu-proof` runs this on a machine with a GPU: an engine through the very back end that
//! `serve` uses, against references and against itself, and its speed against the bare replay of
//! its own recorded steps. It prints JSON, one object a line.

mod books;
mod checks;
mod drive;
mod grow;
#[cfg(feature = "cpu")]
mod reference;
mod sampling;
mod soak;
mod speed;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use enginewright::backend::Backend;
use enginewright::backend::tensorrt::bundle::EngineFolder;
use enginewright::backend::tensorrt::{TensorRt, TensorRtLoader};
use enginewright::tensorrt::{Search, Wait};

/// Whatever went wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Which engine, and how it is run.
#[derive(Args, Clone)]
struct Which {
    /// The bundle.
    #[arg(long)]
    engine: PathBuf,
    /// The shim.
    #[arg(long)]
    shim: Option<PathBuf>,
    /// TensorRT.
    #[arg(long)]
    tensorrt: Option<PathBuf>,
    /// How to wait for the device: `expect`, `sleep` or `spin`.
    #[arg(long, default_value = "expect")]
    wait: Wait,
}

#[derive(Subcommand)]
enum Command {
    /// Logits of given sequences: of the prompt's last token, then token by token.
    Logits {
        #[command(flatten)]
        which: Which,
        /// `{"sequences": [[tokens]], "prompt": tokens of each that are a prompt}`.
        #[arg(long)]
        sequences: PathBuf,
        /// Where the rows go: little-endian f32, sequence by sequence.
        #[arg(long)]
        out: PathBuf,
    },
    /// Greedy continuations.
    Greedy {
        #[command(flatten)]
        which: Which,
        /// `[{"prompt": [tokens]}]`.
        #[arg(long)]
        prompts: PathBuf,
        /// Tokens to generate.
        #[arg(long, default_value_t = 64)]
        tokens: usize,
    },
    /// Greedy continuations by llama.cpp on the CPU: how the reference is recorded.
    #[cfg(feature = "cpu")]
    Reference {
        /// A GGUF file in F32.
        #[arg(long)]
        model: PathBuf,
        /// `["text"]`.
        #[arg(long)]
        prompts: PathBuf,
        /// Tokens to generate.
        #[arg(long, default_value_t = 64)]
        tokens: usize,
    },
    /// Equalities that need no reference.
    Checks {
        #[command(flatten)]
        which: Which,
    },
    /// Many requests; memory before and after.
    Soak {
        #[command(flatten)]
        which: Which,
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        requests: u32,
        /// Stop earlier, after this many seconds.
        #[arg(long, default_value_t = 240)]
        seconds: u64,
    },
    /// Memory of the process that one kind of step costs, kind by kind.
    Grow {
        #[command(flatten)]
        which: Which,
        /// Steps of each kind.
        #[arg(long, default_value_t = 400)]
        steps: u32,
    },
    /// Time to draw a token; needs no engine.
    Sampling {
        /// Length of a row.
        #[arg(long, default_value_t = 49_152)]
        vocabulary: u32,
    },
    /// Speed.
    Speed {
        #[command(flatten)]
        which: Which,
    },
}

fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Logits {
            which,
            sequences,
            out,
        } => drive::logits(&mut which.load()?, &sequences, &out),
        Command::Greedy {
            which,
            prompts,
            tokens,
        } => drive::greedy(&mut which.load()?, &prompts, tokens),
        #[cfg(feature = "cpu")]
        Command::Reference {
            model,
            prompts,
            tokens,
        } => reference::record(&model, &prompts, tokens),
        Command::Checks { which } => checks::all(&mut which.load()?),
        Command::Soak {
            which,
            requests,
            seconds,
        } => soak::run(&mut which.load()?, requests, seconds),
        Command::Grow { which, steps } => grow::all(&mut which.load()?, steps),
        Command::Sampling { vocabulary } => sampling::all(vocabulary),
        Command::Speed { which } => speed::all(&mut which.load()?),
    }
}

impl Which {
    fn load(&self) -> Result<TensorRt, Failure> {
        let search = Search {
            shim: self.shim.clone(),
            tensorrt: self.tensorrt.clone(),
        };
        let mut config = EngineFolder::open(&self.engine)?.config(search)?;
        config.wait = self.wait;
        let begun = std::time::Instant::now();
        let backend = TensorRtLoader::new(config).load()?;
        let inside = backend.inside()?;
        say(&serde_json::json!({
            "step": "load",
            "seconds": begun.elapsed().as_secs_f64(),
            "slots": backend.capabilities().slots,
            "contextTokens": backend.capabilities().context_tokens,
            "maxBatchTokens": backend.capabilities().max_batch_tokens,
            "recorded": inside.recorded.len(),
            "nodes": inside.recorded.iter().map(|(_, nodes)| *nodes).max(),
            "gpuUsedMib": (inside.total - inside.free) >> 20,
            "hostMib": books::resident() >> 20,
        }));
        Ok(backend)
    }
}

fn read_json(path: &Path) -> Result<serde_json::Value, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// One line of the report.
fn say(value: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the run at the next process that notices.
    let _closed = writeln!(out, "{value}").and_then(|()| out.flush());
}
