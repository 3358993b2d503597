//! Load test with latency percentiles against any OpenAI- or Ollama-compatible URL.
//!
//! Decides which requests are sent, in which order, and what is measured. It never judges: a table
//! or JSON comes out, and with two URLs the ratios of one interleaved run, because two runs at two
//! times on a small machine do not compare.

pub mod client;
pub mod prompt;
pub mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::join_all;

use client::{Api, Outcome, Target};
use prompt::PromptMaker;
use report::{Cell, Report, Side};

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// One target, or two to compare.
    pub targets: Vec<Target>,
    /// Concurrent requests, one cell of the table for each.
    pub concurrency: Vec<usize>,
    /// Prompt lengths in tokens, one cell of the table for each.
    pub prompt_tokens: Vec<usize>,
    /// Answer length in tokens.
    pub max_tokens: u32,
    /// Requests per cell and target.
    pub requests: usize,
    /// Requests per target that are sent first and not counted.
    pub warmup: usize,
    /// All prompts of a cell share everything but their last words, so that a server's prefix
    /// cache can work; otherwise they differ from the first word on.
    pub shared_prefix: bool,
}

/// Why a benchmark could not be run at all. Failed requests are no error: they are counted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The first request of a target failed: nothing to measure.
    #[error("{url} does not answer: {why}; check the URL, --model and --api")]
    Unusable {
        /// The target.
        url: String,
        /// The failure.
        why: String,
    },
    /// The model was not named and the server lists none.
    #[error("{url} lists no model; name one with --model")]
    NoModel {
        /// The target.
        url: String,
    },
    /// The HTTP client could not be built.
    #[error("cannot build the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Requests of one target in flight per interleaved round: short enough that drift of the machine
/// hits both sides alike.
const ROUNDS: usize = 4;

/// Runs all cells; `progress` is told before each.
///
/// # Errors
/// [`BenchError`] when a target cannot be measured at all.
pub async fn run(config: &Config, progress: &dyn Fn(&str)) -> Result<Report, BenchError> {
    let http = client::http()?;
    let mut sides = Vec::new();
    for target in &config.targets {
        sides.push(prepare(&http, target, config).await?);
    }
    let mut cells = Vec::new();
    for &tokens in &config.prompt_tokens {
        for &concurrency in &config.concurrency {
            progress(&format!("{concurrency} concurrent, {tokens} prompt tokens"));
            cells.push(cell(&http, config, &sides, concurrency, tokens).await);
        }
    }
    Ok(Report {
        targets: sides.into_iter().map(|side| side.target).collect(),
        cells,
    })
}

struct Prepared {
    target: Target,
    prompts: PromptMaker,
}

/// Finds the model, warms the server, and learns how many tokens a word is for its tokeniser.
async fn prepare(
    http: &reqwest::Client,
    target: &Target,
    config: &Config,
) -> Result<Prepared, BenchError> {
    let mut target = target.clone();
    if target.model.is_empty() {
        target.model =
            client::first_model(http, &target)
                .await
                .ok_or_else(|| BenchError::NoModel {
                    url: target.url.clone(),
                })?;
    }
    let mut prompts = PromptMaker::uncalibrated(config.shared_prefix);
    for round in 0..config.warmup.max(2) {
        let words = 50 * (round + 1);
        let text = prompts.words(words, round as u64);
        match client::request(http, &target, &text, 2).await {
            Outcome::Done(sample) => prompts.learn(words, sample.prompt_tokens),
            Outcome::Refused { status } => {
                let why = format!("HTTP {status}");
                return Err(BenchError::Unusable {
                    url: target.url,
                    why,
                });
            }
            Outcome::Failed { why } => {
                return Err(BenchError::Unusable {
                    url: target.url,
                    why,
                });
            }
        }
    }
    Ok(Prepared { target, prompts })
}

async fn cell(
    http: &reqwest::Client,
    config: &Config,
    sides: &[Prepared],
    concurrency: usize,
    prompt_tokens: usize,
) -> Cell {
    let mut measured: Vec<Side> = sides.iter().map(|_| Side::default()).collect();
    // Every prompt of a benchmark is used once, on all sides: a prefix cache sees each first here.
    let serial = Arc::new(AtomicU64::new(
        (prompt_tokens as u64) << 32 | (concurrency as u64) << 16,
    ));
    let per_round = config
        .requests
        .div_ceil(ROUNDS)
        .max(concurrency.min(config.requests));
    let mut left = config.requests;
    while left > 0 {
        let count = per_round.min(left);
        let first = serial.fetch_add(count as u64, Ordering::Relaxed);
        for (side, into) in sides.iter().zip(&mut measured) {
            let begun = Instant::now();
            let outcomes = round(
                http,
                side,
                first,
                count,
                concurrency,
                prompt_tokens,
                config.max_tokens,
            )
            .await;
            into.wall += begun.elapsed();
            into.add(outcomes);
        }
        left -= count;
    }
    Cell {
        concurrency,
        prompt_tokens,
        sides: measured,
    }
}

/// `count` requests, `concurrency` at a time, each worker sending its next as one ends.
async fn round(
    http: &reqwest::Client,
    side: &Prepared,
    first: u64,
    count: usize,
    concurrency: usize,
    prompt_tokens: usize,
    max_tokens: u32,
) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let workers = (0..concurrency.min(count)).map(|_| async {
        let mut outcomes = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count as u64 {
                return outcomes;
            }
            let text = side.prompts.tokens(prompt_tokens, first + index);
            outcomes.push(client::request(http, &side.target, &text, max_tokens).await);
        }
    });
    join_all(workers).await.into_iter().flatten().collect()
}

/// Which API a URL speaks, when the user did not say: Ollama answers its version call.
pub async fn detect(url: &str) -> Api {
    let Ok(http) = client::http() else {
        return Api::OpenAi;
    };
    match http.get(format!("{url}/v1/models")).send().await {
        Ok(response) if response.status().is_success() => Api::OpenAi,
        _ => Api::Ollama,
    }
}
