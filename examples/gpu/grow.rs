//! What a step leaves behind in the process's memory, kind by kind: which one grows says what to mend.

use std::time::Instant;

use enginewright::backend::tensorrt::TensorRt;
use enginewright::backend::{Backend, LogitsWanted, SlotId};

use crate::drive::{longest_chunk, run};
use crate::{Failure, books, say};

/// Steps before memory is looked at: what is met for the first time is met.
const WARM: u32 = 40;

/// One step: its number, to the slot and the number of tokens.
type Kind = (&'static str, fn(u32) -> (u32, usize));

/// Kinds of steps, each from an empty slot.
const KINDS: [Kind; 6] = [
    ("a chunk of 64, always the same slot", |_| (0, 64)),
    ("a chunk of 64, two slots in turn", |step| (step % 2, 64)),
    ("chunks of 64 and 128 in turn", |step| {
        (0, if step % 2 == 0 { 64 } else { 128 })
    }),
    ("chunks of 16 to 512 in turn", |step| (0, 16 << (step % 6))),
    ("one token, always the same slot", |_| (0, 1)),
    ("one token, two slots in turn", |step| (step % 2, 1)),
];

/// All kinds, one line each.
pub fn all(backend: &mut TensorRt, steps: u32) -> Result<(), Failure> {
    for (what, kind) in KINDS {
        for step in 0..WARM {
            once(backend, kind(step))?;
        }
        let (before, maps) = (books::resident(), books::maps());
        let begun = Instant::now();
        for step in 0..steps {
            once(backend, kind(step))?;
        }
        let took = begun.elapsed().as_secs_f64() * 1e3 / f64::from(steps);
        let (anonymous, files, shared) = books::resident_parts();
        let mut grown: Vec<(i64, String)> = books::maps()
            .into_iter()
            .map(|(name, (bytes, count))| {
                let (old, before) = maps.get(&name).copied().unwrap_or_default();
                let more =
                    (i64::try_from(bytes).unwrap_or(0) - i64::try_from(old).unwrap_or(0)) >> 10;
                (more, format!("{name} ({before} to {count})"))
            })
            .collect();
        grown.sort_by(|one, other| other.cmp(one));
        grown.truncate(3);
        let growth = books::resident().saturating_sub(before) >> 10;
        say(&serde_json::json!({
            "step": "grow", "what": what, "steps": steps, "growthKib": growth,
            "kibPerStep": f64::from(u32::try_from(growth)?) / f64::from(steps), "msPerStep": took,
            "anonymousMib": anonymous >> 20, "filesMib": files >> 20, "sharedMib": shared >> 20,
            "maps": grown, "recorded": backend.inside()?.recorded.len(),
        }));
    }
    Ok(())
}

fn once(backend: &mut TensorRt, (slot, tokens): (u32, usize)) -> Result<(), Failure> {
    let tokens = vec![1; tokens.min(longest_chunk(backend))];
    backend.truncate(SlotId(slot), 0)?;
    let one = run(slot, 0, &tokens, LogitsWanted::Last);
    Ok(backend.forward(&[one], &mut |_, _, _| {})?)
}
