//! How fast llama.cpp itself is on this machine, in this build: the yardstick for the server.
//!
//! A loop around llama.cpp without scheduler, sampler, text or HTTP, set up as the server sets it
//! up. With `--url` the same work is also asked of a running server, in turns with the bare loop,
//! so that both see the same machine; the ratios are printed.
//!
//! ```sh
//! cargo run --release --example bare_loop -- --model model.gguf --url http://127.0.0.1:8080
//! ```

use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use enginewright::backend::llama::library;
use enginewright::backend::memory::physical_cores;
use futures::StreamExt;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use serde_json::{Value, json};

/// Sequences of the batched measurement, and slots.
const STREAMS: usize = 4;
/// Tokens of a batch, as the server's default.
const BATCH: usize = 256;

#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// A server to compare with, for example `http://127.0.0.1:8080`; it must serve the same model.
    #[arg(long)]
    url: Option<String>,
    /// Threads; default: one per physical core, as the server.
    #[arg(long)]
    threads: Option<u32>,
    /// Tokens of the prompt that is prefilled.
    #[arg(long, default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens decoded per stream.
    #[arg(long, default_value_t = 96)]
    decode_tokens: usize,
    /// Rounds; medians are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    decode_one: f64,
    decode_four: f64,
    prefill: f64,
}

/// llama.cpp with the server's settings.
struct Bare<'model> {
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    vocabulary: usize,
    /// Makes every prompt new, as for the server.
    fresh: usize,
}

impl<'model> Bare<'model> {
    fn new(library: &LlamaBackend, model: &'model LlamaModel, args: &Args) -> Result<Self> {
        let threads = i32::try_from(args.threads.unwrap_or_else(physical_cores))?;
        let tokens = model.n_ctx_train().min(4_096) * u32::try_from(STREAMS)?;
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(tokens))
            .with_n_seq_max(u32::try_from(STREAMS)?)
            .with_n_batch(u32::try_from(BATCH)?)
            .with_n_ubatch(u32::try_from(BATCH)?)
            .with_flash_attention_policy(0)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);
        Ok(Self {
            context: model.new_context(library, params)?,
            batch: LlamaBatch::new(BATCH, 1),
            vocabulary: usize::try_from(model.n_vocab())?,
            fresh: 0,
        })
    }

    /// Prefills `count` tokens of each of `streams` sequences from nothing; gives their next
    /// tokens.
    fn prefill(&mut self, streams: usize, count: usize) -> Result<Vec<LlamaToken>> {
        self.context.clear_kv_cache();
        self.fresh += 1;
        let mut next = Vec::new();
        for sequence in 0..i32::try_from(streams)? {
            for start in (0..count).step_by(BATCH) {
                self.batch.clear();
                for position in start..count.min(start + BATCH) {
                    let token = 1_000 + (self.fresh * 31 + position * 7_919) % 40_000;
                    let token = LlamaToken(i32::try_from(token % self.vocabulary)?);
                    let last = position + 1 == count;
                    self.batch
                        .add(token, i32::try_from(position)?, &[sequence], last)?;
                }
                self.context.decode(&mut self.batch)?;
            }
            next.push(self.best(self.batch.n_tokens() - 1));
        }
        Ok(next)
    }

    /// The most probable token of a row.
    fn best(&self, row: i32) -> LlamaToken {
        let logits = self.context.get_logits_ith(row);
        let best = (0..).zip(logits).fold((0, f32::MIN), |best, (id, logit)| {
            if *logit > best.1 { (id, *logit) } else { best }
        });
        LlamaToken(best.0)
    }

    /// Decodes `count` tokens in each of `streams` sequences; tokens per second of all.
    fn decode(&mut self, streams: usize, count: usize) -> Result<f64> {
        const PROMPT: usize = 32;
        let mut tokens = self.prefill(streams, PROMPT)?;
        let began = Instant::now();
        for position in PROMPT..PROMPT + count {
            self.batch.clear();
            for (sequence, token) in (0..).zip(&tokens) {
                self.batch
                    .add(*token, i32::try_from(position)?, &[sequence], true)?;
            }
            self.context.decode(&mut self.batch)?;
            for (row, token) in (0..).zip(&mut tokens) {
                *token = self.best(row);
            }
        }
        Ok(per_second(streams * count, began.elapsed()))
    }

    fn measure(&mut self, args: &Args) -> Result<Rates> {
        let began = Instant::now();
        self.prefill(1, args.prompt_tokens)?;
        let prefill = per_second(args.prompt_tokens, began.elapsed());
        Ok(Rates {
            prefill,
            decode_one: self.decode(1, args.decode_tokens)?,
            decode_four: self.decode(STREAMS, args.decode_tokens)?,
        })
    }
}

/// A server asked over HTTP.
struct Served {
    client: reqwest::Client,
    url: String,
    fresh: usize,
}

