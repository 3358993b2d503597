//! Runs a network as a server does: slots with their own lengths, a cache that is kept, padding.

use std::collections::BTreeMap;

use enginewright::network::{InputRole, OutputRole};

use super::Interpreter;
use super::tensor::Tensor;

/// New tokens of a slot.
pub struct Turn<'a> {
    pub slot: usize,
    pub tokens: &'a [u32],
}

pub struct Runner<'a> {
    interpreter: &'a Interpreter<'a>,
    /// Tokens in each slot.
    pub lengths: Vec<usize>,
    /// Keys and values by layer, `[slots, KV heads, capacity, head length]`.
    caches: BTreeMap<InputRole, Tensor>,
    /// Tokens of the cache that are read: a multiple of this.
    bucket: usize,
    capacity: usize,
}

impl<'a> Runner<'a> {
    pub fn new(interpreter: &'a Interpreter<'a>, slots: usize, bucket: usize) -> Self {
        let mut capacity = 0;
        let empty = |(_, role, node): (_, InputRole, &enginewright::network::Node)| {
            let (InputRole::PastKeys(_) | InputRole::PastValues(_)) = role else {
                return None;
            };
            let sizes = node.shape.0[1..]
                .iter()
                .map(|size| size.as_fixed().unwrap());
            let sizes = sizes.map(|size| usize::try_from(size).unwrap());
            let shape: Vec<usize> = std::iter::once(slots).chain(sizes).collect();
            capacity = shape[2];
            let zeros = vec![0.0; shape.iter().product()];
            Some((role, Tensor::floats(node.dtype, shape, zeros)))
        };
        let caches = interpreter.graph.inputs().filter_map(empty).collect();
        Self {
            interpreter,
            lengths: vec![0; slots],
            caches,
            bucket,
            capacity,
        }
    }

    /// Appends tokens to slots and gives the logits of the last token of each turn.
    pub fn step(&mut self, turns: &[Turn<'_>]) -> Vec<Vec<f32>> {
        let slots = self.lengths.len();
        let longest = turns.iter().map(|turn| turn.tokens.len()).max().unwrap();
        let mut tokens = vec![0; slots * longest];
        let mut rows = Vec::new();
        for turn in turns {
            let start = turn.slot * longest;
            for (to, token) in tokens[start..].iter_mut().zip(turn.tokens) {
                *to = i64::from(*token);
            }
            rows.push(whole(start + turn.tokens.len() - 1));
        }
        let place = |i: usize| whole(self.lengths[i / longest] + i % longest);
        let positions = (0..slots * longest).map(place).collect();
        let lengths = self.lengths.iter().map(|length| whole(*length)).collect();
        let most = self.lengths.iter().max().unwrap() + longest;
        let context = most.next_multiple_of(self.bucket).min(self.capacity);
        let mut inputs = std::mem::take(&mut self.caches);
        inputs.extend([
            (
                InputRole::Tokens,
                Tensor::whole(vec![slots, longest], tokens),
            ),
            (
                InputRole::Positions,
                Tensor::whole(vec![slots, longest], positions),
            ),
            (InputRole::Lengths, Tensor::whole(vec![slots], lengths)),
            (InputRole::Rows, Tensor::whole(vec![rows.len()], rows)),
            (
                InputRole::ContextPositions,
                Tensor::whole(vec![context], (0..context).map(whole).collect()),
            ),
        ]);
        let outputs = self.interpreter.run(&inputs);
        self.keep(inputs, &outputs, turns);
        let logits = &outputs[&OutputRole::Logits];
        let vocabulary = logits.shape[1];
        logits
            .as_floats()
            .chunks(vocabulary)
            .map(<[f32]>::to_vec)
            .collect()
    }

    /// Forgets what `slot` holds from `length` on.
    pub fn truncate(&mut self, slot: usize, length: usize) {
        self.lengths[slot] = self.lengths[slot].min(length);
    }

    /// Makes the first `length` tokens of slot `to` those of slot `from`.
    pub fn copy_prefix(&mut self, from: usize, to: usize, length: usize) {
        for cache in self.caches.values_mut() {
            let one: usize = cache.shape[1..].iter().product();
            let mut values = cache.as_floats().to_vec();
            values.copy_within(from * one..(from + 1) * one, to * one);
            *cache = Tensor::floats(cache.dtype, cache.shape.clone(), values);
        }
        self.lengths[to] = length;
    }

    /// The native form gives whole caches; of the split form, new rows are copied into place.
    fn keep(
        &mut self,
        mut inputs: BTreeMap<InputRole, Tensor>,
        outputs: &BTreeMap<OutputRole, Tensor>,
        turns: &[Turn<'_>],
    ) {
        for (role, output) in outputs {
            let cache = match *role {
                OutputRole::Logits => continue,
                OutputRole::Keys(layer) | OutputRole::NewKeys(layer) => InputRole::PastKeys(layer),
                OutputRole::Values(layer) | OutputRole::NewValues(layer) => {
                    InputRole::PastValues(layer)
                }
            };
            let past = inputs.remove(&cache).unwrap();
            let whole = matches!(role, OutputRole::Keys(_) | OutputRole::Values(_));
            let kept = if whole {
                output.clone()
            } else {
                self.copied(&past, output, turns)
            };
            self.caches.insert(cache, kept);
        }
        for turn in turns {
            self.lengths[turn.slot] += turn.tokens.len();
        }
    }

    fn copied(&self, past: &Tensor, new: &Tensor, turns: &[Turn<'_>]) -> Tensor {
        let [_, heads, capacity, length] = past.shape[..] else {
            panic!("{:?}", past.shape);
        };
        let sequence = new.shape[2];
        let (dtype, shape) = (past.dtype, past.shape.clone());
        let mut values = past.as_floats().to_vec();
        for turn in turns {
            let run = turn.tokens.len() * length;
            for head in turn.slot * heads..(turn.slot + 1) * heads {
                let to = (head * capacity + self.lengths[turn.slot]) * length;
                let from = head * sequence * length;
                values[to..to + run].copy_from_slice(&new.as_floats()[from..from + run]);
            }
        }
        Tensor::floats(dtype, shape, values)
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap()
}
