//! Figures of a server that is not overloaded.

use std::process::Command;
use std::time::{Duration, Instant};

use enginewright::bench::client::{self, Api, Outcome, Sample, Target};
use enginewright::bench::prompt::PromptMaker;
use enginewright::bench::report::Percentiles;
use enginewright::bench::{self, Config};
use serde_json::Value;

use crate::Row;
use crate::parts::{Failure, Parts, free_port, resident_mib};

/// A target that speaks `OpenAI`'s API on a loopback port.
pub fn openai(port: u16) -> Target {
    Target {
        url: format!("http://127.0.0.1:{port}"),
        api: Api::OpenAi,
        model: "smollm2".to_owned(),
        api_key: None,
    }
}

/// A request that must succeed.
pub async fn sample(target: &Target, text: &str, max_tokens: u32) -> Result<Sample, Failure> {
    match client::request(&client::http()?, target, text, max_tokens).await {
        Outcome::Done(sample) => Ok(sample),
        Outcome::Refused { status } => Err(format!("{}: HTTP {status}", target.url).into()),
        Outcome::Failed { why } => Err(format!("{}: {why}", target.url).into()),
    }
}

/// Words that are about `tokens` tokens with this model.
pub async fn prompts(target: &Target, shared_prefix: bool) -> Result<PromptMaker, Failure> {
    let mut maker = PromptMaker::uncalibrated(shared_prefix);
    for words in [50, 150] {
        let text = maker.words(words, words as u64);
        maker.learn(words, sample(target, &text, 2).await?.prompt_tokens);
    }
    Ok(maker)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Decode and prefill of `serve` over HTTP against the same work without a server: measured in turns
/// by `examples/bare_loop`, in the same build.
pub async fn engine(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let port = free_port()?;
    let _server = parts.serve(port, &[]).await?;
    let program = std::env::current_exe()?.with_file_name("bare_loop");
    let output = tokio::process::Command::new(&program)
        .arg("--model")
        .arg(&parts.model)
        .args(["--url", &format!("http://127.0.0.1:{port}"), "--json"])
        .output()
        .await
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        format!(
            "bare_loop: {error}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.ok_or_else(|| Failure::from(format!("bare_loop lacks {pointer}: {report}")))
    };
    let against = |name: &str| {
        let (ratio, served, bare) = (
            number(&format!("/served_over_bare/{name}"))?,
            number(&format!("/served/{name}"))?,
            number(&format!("/bare/{name}"))?,
        );
        Ok::<String, Failure>(format!("{ratio:.3} ({served:.1} / {bare:.1} tokens/s)"))
    };
    Ok(vec![
        Row::new(
            "decode over HTTP / bare llama.cpp loop, one stream",
            "≥ 0.95",
            against("decode_one")?,
        ),
        Row::new(
            "decode over HTTP / bare llama.cpp loop, four streams",
            "(shown)",
            against("decode_four")?,
        ),
        Row::new(
            "four streams / one stream, all tokens",
            "≥ 1.7",
            format!("{:.2}", number("/served/four_over_one")?),
        ),
        Row::new(
            "prefill of 512 tokens over HTTP / bare loop",
            "≥ 0.95",
            against("prefill")?,
        ),
    ])
}

/// First token of a prompt whose prefix is in the cache, against the same length unseen.
pub async fn prefix(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let port = free_port()?;
    let _server = parts.serve(port, &[]).await?;
    let target = openai(port);
    let (unique, shared) = (
        prompts(&target, false).await?,
        prompts(&target, true).await?,
    );
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    sample(&target, &shared.tokens(1000, 1), 2).await?;
    for serial in 10..15 {
        let first = sample(&target, &unique.tokens(1000, serial), 2)
            .await?
            .first_token;
        cold.push(first.as_secs_f64());
        sample(&target, &shared.tokens(1000, serial), 2).await?;
        let again = sample(&target, &shared.tokens(1000, serial + 100), 2)
            .await?
            .first_token;
        warm.push(again.as_secs_f64());
    }
    let (cold, warm) = (median(cold), median(warm));
    Ok(vec![Row::new(
        "TTFT of 1,000 tokens, prefix cached / cold",
        "≤ 10 %",
        format!(
            "{:.1} % ({:.0} ms / {:.0} ms)",
            100.0 * warm / cold,
            warm * 1e3,
            cold * 1e3
        ),
    )])
}

/// The largest gap of a running stream while 1,000 tokens are prefilled, with and without chunks.
pub async fn stall(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (what, goal, flags) in [
        (
            "largest gap / median step while 1,000 tokens are prefilled",
            "≤ 10",
            &[][..],
        ),
        (
            "the same without chunks",
            "(shown)",
            &["--prefill", "whole"][..],
        ),
    ] {
        let port = free_port()?;
        let _server = parts.serve(port, flags).await?;
        let target = openai(port);
        let maker = prompts(&target, false).await?;
        let alone = sample(&target, "Tell a long story about a river.", 64).await?;
        let step = median(alone.gaps.iter().map(Duration::as_secs_f64).collect());
        let long = maker.tokens(1000, 77);
        let (running, _) = futures::future::try_join(
            sample(&target, "Tell a very long story about the sea.", 256),
            async {
                // The stream must run before the long prompt comes; its length leaves seconds.
                tokio::time::sleep(Duration::from_millis(600)).await;
                sample(&target, &long, 1).await
            },
        )
        .await?;
        let largest = running
            .gaps
            .iter()
            .map(Duration::as_secs_f64)
            .fold(0.0, f64::max);
        let figure = format!(
            "{:.1} ({:.0} ms / {:.1} ms)",
            largest / step,
            largest * 1e3,
            step * 1e3
        );
        rows.push(Row::new(what, goal, figure));
    }
    Ok(rows)
}

/// What the gateway adds to the first token, and what it occupies.
pub async fn gateway(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let (engine, front) = (free_port()?, free_port()?);
    let _server = parts.serve(engine, &[]).await?;
    let table = serde_json::json!({
        "version": enginewright::gateway::routes::ROUTES_VERSION,
        "generation": 1,
        "served_name": "smollm2",
        "primary": {
            "kind": "Enginewright",
            "url": format!("http://127.0.0.1:{engine}"),
            "backend": "Cpu",
            "model": "smollm2",
        },
    });
    let gateway = parts.gateway("gateway", front, &table).await?;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    let http = client::http()?;
    for index in 0..400 {
        // One cached token of prompt work: what is left is the way there and back.
        for (port, into) in [(engine, &mut direct), (front, &mut through)] {
            let text = "Say yes.";
            match client::request(&http, &openai(port), text, 1).await {
                Outcome::Done(sample) if index >= 20 => into.push(sample.first_token),
                Outcome::Done(_) => {}
                other => return Err(format!("port {port}: {other:?}").into()),
            }
        }
    }
    let (a, b) = (Percentiles::of(direct), Percentiles::of(through));
    let (a, b) = (
        a.ok_or("no direct sample")?,
        b.ok_or("no sample through the gateway")?,
    );
    let (resident, own) = resident_mib(gateway.id())?;
    Ok(vec![
        Row::new(
            "gateway over direct, TTFT p50",
            "≤ +0.5 ms",
            format!("{:+.2} ms", b.p50 - a.p50),
        ),
        Row::new(
            "gateway over direct, TTFT p99",
            "≤ +2 ms",
            format!("{:+.2} ms", b.p99 - a.p99),
        ),
        Row::new(
            "gateway, resident memory after 400 requests",
            "≤ 15 MiB",
            format!("{resident:.1} MiB ({own:.1} MiB without the pages of its program file)"),
        ),
    ])
}

/// The same model in a real Ollama, measured in turns.
pub async fn ollama(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let (ours, theirs) = (free_port()?, free_port()?);
    let _server = parts.serve(ours, &[]).await?;
    let address = format!("127.0.0.1:{theirs}");
    let models = parts.folder.path().join("ollama");
    let mut command = Command::new(&parts.ollama);
    command
        .arg("serve")
        .env("OLLAMA_HOST", &address)
        .env("OLLAMA_MODELS", &models);
    let _ollama = parts.start("ollama", &mut command)?;
    parts.ready("ollama", theirs, "/api/version").await?;
    let modelfile = parts.folder.path().join("Modelfile");
    std::fs::write(&modelfile, format!("FROM {}\n", parts.model.display()))?;
    let created = Command::new(&parts.ollama)
        .args(["create", "smollm2", "-f"])
        .arg(&modelfile)
        .env("OLLAMA_HOST", &address)
        .output()?;
    if !created.status.success() {
        return Err(String::from_utf8_lossy(&created.stderr).into_owned().into());
    }
    let begun = Instant::now();
    let config = Config {
        targets: vec![openai(theirs), openai(ours)],
        concurrency: vec![1, 4],
        prompt_tokens: vec![128, 512],
        max_tokens: 64,
        requests: 8,
        warmup: 3,
        shared_prefix: false,
    };
    let report = bench::run(&config, &|_| {}).await?;
    crate::say(&format!(
        "\nA: Ollama 0.12.6, a Go build without AVX kernels (a release build is faster); B: serve\n{}",
        report.table()
    ));
    crate::say(&format!("({:.0} s)", begun.elapsed().as_secs_f64()));
    Ok(Vec::new())
}
