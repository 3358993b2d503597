//! Turns the runs of one call into passes over the network: which sequences share one, with how
//! many tokens, over how much context, and every integer the network is given.
//!
//! Single tokens go together, in one pass over a window of neighbouring slots. A longer chunk has a
//! pass of its own where the engine allows it, so that nothing is padded to a neighbour's length
//! and what a run gives does not depend on what runs beside it.

use super::geometry::{Form, Geometry};
use crate::backend::{LogitsWanted, Run, TokenId};

/// A row of logits that is handed out after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The run, by its place in the call.
    pub run: usize,
    /// The token, by its place in the run.
    pub token: usize,
    /// The row of the pass.
    pub row: u32,
}

/// What identifies the work a pass gives to the device, whatever the numbers in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// The engine's profile.
    pub profile: u32,
    /// Tokens of each sequence, padding included.
    pub tokens: u32,
    /// Context that attention is computed over.
    pub bucket: u32,
    /// The first slot.
    pub first: u32,
    /// Slots.
    pub rows: u32,
}

impl Shape {
    /// Whether it is a step of answers: there are few such shapes, and they are run for every token.
    pub const fn is_answer(self) -> bool {
        self.tokens == 1
    }
}

/// One run of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its shape.
    pub shape: Shape,
    /// `rows` × `tokens`: what is computed. Padding repeats the token 0.
    pub tokens: Vec<i32>,
    /// `rows` × `tokens`: where each stands in its sequence, padding included: it lies behind
    /// everything real, so that nothing real attends to it.
    pub positions: Vec<i32>,
    /// `rows`: what each slot holds before the pass, which is where the new tokens go.
    pub lengths: Vec<i32>,
    /// `rows`: how many of the tokens are real.
    pub counts: Vec<i32>,
    /// `rows`: which of the `rows` × `tokens` hidden states become logits.
    pub gather: Vec<i32>,
    /// Rows of logits to hand out.
    pub wanted: Vec<Wanted>,
}

/// A piece of a run: consecutive tokens that one pass computes.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    run: usize,
    slot: u32,
    start: u32,
    tokens: &'a [TokenId],
    /// Place of the last token in the run, where its logits are wanted.
    wanted: Option<usize>,
}

/// The passes for `runs`, which [`super::Slots::check`] has let through, in the order they must be
/// run. `lengths` are those before the call.
pub fn passes(geometry: &Geometry, lengths: &[u32], runs: &[Run]) -> Vec<Pass> {
    let mut lengths = lengths.to_vec();
    let mut passes = Vec::new();
    let singles: Vec<Piece<'_>> = pieces(runs, |run| run.tokens.len() == 1).collect();
    push(geometry, &mut lengths, &singles, &mut passes);
    let chunks: Vec<Piece<'_>> = pieces(runs, |run| {
        run.tokens.len() > 1 && run.logits != LogitsWanted::All
    })
    .collect();
    if geometry.chunks_alone() || !fit_together(geometry, &chunks) {
        for chunk in &chunks {
            push(geometry, &mut lengths, &[*chunk], &mut passes);
        }
    } else {
        push(geometry, &mut lengths, &chunks, &mut passes);
    }
    // The network has one row of logits per sequence: every row means one token at a time.
    let every = |run: &&Run| run.tokens.len() > 1 && run.logits == LogitsWanted::All;
    for (i, run) in runs.iter().enumerate().filter(|(_, run)| every(run)) {
        for (j, start) in (0..run.tokens.len()).zip(run.start..) {
            let piece = Piece {
                run: i,
                slot: run.slot.0,
                start,
                tokens: &run.tokens[j..=j],
                wanted: Some(j),
            };
            push(geometry, &mut lengths, &[piece], &mut passes);
        }
    }
    passes
}

