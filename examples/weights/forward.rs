//! A plain forward pass of a Llama in 32-bit floating point, which shows what goes into each linear
//! layer. For measuring only: the network that engines are built from is described elsewhere, and this
//! is deliberately another implementation of it.

use std::collections::BTreeMap;

use enginewright::model::ModelFacts;
use enginewright::network::{WeightError, WeightSource};

/// Sees the inputs `[tokens, columns]` of the weight that is named.
pub type Watch<'a> = dyn FnMut(&str, &[f32]) + 'a;

/// A model with all weights in memory.
pub struct Llama<'a> {
    facts: &'a ModelFacts,
    weights: BTreeMap<String, Vec<f32>>,
}

impl<'a> Llama<'a> {
    pub fn load(
        facts: &'a ModelFacts,
        source: &dyn WeightSource,
        names: &[String],
    ) -> Result<Self, WeightError> {
        let mut weights = BTreeMap::new();
        for name in names {
            let rows = source.tensor(name).map_or(0, |meta| meta.rows());
            let mut values = Vec::new();
            source.read_f32(name, 0..rows, &mut values)?;
            weights.insert(name.clone(), values);
        }
        Ok(Self { facts, weights })
    }

    fn weight(&self, name: &str) -> &[f32] {
        self.weights.get(name).map_or(&[], Vec::as_slice)
    }

    /// Natural logarithms of the probability of each token but the first.
    pub fn log_probabilities(&self, tokens: &[u32], watch: &mut Watch<'_>) -> Vec<f64> {
        let hidden_length = self.facts.hidden as usize;
        let embedding = self.weight("token_embd.weight");
        let mut hidden: Vec<f32> = tokens
            .iter()
            .flat_map(|&token| &embedding[token as usize * hidden_length..][..hidden_length])
            .copied()
            .collect();
        for layer in 0..self.facts.layers {
            self.attend(layer, &mut hidden, watch);
            self.feed_forward(layer, &mut hidden, watch);
        }
        let normed = self.norm(&hidden, "output_norm.weight");
        let output = match self.weight("output.weight") {
            [] => embedding,
            output => output,
        };
        let mut found = Vec::with_capacity(tokens.len());
        // A few rows of logits at a time: all of them would take more memory than the model.
        for (first, rows) in normed.chunks(16 * hidden_length).enumerate() {
            let logits = product(rows, output, hidden_length);
            let following = tokens.iter().skip(first * 16 + 1);
            for (row, &next) in logits
                .chunks_exact(self.facts.vocabulary as usize)
                .zip(following)
            {
                let most = row
                    .iter()
                    .fold(f32::NEG_INFINITY, |most, &one| most.max(one));
                let sum: f64 = row.iter().map(|&one| f64::from(one - most).exp()).sum();
                found.push(f64::from(row[next as usize] - most) - sum.ln());
            }
        }
        found
    }

