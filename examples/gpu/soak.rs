//! Requests without end: slots filled, answered, reused, copied and forgotten at random, as the
//! scheduler would. Memory of the device and of the process must stay where they are.

use std::time::{Duration, Instant};

use enginewright::backend::tensorrt::TensorRt;
use enginewright::backend::{Backend, LogitsWanted, Run, SlotId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::drive::{longest_chunk, run as one_run};
use crate::{Failure, books, say};

/// Requests after which everything that is met for the first time was met.
const SETTLED: u32 = 500;

/// One slot's request.
#[derive(Clone, Copy, Default)]
struct Request {
    length: u32,
    prompt: u32,
    answer: u32,
}

/// Runs up to `requests` requests, at most `seconds` long.
fn run_requests(backend: &mut TensorRt, requests: u32, seconds: u64) -> Result<Soaked, Failure> {
    let capabilities = backend.capabilities();
    let chunk = u32::try_from(longest_chunk(backend))?;
    let mut source = SmallRng::seed_from_u64(11);
    let mut slots = vec![Request::default(); capabilities.slots as usize];
    let mut soaked = Soaked::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    while soaked.requests < requests && Instant::now() < end {
        let mut runs: Vec<Run> = Vec::new();
        let mut room = chunk;
        for (slot, request) in (0..).zip(&mut slots) {
            if request.prompt == 0 && request.answer == 0 {
                begin(backend, slot, request, &mut source)?;
                soaked.requests += 1;
            }
            let take = if request.prompt > 0 {
                request.prompt.min(room)
            } else {
                1.min(room)
            };
            if take == 0 {
                continue;
            }
            let vocabulary = capabilities.vocabulary.min(40_000);
            let tokens: Vec<u32> = (0..take)
                .map(|_| source.random_range(10..vocabulary))
                .collect();
            let last = take == request.prompt || request.prompt == 0;
            let logits = if last {
                LogitsWanted::Last
            } else {
                LogitsWanted::None
            };
            runs.push(one_run(slot, request.length, &tokens, logits));
            room -= take;
            request.length += take;
            if request.prompt > 0 {
                request.prompt -= take;
            } else {
                request.answer -= 1;
            }
        }
        let mut broken = false;
        backend.forward(&runs, &mut |_, _, row| {
            broken |= row.iter().any(|x| !x.is_finite());
        })?;
        if broken {
            return Err("a logit is not a number".into());
        }
        soaked.tokens += runs.iter().map(|run| run.tokens.len() as u64).sum::<u64>();
        soaked.steps += 1;
        if soaked.requests >= SETTLED && soaked.settled.is_none() {
            soaked.settled = Some((used(backend)?, books::resident()));
        }
    }
    Ok(soaked)
}

/// What a soak was.
#[derive(Default)]
struct Soaked {
    requests: u32,
    steps: u64,
    tokens: u64,
    settled: Option<(u64, u64)>,
}

fn used(backend: &TensorRt) -> Result<u64, Failure> {
    let inside = backend.inside()?;
    Ok(inside.total - inside.free)
}

/// A new request: a slot forgotten, cut, or begun with a prefix of another.
fn begin(
    backend: &mut TensorRt,
    slot: u32,
    request: &mut Request,
    source: &mut SmallRng,
) -> Result<(), Failure> {
    let kept = match source.random_range(0..3) {
        0 => 0,
        _ => request.length.min(source.random_range(0..64)),
    };
    backend.truncate(SlotId(slot), kept)?;
    *request = Request {
        length: kept,
        prompt: source.random_range(2..96),
        answer: source.random_range(1..16),
    };
    Ok(())
}

/// See [`crate::Command::Soak`].
pub fn run(backend: &mut TensorRt, requests: u32, seconds: u64) -> Result<(), Failure> {
    let begun = Instant::now();
    let soaked = run_requests(backend, requests, seconds)?;
    let (device, host) = soaked.settled.ok_or("too few requests to settle")?;
    let (device_now, host_now) = (used(backend)?, books::resident());
    let growth = |now: u64, before: u64| (now.saturating_sub(before)) >> 10;
    // A page of the allocator's own; a request that leaked would show thousandfold.
    let met = growth(device_now, device) <= 2_048 && growth(host_now, host) <= 8_192;
    say(&serde_json::json!({
        "step": "soak", "requests": soaked.requests, "steps": soaked.steps,
        "tokens": soaked.tokens, "seconds": begun.elapsed().as_secs_f64(),
        "deviceGrowthKib": growth(device_now, device), "hostGrowthKib": growth(host_now, host),
        "afterRequests": SETTLED, "met": met,
    }));
    if met {
        Ok(())
    } else {
        Err("memory grew".into())
    }
}
