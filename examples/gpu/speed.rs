//! Speed of the back end alone: a step through it against the bare replay of its recorded graph,
//! prompts, and what the processor spends on a token.

use std::time::Instant;

use enginewright::backend::tensorrt::TensorRt;
use enginewright::backend::tensorrt::plan::Shape;
use enginewright::backend::{Backend, SlotId};
use enginewright::text::sampling::{Sampler, SamplingParams};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::drive::{decode, longest_chunk, prefill};
use crate::{Failure, books, say};

/// Steps that are timed.
const STEPS: usize = 64;
/// Prompt lengths.
const PROMPTS: [usize; 3] = [128, 1_024, 4_096];

/// Everything, one line each.
pub fn all(backend: &mut TensorRt) -> Result<(), Failure> {
    for prompt in PROMPTS {
        prompts(backend, prompt)?;
        for slots in [1, 4, 8] {
            answers(backend, prompt, slots)?;
        }
    }
    Ok(())
}

fn random(count: usize, vocabulary: u32) -> Vec<u32> {
    let mut source = SmallRng::seed_from_u64(count as u64);
    (0..count)
        .map(|_| source.random_range(10..vocabulary.min(40_000)))
        .collect()
}

/// Fits a length into the context, with room for the answer.
fn fitted(backend: &dyn Backend, prompt: usize) -> usize {
    prompt.min(backend.capabilities().context_tokens as usize - STEPS - 1)
}

fn prompts(backend: &mut TensorRt, prompt: usize) -> Result<(), Failure> {
    let length = fitted(backend, prompt);
    let tokens = random(length, backend.capabilities().vocabulary);
    let chunk = longest_chunk(backend);
    let mut times = Vec::new();
    for _ in 0..6 {
        backend.truncate(SlotId(0), 0)?;
        let begun = Instant::now();
        prefill(backend, 0, 0, &tokens, chunk)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let first = times.remove(0);
    let middle = books::median(times);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
    let rate = length as f64 / middle * 1e3;
    say(&serde_json::json!({
        "step": "prompt", "tokens": length, "chunk": chunk, "firstMs": first, "medianMs": middle,
        "tokensPerSecond": rate,
    }));
    Ok(())
}

fn answers(backend: &mut TensorRt, prompt: usize, slots: u32) -> Result<(), Failure> {
    if slots > backend.capabilities().slots {
        return Ok(());
    }
    let vocabulary = backend.capabilities().vocabulary;
    let length = fitted(backend, prompt);
    let (tokens, chunk) = (random(length, vocabulary), longest_chunk(backend));
    for slot in 0..slots {
        backend.truncate(SlotId(slot), 0)?;
        prefill(backend, slot, 0, &tokens, chunk)?;
    }
    let samplers: Result<Vec<Sampler>, _> = (0..slots)
        .map(|_| Sampler::new(SamplingParams::default(), &tokens))
        .collect();
    let mut samplers = samplers?;
    let (mut steps, mut sampling) = (Vec::new(), Vec::new());
    let processor = books::processor_time();
    let begun = Instant::now();
    for (at, token) in (u32::try_from(length)?..).zip(random(STEPS, vocabulary)) {
        let next: Vec<_> = (0..slots).map(|slot| (slot, at, token)).collect();
        let start = Instant::now();
        let rows = decode(backend, &next)?;
        steps.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        for (sampler, row) in samplers.iter_mut().zip(&rows) {
            sampler.sample(row, None)?;
        }
        sampling.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let wall = begun.elapsed().as_secs_f64();
    let processor = books::processor_time()
        .saturating_sub(processor)
        .as_secs_f64();
    let shape = shape(backend, slots, length)?;
    let replay = match shape {
        Some(shape) => backend.replay(shape, 100)?,
        None => Vec::new(),
    };
    let replay = books::median(replay.into_iter().map(f64::from).collect());
    let inside = backend.inside()?;
    let used = (inside.total - inside.free) >> 20;
    let (step, sampling) = (books::median(steps), books::median(sampling));
    let steps = f64::from(u32::try_from(STEPS)?);
    say(&serde_json::json!({
        "step": "answer", "context": length, "slots": slots, "replayMs": replay, "stepMs": step,
        "ratio": step / replay, "samplingMs": sampling,
        "tokensPerSecond": f64::from(slots) * steps / wall,
        "processorMsPerToken": processor * 1e3 / steps / f64::from(slots),
        "gpuUsedMib": used,
    }));
    Ok(())
}

/// The recorded shape of those steps: the smallest that holds them.
fn shape(backend: &TensorRt, slots: u32, length: usize) -> Result<Option<Shape>, Failure> {
    let recorded = backend.inside()?.recorded.into_iter();
    let fits = recorded.map(|(shape, _)| shape).filter(|shape| {
        shape.is_answer()
            && shape.first == 0
            && shape.rows >= slots
            && shape.bucket as usize >= length + STEPS
    });
    Ok(fits.min_by_key(|shape| (shape.rows, shape.bucket)))
}