/// Whether the longest chunk's padding fits into every other's slot: positions end at the capacity.
fn fit_together(geometry: &Geometry, chunks: &[Piece<'_>]) -> bool {
    let longest = chunks.iter().map(|chunk| count(chunk.tokens)).max();
    let fullest = chunks.iter().map(|chunk| chunk.start).max();
    longest.unwrap_or(0) + fullest.unwrap_or(0) <= geometry.capacity
}

fn pieces(runs: &[Run], which: impl Fn(&Run) -> bool) -> impl Iterator<Item = Piece<'_>> {
    let chosen = runs.iter().enumerate().filter(move |(_, run)| which(run));
    chosen.map(|(i, run)| Piece {
        run: i,
        slot: run.slot.0,
        start: run.start,
        tokens: &run.tokens,
        wanted: run
            .tokens
            .len()
            .checked_sub(1)
            .filter(|&last| run.logits.wants(last, run.tokens.len())),
    })
}

/// Adds the pass that computes `pieces`, if there are any, and what they make of the lengths.
fn push(geometry: &Geometry, lengths: &mut [u32], pieces: &[Piece<'_>], into: &mut Vec<Pass>) {
    let Some(shape) = shape(geometry, lengths, pieces) else {
        return;
    };
    into.push(fill(geometry.form, shape, lengths, pieces));
    for piece in pieces {
        if let Some(length) = lengths.get_mut(piece.slot as usize) {
            *length = piece.start + count(piece.tokens);
        }
    }
}

fn shape(geometry: &Geometry, lengths: &[u32], pieces: &[Piece<'_>]) -> Option<Shape> {
    let longest = pieces.iter().map(|piece| count(piece.tokens)).max()?;
    let (first, rows) = window(geometry, longest, pieces)?;
    let fullest = match geometry.form {
        // The network writes for idle slots too.
        Form::Native => lengths
            .iter()
            .skip(first as usize)
            .take(rows as usize)
            .copied()
            .max(),
        Form::Split => pieces.iter().map(|piece| piece.start).max(),
    };
    let tokens = padded(geometry, longest, rows, fullest.unwrap_or(0));
    let needed = pieces.iter().map(|piece| match geometry.form {
        Form::Split => piece.start,
        Form::Native => piece.start + count(piece.tokens),
    });
    Some(Shape {
        profile: geometry.profile(tokens, rows)?.index,
        tokens,
        bucket: geometry.bucket(needed.max().unwrap_or(0)),
        first,
        rows,
    })
}

/// The slots of a pass: the smallest aligned window of a power of two that holds all of `pieces`
/// and that the engine has a profile for, or all slots. Aligned, because every window is recorded
/// by itself: there are fewer than twice as many as slots.
fn window(geometry: &Geometry, tokens: u32, pieces: &[Piece<'_>]) -> Option<(u32, u32)> {
    let low = pieces.iter().map(|piece| piece.slot).min()?;
    let high = pieces.iter().map(|piece| piece.slot).max()?;
    let sizes = (0..32).map(|power| 1_u32 << power);
    for rows in sizes.take_while(|&rows| rows < geometry.slots) {
        let first = low / rows * rows;
        let holds = high < first + rows && first + rows <= geometry.slots;
        if holds && geometry.profile(tokens, rows).is_some() {
            return Some((first, rows));
        }
    }
    Some((0, geometry.slots))
}

/// Fewest tokens a chunk is padded to: computing fewer takes as long.
const LEAST_CHUNK: u32 = 16;

/// How many tokens a chunk of `tokens` is padded to: the next power of two, so that the device
/// meets few shapes, each of which costs it up to a third of a second when it is new; as it is
/// where the padding would not fit into the fullest of its slots.
fn padded(geometry: &Geometry, tokens: u32, rows: u32, fullest: u32) -> u32 {
    if tokens == 1 {
        return 1;
    }
    let end = geometry
        .profile(tokens, rows)
        .map(|profile| *profile.tokens.end());
    let wide = tokens.next_power_of_two().max(LEAST_CHUNK);
    let wide = wide.min(end.unwrap_or(tokens));
    if fullest + wide <= geometry.capacity {
        wide
    } else {
        tokens
    }
}

fn fill(form: Form, shape: Shape, lengths: &[u32], pieces: &[Piece<'_>]) -> Pass {
    let (rows, width) = (shape.rows as usize, shape.tokens as usize);
    let idle = lengths.iter().skip(shape.first as usize).take(rows);
    let starts: Vec<u32> = match form {
        // Behind what an idle slot holds, where nothing is attended to.
        Form::Native => idle.copied().collect(),
        // Nothing is filed for an idle slot.
        Form::Split => vec![0; rows],
    };
    let mut pass = Pass {
        shape,
        tokens: vec![0; rows * width],
        positions: Vec::with_capacity(rows * width),
        lengths: starts.into_iter().map(signed).collect(),
        counts: vec![0; rows],
        gather: (0..rows).map(|row| index(row * width)).collect(),
        wanted: Vec::new(),
    };
    for piece in pieces {
        let slot = piece.slot - shape.first;
        let row = slot as usize;
        for (cell, token) in pass.tokens.iter_mut().skip(row * width).zip(piece.tokens) {
            *cell = signed(*token);
        }
        pass.lengths[row] = signed(piece.start);
        pass.counts[row] = index(piece.tokens.len());
        pass.gather[row] = index(row * width + piece.tokens.len() - 1);
        let (run, row) = (piece.run, slot);
        pass.wanted
            .extend(piece.wanted.map(|token| Wanted { run, token, row }));
    }
    for start in &pass.lengths {
        pass.positions.extend((*start..).take(width));
    }
    pass
}

/// Bounded by the context.
fn count(tokens: &[TokenId]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}

/// Bounded by the geometry's check.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn index(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The shapes that are met before the server says it is ready: single tokens of windows of every
/// size in every bucket, which are recorded (windows that begin at other slots need no new kernels,
/// and are recorded when they are met), and the chunks of prompts, each in every bucket it can end in.
pub fn first_shapes(geometry: &Geometry) -> Vec<Shape> {
    let sizes = (0..32).map(|power| 1_u32 << power);
    let rows = sizes.take_while(|rows| *rows < geometry.slots);
    let rows = rows.chain([geometry.slots]);
    let longest = geometry.longest_chunk();
    let chunks = (0..32).map(|power| LEAST_CHUNK << power);
    let chunks = chunks
        .take_while(|tokens| *tokens < longest)
        .chain([longest]);
    let chunk_rows = if geometry.chunks_alone() {
        1
    } else {
        geometry.slots
    };
    let sizes = rows.map(|rows| (1, rows));
    let sizes = sizes.chain(chunks.map(|tokens| (tokens, chunk_rows)));
    let mut shapes = Vec::new();
    for (tokens, rows) in sizes {
        let Some(profile) = geometry.profile(tokens, rows) else {
            continue;
        };
        let padded = tokens.min(*profile.tokens.end());
        let least = match geometry.form {
            // A shorter chunk is padded to less.
            Form::Native => tokens / 2 + 1,
            Form::Split => 0,
        };
        let buckets = geometry.buckets.iter().copied();
        shapes.extend(
            buckets
                .filter(|bucket| *bucket >= least)
                .map(|bucket| Shape {
                    profile: profile.index,
                    tokens: padded,
                    bucket,
                    first: 0,
                    rows,
                }),
        );
    }
    shapes
}

/// A pass that means nothing: for shapes that are to be met early, on empty slots.
pub fn idle(geometry: &Geometry, shape: Shape) -> Pass {
    fill(geometry.form, shape, &vec![0; geometry.slots as usize], &[])
}

/// The shapes that need most memory: single tokens of all slots, and the longest chunk.
pub fn largest_shapes(geometry: &Geometry) -> Vec<Shape> {
    let chunk_rows = if geometry.chunks_alone() {
        1
    } else {
        geometry.slots
    };
    let sizes = [(1, geometry.slots), (geometry.longest_chunk(), chunk_rows)];
    let shapes = sizes.into_iter().filter_map(|(tokens, rows)| {
        Some(Shape {
            profile: geometry.profile(tokens, rows)?.index,
            tokens,
            bucket: geometry.capacity,
            first: 0,
            rows,
        })
    });
    shapes.collect()
}
