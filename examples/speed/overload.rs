//! Figures of a server with more clients than it can serve.

use std::time::{Duration, Instant};

use enginewright::bench::client::{self, Outcome};
use enginewright::bench::report::Percentiles;
use futures::future::join_all;
use tokio::net::TcpStream;

use crate::Row;
use crate::parts::{Failure, Parts, free_port};
use crate::steady::{openai, sample};

const SLOTS: usize = 4;
const QUEUE: usize = 4;

/// Ten times more requests than slots and queue places: who is refused, how fast, and what the
/// others get.
pub async fn tenfold(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let port = free_port()?;
    let flags = ["--slots", "4", "--queue", "4"];
    let _server = parts.serve(port, &flags).await?;
    let target = openai(port);
    let full = rate(&target, SLOTS, 4).await?;
    let http = client::http()?;
    let begun = Instant::now();
    let requests = (0..10 * (SLOTS + QUEUE)).map(|index| {
        let (http, target) = (&http, &target);
        async move {
            let sent = Instant::now();
            let text = format!("Tell a long story about the number {index}.");
            (
                client::request(http, target, &text, 64).await,
                sent.elapsed(),
            )
        }
    });
    let (mut refused, mut tokens, mut odd) = (Vec::new(), 0_u32, 0_usize);
    for (outcome, took) in join_all(requests).await {
        match outcome {
            Outcome::Refused { status: 429 } => refused.push(took),
            Outcome::Done(sample) => tokens += sample.completion_tokens,
            _ => odd += 1,
        }
    }
    let loaded = f64::from(tokens) / begun.elapsed().as_secs_f64();
    let count = refused.len();
    let p99 = Percentiles::of(refused).ok_or("nothing was refused")?.p99;
    Ok(vec![
        Row::new(
            "10x overload: refusals (429), p99",
            "≤ 10 ms",
            format!("{p99:.1} ms ({count} refused, {odd} failed otherwise)"),
        ),
        Row::new(
            "10x overload: throughput of the accepted / without overload",
            "≥ 0.9",
            format!("{:.2}", loaded / full),
        ),
    ])
}

/// Tokens per second of `streams` clients that each send `each` requests.
async fn rate(target: &client::Target, streams: usize, each: usize) -> Result<f64, Failure> {
    let begun = Instant::now();
    let clients = (0..streams).map(|client| async move {
        let mut tokens = 0_u32;
        for index in 0..each {
            let text = format!("Tell a long story about the letter {client} {index}.");
            tokens += sample(target, &text, 64).await?.completion_tokens;
        }
        Ok::<u32, Failure>(tokens)
    });
    let tokens: u32 = futures::future::try_join_all(clients).await?.iter().sum();
    Ok(f64::from(tokens) / begun.elapsed().as_secs_f64())
}

/// A normal client beside 1,000 connections that never say a word.
pub async fn silent(parts: &Parts) -> Result<Vec<Row>, Failure> {
    let port = free_port()?;
    let _server = parts.serve(port, &[]).await?;
    let target = openai(port);
    sample(&target, "Say yes.", 8).await?;
    let alone = first_tokens(&target).await?;
    let mut held = Vec::new();
    for _ in 0..1000 {
        let connect = TcpStream::connect(("127.0.0.1", port));
        held.push(tokio::time::timeout(Duration::from_secs(5), connect).await??);
    }
    let beside = first_tokens(&target).await?;
    drop(held);
    Ok(vec![Row::new(
        "TTFT p50 beside 1,000 silent connections / alone",
        "answered",
        format!("{:.2} ({:.1} ms / {:.1} ms)", beside / alone, beside, alone),
    )])
}

async fn first_tokens(target: &client::Target) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for _ in 0..20 {
        times.push(sample(target, "Say yes.", 8).await?.first_token);
    }
    Ok(Percentiles::of(times).ok_or("no sample")?.p50)
}
