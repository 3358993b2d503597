//! `enginewright bench`: a load test from the command line.

use std::time::Duration;

use super::Exit;
use crate::bench::{
    self, Config,
    client::{Api, Target},
};

/// Load test with latency percentiles against any OpenAI- or Ollama-compatible URL
///
/// Every prompt is used once per target, so prefix caches do not help unless --shared-prefix is
/// given. With --compare, both targets are measured in turns within one run and ratios are printed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Base URL of the server, for example `http://127.0.0.1:8080`
    url: String,
    /// A second URL, measured in turns with the first
    #[arg(long, value_name = "URL")]
    compare: Option<String>,
    /// Model to ask for; default: the first the server lists
    #[arg(long)]
    model: Option<String>,
    /// Model to ask the second URL for; default: as --model, else the first it lists
    #[arg(long, value_name = "MODEL")]
    compare_model: Option<String>,
    /// Which API to use; default: OpenAI's where the server has it
    #[arg(long, value_enum)]
    api: Option<Api>,
    /// Concurrent requests, a list makes a table
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = at_least_one)]
    concurrency: Vec<usize>,
    /// Prompt lengths in tokens, a list makes a table
    #[arg(long, value_delimiter = ',', default_value = "128", value_parser = at_least_one)]
    prompt_tokens: Vec<usize>,
    /// Answer length in tokens
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Requests per row and target
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    requests: usize,
    /// Requests per target that are sent first and not counted (at least 2, which also measure how
    /// many tokens a word is)
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Let all prompts of a row begin alike, so that a prefix cache can work
    #[arg(long)]
    shared_prefix: bool,
    /// File with an API key, sent as a bearer token
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<std::path::PathBuf>,
    /// `table` for people, `json` for programs
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a whole number above 0")),
        Ok(number) => Ok(number),
    }
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return super::fail(Exit::Environment, &error),
        };
        runtime.block_on(self.measure())
    }

    async fn measure(self) -> Exit {
        let Self {
            url,
            compare,
            model,
            compare_model,
            api,
            concurrency,
            prompt_tokens,
            max_tokens,
            requests,
            warmup,
            shared_prefix,
            api_key_file,
            output,
        } = self;
        let api_key = match api_key_file.map(std::fs::read_to_string).transpose() {
            Ok(key) => key.map(|key| key.lines().next().unwrap_or_default().trim().to_owned()),
            Err(error) => return super::fail(Exit::BadInput, &format!("--api-key-file: {error}")),
        };
        let mut targets = Vec::new();
        let second = compare.map(|url| (url, compare_model.or_else(|| model.clone())));
        for (url, model) in std::iter::once((url, model.clone())).chain(second) {
            let url = url.trim_end_matches('/').to_owned();
            let api = match api {
                Some(api) => api,
                None => bench::detect(&url).await,
            };
            let model = model.unwrap_or_default();
            targets.push(Target {
                url,
                api,
                model,
                api_key: api_key.clone(),
            });
        }
        let config = Config {
            targets,
            concurrency,
            prompt_tokens,
            max_tokens,
            requests,
            warmup,
            shared_prefix,
        };
        let bar = indicatif::ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        let result = bench::run(&config, &|step| bar.set_message(step.to_owned())).await;
        bar.finish_and_clear();
        match result {
            Ok(report) if output == Output::Json => super::out(&format!("{:#}\n", report.json())),
            Ok(report) => super::out(&report.table()),
            Err(error) => super::fail(Exit::Environment, &error),
        }
    }
}
