//! Figures of a server with more clients than it can serve.

use std::time::{Duration, Instant};

use enginewright::bench::client::{self, Outcome};
use enginewright::bench::report::Percentiles;
use futures::future::join_all;
use tokio::net::TcpStream;

use crate::Row;
use crate::parts::{Failure, Parts, free_port};
use crate::steady::{openai, sample};

/// What the server below is given; ten times both are the clients.
const SLOTS: usize = 4;

/// Ten times more clients than slots and queue places, for half a minute: who is refused, how fast,
/// and what the others get. A refused client comes back, as one does that reads `Retry-After` badly.
pub async fn tenfold(parts: &Parts) -> Result<Vec<Row>, Failure> {
    const CLIENTS: u32 = 80;
    const LASTS: Duration = Duration::from_secs(30);
    const BACK_AFTER: Duration = Duration::from_millis(250);
    let port = free_port()?;
    let flags = ["--slots", "4", "--queue", "4"];
    let _server = parts.serve(port, &flags).await?;
    let target = openai(port);
    let full = rate(&target, SLOTS, 4).await?;
    let http = client::http()?;
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|index| {
        let (http, target) = (&http, &target);
        async move {
            // Not all in one instant: that would measure how fast this program opens connections.
            tokio::time::sleep(BACK_AFTER * index / CLIENTS).await;
            let (mut refused, mut tokens, mut odd) = (Vec::new(), 0_u32, 0_usize);
            while begun.elapsed() < LASTS {
                let sent = Instant::now();
                let text = format!("Tell a long story about the number {index}.");
                match client::request(http, target, &text, 64).await {
                    Outcome::Refused { status: 429 } => {
                        refused.push(sent.elapsed());
                        tokio::time::sleep(BACK_AFTER).await;
                    }
                    Outcome::Done(sample) => tokens += sample.completion_tokens,
                    _ => odd += 1,
                }
            }
            (refused, tokens, odd)
        }
    });
    let (mut refused, mut tokens, mut odd) = (Vec::new(), 0_u32, 0_usize);
    for of_one in join_all(clients).await {
        refused.extend(of_one.0);
        tokens += of_one.1;
        odd += of_one.2;
    }
    let loaded = f64::from(tokens) / begun.elapsed().as_secs_f64();
    let count = refused.len();
    let times = Percentiles::of(refused).ok_or("nothing was refused")?;
    Ok(vec![
        Row::new(
            "10x overload: refusals (429), p50 / p99",
            "p99 ≤ 10 ms",
            format!(
                "{:.1} ms / {:.1} ms ({count} refused, {odd} failed otherwise)",
                times.p50, times.p99
            ),
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