/// When the chunks of one answer came.
struct Timeline {
    began: Instant,
    first: Instant,
    last: Instant,
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Served {
    /// Streams `tokens` tokens of an answer to a prompt of about `words` tokens that was never
    /// asked before.
    async fn stream(&self, fresh: usize, words: usize, tokens: usize) -> Result<Timeline> {
        let mut prompt = format!("{fresh}");
        for i in 0..words {
            prompt.push_str([" one", " two", " red", " sea", " sun", " top", " win"][i * i % 7]);
        }
        let body = json!({
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true,
            "ignore_eos": true, "stream_options": {"include_usage": true},
        });
        let began = Instant::now();
        let url = format!("{}/v1/completions", self.url);
        let answer = self
            .client
            .post(url)
            .json(&body)
            .send()
            .await?
            .error_for_status()?;
        let mut chunks = answer.bytes_stream();
        let (mut first, mut last, mut text) = (None, began, String::new());
        while let Some(chunk) = chunks.next().await {
            text.push_str(std::str::from_utf8(&chunk?).context("broken UTF-8")?);
            if text.contains("\"text\"") {
                first.get_or_insert_with(Instant::now);
            }
            if !text.contains("[DONE]") {
                last = Instant::now();
            }
        }
        let usage = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .find_map(|event| {
                event
                    .get("usage")
                    .filter(|usage| usage.is_object())
                    .cloned()
            });
        let usage = usage.context("the server reported no usage")?;
        let count = |key: &str| {
            let count = usage[key].as_u64().with_context(|| format!("no {key}"))?;
            Ok::<_, anyhow::Error>(usize::try_from(count)?)
        };
        let completion_tokens = count("completion_tokens")?;
        ensure!(
            completion_tokens == tokens,
            "{completion_tokens} tokens instead of {tokens}"
        );
        Ok(Timeline {
            began,
            first: first.context("no text came")?,
            last,
            prompt_tokens: count("prompt_tokens")?,
            completion_tokens,
        })
    }

    async fn decode(&mut self, streams: usize, tokens: usize) -> Result<f64> {
        self.fresh += streams;
        let asked = (0..streams).map(|i| self.stream(self.fresh + i, 24, tokens));
        let lines = futures::future::try_join_all(asked).await?;
        // From when all have their first token until the first one ends: all of them run.
        let first = lines
            .iter()
            .map(|line| line.first)
            .max()
            .context("no stream")?;
        let last = lines
            .iter()
            .map(|line| line.last)
            .min()
            .context("no stream")?;
        let share = |line: &Timeline| {
            let whole = line.last.duration_since(line.first).as_secs_f64();
            let part = last.saturating_duration_since(first).as_secs_f64();
            to_f64(line.completion_tokens - 1) * part / whole
        };
        let tokens: f64 = lines.iter().map(share).sum();
        Ok(tokens / last.saturating_duration_since(first).as_secs_f64())
    }

    async fn measure(&mut self, args: &Args) -> Result<Rates> {
        self.fresh += 1;
        let line = self.stream(self.fresh, args.prompt_tokens - 4, 1).await?;
        let prefill = per_second(line.prompt_tokens, line.first.duration_since(line.began));
        Ok(Rates {
            prefill,
            decode_one: self.decode(1, args.decode_tokens).await?,
            decode_four: self.decode(STREAMS, args.decode_tokens).await?,
        })
    }
}

fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn per_second(tokens: usize, took: Duration) -> f64 {
    to_f64(tokens) / took.as_secs_f64()
}

fn median(rates: &[Rates], of: impl Fn(&Rates) -> f64) -> f64 {
    let mut values: Vec<f64> = rates.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn medians(rates: &[Rates]) -> Rates {
    Rates {
        decode_one: median(rates, |rate| rate.decode_one),
        decode_four: median(rates, |rate| rate.decode_four),
        prefill: median(rates, |rate| rate.prefill),
    }
}

fn report(args: &Args, bare: Rates, served: Option<Rates>) -> Result<()> {
    let rates = |rates: Rates| {
        json!({
            "decode_one": rates.decode_one,
            "decode_four": rates.decode_four,
            "prefill": rates.prefill,
            "four_over_one": rates.decode_four / rates.decode_one,
        })
    };
    let ratio = served.map(|served| Rates {
        decode_one: served.decode_one / bare.decode_one,
        decode_four: served.decode_four / bare.decode_four,
        prefill: served.prefill / bare.prefill,
    });
    let mut out = std::io::stdout();
    if args.json {
        let report = json!({
            "unit": "tokens/s",
            "bare": rates(bare),
            "served": served.map(rates),
            "served_over_bare": ratio.map(|ratio| json!({
                "decode_one": ratio.decode_one,
                "decode_four": ratio.decode_four,
                "prefill": ratio.prefill,
            })),
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    writeln!(
        out,
        "tokens/s        decode, 1   decode, {STREAMS}   {STREAMS}/1   prefill"
    )?;
    let mut line = |name: &str, rates: Rates, digits: usize| {
        let Rates {
            decode_one,
            decode_four,
            prefill,
        } = rates;
        let times = decode_four / decode_one;
        writeln!(
            out,
            "{name:<14}{decode_one:>11.digits$}{decode_four:>12.digits$}{times:>6.2}{prefill:>10.digits$}"
        )
    };
    line("llama.cpp", bare, 1)?;
    if let (Some(served), Some(ratio)) = (served, ratio) {
        line("served", served, 1)?;
        line("ratio", ratio, 3)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let library = library()?;
    let model = LlamaModel::load_from_file(library, &args.model, &LlamaModelParams::default())?;
    let mut bare = Bare::new(library, &model, &args)?;
    // One thread is enough, and leaves the cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // While the loop computes here nobody notices that the server closed an idle connection.
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()?;
    let mut served = args.url.clone().map(|url| Served {
        client: client.clone(),
        url: url.trim_end_matches('/').to_owned(),
        fresh: 0,
    });
    bare.decode(1, 8)?;
    let (mut bare_rates, mut served_rates) = (Vec::new(), Vec::new());
    for round in 0..args.rounds.max(1) {
        // Every other round the other way round: what drifts hits both.
        if round % 2 == 0 {
            bare_rates.push(bare.measure(&args)?);
        }
        if let Some(served) = &mut served {
            served_rates.push(runtime.block_on(served.measure(&args))?);
        }
        if round % 2 == 1 {
            bare_rates.push(bare.measure(&args)?);
        }
    }
    let served = served.is_some().then(|| medians(&served_rates));
    report(&args, medians(&bare_rates), served)
}