    fn norm(&self, hidden: &[f32], name: &str) -> Vec<f32> {
        let weight = self.weight(name);
        let mut out = Vec::with_capacity(hidden.len());
        for row in hidden.chunks_exact(weight.len()) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
            let mean = row.iter().map(|one| one * one).sum::<f32>() / row.len() as f32;
            let scale = (mean + self.facts.rms_epsilon).sqrt().recip();
            out.extend(
                row.iter()
                    .zip(weight)
                    .map(|(one, weight)| one * scale * weight),
            );
        }
        out
    }

    fn linear(
        &self,
        name: &str,
        inputs: &[f32],
        columns: usize,
        watch: &mut Watch<'_>,
    ) -> Vec<f32> {
        watch(name, inputs);
        product(inputs, self.weight(name), columns)
    }

    fn attend(&self, layer: u32, hidden: &mut [f32], watch: &mut Watch<'_>) {
        let columns = self.facts.hidden as usize;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let normed = self.norm(hidden, &name("attn_norm"));
        let mut queries = self.linear(&name("attn_q"), &normed, columns, watch);
        let mut keys = self.linear(&name("attn_k"), &normed, columns, watch);
        let values = self.linear(&name("attn_v"), &normed, columns, watch);
        let (heads, kv_heads) = (self.facts.heads as usize, self.facts.kv_heads as usize);
        self.rotate(&mut queries, heads);
        self.rotate(&mut keys, kv_heads);
        let mixed = self.mix(&queries, &keys, &values);
        let length = heads * self.facts.head_length as usize;
        add(
            hidden,
            &self.linear(&name("attn_output"), &mixed, length, watch),
        );
    }

    /// Rotates the two halves of each head against each other.
    fn rotate(&self, rows: &mut [f32], heads: usize) {
        let length = self.facts.head_length as usize;
        let half = length / 2;
        for (position, row) in rows.chunks_exact_mut(heads * length).enumerate() {
            for head in row.chunks_exact_mut(length) {
                for pair in 0..half {
                    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                    let angle = position as f64
                        / f64::from(self.facts.rope.base).powf(2.0 * pair as f64 / length as f64);
                    #[expect(clippy::cast_possible_truncation, reason = "computed in 64 bits")]
                    let (sine, cosine) = (angle.sin() as f32, angle.cos() as f32);
                    let (left, right) = (head[pair], head[pair + half]);
                    head[pair] = left * cosine - right * sine;
                    head[pair + half] = right * cosine + left * sine;
                }
            }
        }
    }

    /// Causal attention of one sequence.
    fn mix(&self, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let length = self.facts.head_length as usize;
        let (heads, kv_heads) = (self.facts.heads as usize, self.facts.kv_heads as usize);
        let mut mixed = vec![0.0; queries.len()];
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let scale = (length as f32).sqrt().recip();
        for (position, row) in mixed.chunks_exact_mut(heads * length).enumerate() {
            for (head, out) in row.chunks_exact_mut(length).enumerate() {
                let query = &queries[(position * heads + head) * length..][..length];
                let kv_head = head / (heads / kv_heads);
                let at = |past: usize| (past * kv_heads + kv_head) * length;
                let mut scores: Vec<f32> = (0..=position)
                    .map(|past| dot(query, &keys[at(past)..][..length]) * scale)
                    .collect();
                let most = scores
                    .iter()
                    .fold(f32::NEG_INFINITY, |most, &one| most.max(one));
                let mut sum = 0.0;
                for score in &mut scores {
                    *score = (*score - most).exp();
                    sum += *score;
                }
                for (past, score) in scores.iter().enumerate() {
                    let value = &values[at(past)..][..length];
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += score / sum * value;
                    }
                }
            }
        }
        mixed
    }

    fn feed_forward(&self, layer: u32, hidden: &mut [f32], watch: &mut Watch<'_>) {
        let columns = self.facts.hidden as usize;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let normed = self.norm(hidden, &name("ffn_norm"));
        let mut gate = self.linear(&name("ffn_gate"), &normed, columns, watch);
        let up = self.linear(&name("ffn_up"), &normed, columns, watch);
        for (gate, up) in gate.iter_mut().zip(&up) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
        let length = self.facts.feed_forward as usize;
        add(
            hidden,
            &self.linear(&name("ffn_down"), &gate, length, watch),
        );
    }
}

fn add(to: &mut [f32], more: &[f32]) {
    for (to, more) in to.iter_mut().zip(more) {
        *to += more;
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let [sum] = dots([left], right);
    sum
}

/// Products of several rows with one: what is loaded of the one serves all.
fn dots<const N: usize>(rows: [&[f32]; N], with: &[f32]) -> [f32; N] {
    let (with, rest) = with.as_chunks::<8>();
    let mut sums = [[0.0_f32; 8]; N];
    for (at, with) in with.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            for ((sum, row), with) in sums.iter_mut().zip(&row[at * 8..at * 8 + 8]).zip(with) {
                *sum += row * with;
            }
        }
    }
    let done = with.len() * 8;
    let mut all = [0.0; N];
    for (all, (sums, row)) in all.iter_mut().zip(sums.iter().zip(&rows)) {
        let rest: f32 = rest.iter().zip(&row[done..]).map(|(a, b)| a * b).sum();
        *all = sums.iter().sum::<f32>() + rest;
    }
    all
}

/// `inputs` `[tokens, columns]` times the transpose of `weight` `[rows, columns]`.
pub fn product(inputs: &[f32], weight: &[f32], columns: usize) -> Vec<f32> {
    let rows = weight.len() / columns;
    let tokens = inputs.len() / columns;
    let mut out = vec![0.0; tokens * rows];
    for (row, weight) in weight.chunks_exact(columns).enumerate() {
        let mut token = 0;
        while token + 4 <= tokens {
            let input = |at: usize| &inputs[(token + at) * columns..][..columns];
            let sums = dots([input(0), input(1), input(2), input(3)], weight);
            for (at, sum) in sums.into_iter().enumerate() {
                out[(token + at) * rows + row] = sum;
            }
            token += 4;
        }
        while token < tokens {
            out[token * rows + row] = dot(&inputs[token * columns..][..columns], weight);
            token += 1;
        }
    }
    out
}
