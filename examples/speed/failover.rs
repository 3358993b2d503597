//! Figures of a gateway whose engine fails, and of a `run` that has nothing to do.

use std::time::{Duration, Instant};

use enginewright::bench::client::{self, Outcome};
use enginewright::bench::report::Percentiles;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::Row;
use crate::parts::{Failure, Parts, cpu_seconds, free_port};
use crate::steady::openai;

/// Requests that each lose their engine; the first ones warm the connections up.
const REQUESTS: usize = 220;
const WARM_UP: usize = 20;

/// What a failure before the first token costs a client, against asking the fallback directly.
pub async fn added_time(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let fallback = free_port()?;
    let _server = parts.serve(fallback, &[]).await?;
    let dying = TcpListener::bind("127.0.0.1:0").await?;
    let dying_port = dying.local_addr()?.port();
    // An engine that dies with the request in its hands: it reads, and its connection is gone.
    let engine = tokio::spawn(async move {
        while let Ok((mut connection, _)) = dying.accept().await {
            let mut request = [0; 512];
            let _read = connection.read(&mut request).await;
        }
    });
    let mut rows = Vec::new();
    for (what, engine_port) in [
        (
            "engine not listening: added to the fallback's TTFT, p50 / p99",
            free_port()?,
        ),
        (
            "engine dies with the request: added to the fallback's TTFT, p50 / p99",
            dying_port,
        ),
    ] {
        let figure = against_fallback(parts, engine_port, fallback).await?;
        rows.push(Row::new(what, "≤ 50 ms", figure));
    }
    engine.abort();
    Ok(rows)
}

async fn against_fallback(parts: &Parts, engine: u16, fallback: u16) -> Result<String, Failure> {
    let front = free_port()?;
    let upstream = |port: u16, backend: &str| {
        json!({ "kind": "Enginewright", "url": format!("http://127.0.0.1:{port}"),
            "backend": backend, "model": "smollm2" })
    };
    let table = json!({
        "version": enginewright::gateway::routes::ROUTES_VERSION,
        "generation": 1,
        "served_name": "smollm2",
        "primary": upstream(engine, "TensorRT"),
        "fallback": upstream(fallback, "Cpu"),
        // The breaker would spare all but the first few requests the failure that is measured.
        "breaker": { "failures": 1_000_000 },
    });
    let name = format!("gateway-{front}");
    let gateway = parts.gateway(&name, front, &table).await?;
    let http = client::http()?;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for index in 0..REQUESTS {
        for (port, into) in [(fallback, &mut direct), (front, &mut through)] {
            match client::request(&http, &openai(port), "Say yes.", 1).await {
                Outcome::Done(sample) if index >= WARM_UP => into.push(sample.first_token),
                Outcome::Done(_) => {}
                other => return Err(format!("port {port}: {other:?}").into()),
            }
        }
    }
    let metrics = http
        .get(format!("http://127.0.0.1:{front}/metrics"))
        .send()
        .await?;
    let failures = counted(&metrics.text().await?, "upstream_failures_total");
    drop(gateway);
    if failures < REQUESTS as u64 {
        return Err(format!("only {failures} of {REQUESTS} requests lost their engine").into());
    }
    let direct = Percentiles::of(direct).ok_or("no direct sample")?;
    let through = Percentiles::of(through).ok_or("no sample through the gateway")?;
    Ok(format!(
        "{:+.2} ms / {:+.2} ms ({failures} failovers)",
        through.p50 - direct.p50,
        through.p99 - direct.p99
    ))
}

/// The sum of a counter over its labels.
fn counted(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let of_it = lines.filter(|line| line.contains(name));
    of_it
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Processor time of `run` itself while its engine serves and nobody asks.
pub async fn idle(parts: &Parts) -> Result<Vec<Row>, Failure> {
    const WATCHED: Duration = Duration::from_mins(1);
    let port = free_port()?;
    let file = parts.folder.path().join("idle.yaml");
    let yaml = format!(
        "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\nmetadata: {{ name: idle }}\n\
         spec:\n  model: {{ source: \"file://{}\", servedName: smollm2 }}\n",
        parts.model.display()
    );
    std::fs::write(&file, yaml)?;
    let state = parts.folder.path().join("idle-state");
    let mut command = std::process::Command::new(&parts.program);
    command.arg("run").arg("--file").arg(&file);
    command.arg("--state-dir").arg(&state);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--ollama").arg(&parts.ollama);
    let run = parts.start("idle-run", &mut command)?;
    promoted(&state.join("status.json")).await?;
    // What promotion leaves to do (soak, parking the fallback) is over by then.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (before, begun) = (cpu_seconds(run.id())?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let used = cpu_seconds(run.id())? - before;
    let share = 100.0 * used / begun.elapsed().as_secs_f64();
    run.terminate(Duration::from_mins(1)).await?;
    Ok(vec![Row::new(
        "idle `run`, its own processor time over 60 s",
        "≤ 0.5 %",
        format!("{share:.2} %"),
    )])
}

async fn promoted(report: &std::path::Path) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_mins(3) {
        let read: Option<Value> = std::fs::read(report)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let backend = read
            .as_ref()
            .and_then(|report| report.pointer("/status/activeBackend"));
        if backend.and_then(Value::as_str) == Some("Cpu") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("run did not promote its engine within three minutes".into())
}
