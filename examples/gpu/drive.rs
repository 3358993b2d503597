//! Sequences through a back end: prompts in chunks, then single tokens.

use std::io::Write;
use std::path::Path;

use enginewright::backend::{Backend, LogitsWanted, Run, SlotId, TokenId};

use crate::{Failure, books, read_json, say};

/// Runs `tokens` of `slot` from `start` on, in chunks of at most `chunk`; the row of the last.
pub fn prefill(
    backend: &mut dyn Backend,
    slot: u32,
    start: u32,
    tokens: &[TokenId],
    chunk: usize,
) -> Result<Vec<f32>, Failure> {
    let mut last = Vec::new();
    let mut at = start;
    let mut rest = tokens;
    while !rest.is_empty() {
        // No chunk is a single token unless all is: see the scheduler's rule.
        let take = match rest.len() {
            all if all <= chunk => all,
            all if all == chunk + 1 => chunk - 1,
            _ => chunk,
        };
        let (now, later) = rest.split_at(take);
        let logits = if later.is_empty() {
            LogitsWanted::Last
        } else {
            LogitsWanted::None
        };
        let run = run(slot, at, now, logits);
        backend.forward(&[run], &mut |_, _, row| last = row.to_vec())?;
        at += u32::try_from(take)?;
        rest = later;
    }
    Ok(last)
}

/// One token for each of `next`, slot, position and token, in one step; rows in this order.
pub fn decode(
    backend: &mut dyn Backend,
    next: &[(u32, u32, TokenId)],
) -> Result<Vec<Vec<f32>>, Failure> {
    let runs: Vec<Run> = next
        .iter()
        .map(|(slot, at, token)| run(*slot, *at, &[*token], LogitsWanted::Last))
        .collect();
    let mut rows = vec![Vec::new(); runs.len()];
    backend.forward(&runs, &mut |i, _, row| rows[i] = row.to_vec())?;
    Ok(rows)
}

pub fn run(slot: u32, start: u32, tokens: &[TokenId], logits: LogitsWanted) -> Run {
    Run {
        slot: SlotId(slot),
        start,
        tokens: tokens.to_vec(),
        logits,
    }
}

/// Tokens of a chunk that the back end takes at most.
pub fn longest_chunk(backend: &dyn Backend) -> usize {
    backend.capabilities().max_batch_tokens as usize
}

fn tokens(value: &serde_json::Value) -> Result<Vec<TokenId>, Failure> {
    Ok(serde_json::from_value(value.clone())?)
}

/// See [`crate::Command::Logits`].
pub fn logits(backend: &mut dyn Backend, from: &Path, to: &Path) -> Result<(), Failure> {
    let input = read_json(from)?;
    let prompt = usize::try_from(input["prompt"].as_u64().ok_or("`prompt` is missing")?)?;
    let sequences = input["sequences"]
        .as_array()
        .ok_or("`sequences` is missing")?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(to)?);
    let chunk = longest_chunk(backend);
    let mut rows = 0;
    let mut write = |row: &[f32]| -> Result<(), Failure> {
        rows += 1;
        Ok(out.write_all(bytemuck::cast_slice(row))?)
    };
    for sequence in sequences {
        let sequence = tokens(sequence)?;
        let (first, later) = sequence.split_at(prompt);
        backend.truncate(SlotId(0), 0)?;
        write(&prefill(backend, 0, 0, first, chunk)?)?;
        for (at, token) in (u32::try_from(prompt)?..).zip(later) {
            write(&decode(backend, &[(0, at, *token)])?[0])?;
        }
    }
    out.flush()?;
    let vocabulary = backend.capabilities().vocabulary;
    say(&serde_json::json!({"step": "logits", "rows": rows, "vocabulary": vocabulary}));
    Ok(())
}

/// See [`crate::Command::Greedy`].
pub fn greedy(backend: &mut dyn Backend, from: &Path, count: usize) -> Result<(), Failure> {
    let input = read_json(from)?;
    let prompts = input.as_array().ok_or("a list is expected")?;
    for (i, prompt) in prompts.iter().enumerate() {
        let (tokens, margins) = continuation(backend, &tokens(&prompt["prompt"])?, count)?;
        say(&serde_json::json!({
            "step": "greedy", "prompt": i, "tokens": tokens, "margins": margins,
        }));
    }
    Ok(())
}

/// The most likely continuation, and how far each token was above the next best.
pub fn continuation(
    backend: &mut dyn Backend,
    prompt: &[TokenId],
    count: usize,
) -> Result<(Vec<TokenId>, Vec<f32>), Failure> {
    backend.truncate(SlotId(0), 0)?;
    let chunk = longest_chunk(backend);
    let mut row = prefill(backend, 0, 0, prompt, chunk)?;
    let mut generated = Vec::with_capacity(count);
    let mut margins = Vec::with_capacity(count);
    for at in (u32::try_from(prompt.len())?..).take(count) {
        let token = books::best(&row);
        generated.push(token);
        margins.push(margin(&row, token));
        row = decode(backend, &[(0, at, token)])?.remove(0);
    }
    Ok((generated, margins))
}

/// How far the best logit is above the next: what rounding must not exceed.
fn margin(row: &[f32], best: TokenId) -> f32 {
    let others = row.iter().enumerate().filter(|(i, _)| *i != best as usize);
    let next = others.map(|(_, value)| *value).fold(f32::MIN, f32::max);
    row.get(best as usize).copied().unwrap_or(f32::NAN) - next
}
