//! Attention in its two forms, over a cache of which the first `context` tokens are read.
//!
//! Queries are scaled before they are multiplied, which keeps F16 products small; softmax is computed
//! in F32. A token sees what lies at its position or before: the mask is made in the network from
//! positions, so that sequences of different lengths share a run.

use super::decoder::{Built, Decoder};
use super::{
    Binary, DataType, Dim, Form, InputRole, NetworkError, Op, OutputRole, Symbol, TensorId, Values,
    rope, shape,
};

/// Added to scores of what is not seen: far below any score, far from F32's limits.
const UNSEEN: f32 = -1e30;

/// Queries, keys and values of the new tokens, `[batch, heads, sequence, head length]`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) query: TensorId,
    pub(super) key: TensorId,
    pub(super) value: TensorId,
}

/// What all layers share.
pub(super) struct Attention {
    rotation: Rotation,
    scale: TensorId,
    mask: Mask,
    lengths: TensorId,
}

enum Rotation {
    /// `x × cosines + x[swapped] × sines`: tables at the run's positions, `[batch, 1, sequence, head
    /// length]`, sines negative in the first half, and the indices that swap the halves.
    Plain {
        cosines: TensorId,
        sines: TensorId,
        swapped: TensorId,
    },
    /// Whole tables, `[capacity, head length / 2]`, and the positions.
    Native {
        cosines: TensorId,
        sines: TensorId,
        positions: TensorId,
    },
}

enum Mask {
    /// What is added to scores, F32 `[batch, 1, group × sequence, context + sequence]`.
    Added(TensorId),
    /// Bool `[batch, 1, sequence, context]`.
    Seen(TensorId),
}

fn context() -> Dim {
    Dim::from(Symbol::Context)
}

fn overflow() -> NetworkError {
    NetworkError::Options {
        problem: "the sizes of the attention do not fit into 64 bits".to_owned(),
    }
}

impl Attention {
    /// Adds inputs, tables and mask.
    pub(super) fn prepare(decoder: &mut Decoder<'_>) -> Built<Self> {
        decoder.graph.scope("attention");
        let (batch, sequence) = (decoder.batch.clone(), decoder.sequence.clone());
        let mut input = |name, role, shape| decoder.graph.input(name, role, DataType::I32, shape);
        let shape = shape![batch, sequence];
        let positions = input("positions", InputRole::Positions, shape)?;
        let lengths = input("lengths", InputRole::Lengths, shape![batch])?;
        let name = "context_positions";
        let cached = input(name, InputRole::ContextPositions, shape![context()])?;
        let scale = 1.0 / f64::from(decoder.config.head_length).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and 1")]
        let scale = Values::floats(decoder.options.activations, &[scale as f32]);
        let scale = decoder.graph.constant(scale, &[1; 4])?;
        let seen = Seen::new(decoder, positions, cached)?;
        let (rotation, mask) = match decoder.options.form {
            Form::Split => (
                Rotation::plain(decoder, positions)?,
                seen.added(decoder, positions, lengths)?,
            ),
            Form::Native => (Rotation::native(decoder, positions)?, seen.native(decoder)?),
        };
        Ok(Self {
            rotation,
            scale,
            mask,
            lengths,
        })
    }

    /// Attention of one layer: `[batch, heads, sequence, head length]`.
    pub(super) fn layer(&self, decoder: &mut Decoder<'_>, layer: u32, heads: Heads) -> Built {
        let Heads { query, key, value } = heads;
        let query = self.rotation.apply(decoder, query)?;
        let key = self.rotation.apply(decoder, key)?;
        let query = decoder.graph.binary(Binary::Multiply, query, self.scale)?;
        let heads = Heads { query, key, value };
        let caches = caches(decoder, layer)?;
        match self.mask {
            Mask::Added(mask) => split(decoder, layer, &heads, caches, mask),
            Mask::Seen(mask) => self.native(decoder, layer, &heads, caches, mask),
        }
    }

    fn native(
        &self,
        decoder: &mut Decoder<'_>,
        layer: u32,
        heads: &Heads,
        caches: (TensorId, TensorId),
        mask: TensorId,
    ) -> Built {
        let mut update = |cache, new| {
            let operands = [cache, new, self.lengths];
            decoder.graph.add(Op::KvCacheUpdate, &operands)
        };
        let keys = update(caches.0, heads.key)?;
        let values = update(caches.1, heads.value)?;
        let graph = &mut decoder.graph;
        graph.output(&format!("keys.{layer}"), OutputRole::Keys(layer), keys);
        graph.output(
            &format!("values.{layer}"),
            OutputRole::Values(layer),
            values,
        );
        let keys = graph.slice(keys, 2, Dim::fixed(0), context())?;
        let values = graph.slice(values, 2, Dim::fixed(0), context())?;
        graph.add(Op::Attention, &[heads.query, keys, values, mask])
    }
}

/// The caches of a layer as inputs, `[batch, KV heads, capacity, head length]`.
fn caches(decoder: &mut Decoder<'_>, layer: u32) -> Built<(TensorId, TensorId)> {
    let (config, options) = (decoder.config, decoder.options);
    let sizes = shape![
        decoder.batch,
        config.kv_heads,
        options.capacity,
        config.head_length
    ];
    let mut input = |name: &str, role| {
        let name = format!("past_{name}.{layer}");
        let shape = sizes.clone();
        decoder.graph.input(&name, role, options.activations, shape)
    };
    let keys = input("keys", InputRole::PastKeys(layer))?;
    Ok((keys, input("values", InputRole::PastValues(layer))?))
}

/// Scores against the cache and against the new tokens, one softmax over both. Heads that share keys
/// are rows of one product: `[batch, KV heads, group × sequence, head length]`.
fn split(
    decoder: &mut Decoder<'_>,
    layer: u32,
    heads: &Heads,
    caches: (TensorId, TensorId),
    mask: TensorId,
) -> Built {
    let (config, activations) = (decoder.config, decoder.options.activations);
    let (batch, sequence) = (decoder.batch.clone(), decoder.sequence.clone());
    let rows = group_rows(decoder)?;
    let graph = &mut decoder.graph;
    graph.output(
        &format!("new_keys.{layer}"),
        OutputRole::NewKeys(layer),
        heads.key,
    );
    graph.output(
        &format!("new_values.{layer}"),
        OutputRole::NewValues(layer),
        heads.value,
    );
    let past_keys = graph.slice(caches.0, 2, Dim::fixed(0), context())?;
    let past_values = graph.slice(caches.1, 2, Dim::fixed(0), context())?;
    let grouped = shape![batch, config.kv_heads, rows, config.head_length];
    let query = graph.reshape(heads.query, grouped)?;
    let past = graph.mat_mul(query, past_keys, true)?;
    let new = graph.mat_mul(query, heads.key, true)?;
    let scores = graph.concat(&[past, new], 3)?;
    let scores = graph.cast(scores, DataType::F32)?;
    let scores = graph.binary(Binary::Add, scores, mask)?;
    let weights = graph.add(Op::Softmax { axis: 3 }, &[scores])?;
    let weights = graph.cast(weights, activations)?;
    let past = graph.slice(weights, 3, Dim::fixed(0), context())?;
    let new = graph.slice(weights, 3, context(), sequence.clone())?;
    let past = graph.mat_mul(past, past_values, false)?;
    let new = graph.mat_mul(new, heads.value, false)?;
    let sum = graph.binary(Binary::Add, past, new)?;
    let apart = shape![batch, config.heads, sequence, config.head_length];
    graph.reshape(sum, apart)
}

/// Query heads of a group times new tokens.
fn group_rows(decoder: &Decoder<'_>) -> Built<Dim> {
    let group = decoder.config.heads / decoder.config.kv_heads.max(1);
    let rows = Dim::from(group).times(&decoder.sequence);
    rows.ok_or_else(overflow)
}

/// Positions brought into shape for comparison.
struct Seen {
    /// `[batch, 1, sequence, 1]`: one more than the position of each query.
    until: TensorId,
    /// `[1, 1, 1, context]`: places in the cache.
    cached: TensorId,
}

impl Seen {
    fn new(decoder: &mut Decoder<'_>, positions: TensorId, cached: TensorId) -> Built<Self> {
        let (batch, sequence) = (decoder.batch.clone(), decoder.sequence.clone());
        let graph = &mut decoder.graph;
        let one = graph.constant(Values::I32([1].into()), &[1; 4])?;
        let queries = graph.reshape(positions, shape![batch, 1_i64, sequence, 1_i64])?;
        let until = graph.binary(Binary::Add, queries, one)?;
        let cached = graph.reshape(cached, shape![1_i64, 1_i64, 1_i64, context()])?;
        Ok(Self { until, cached })
    }

    /// Split form: of the cache what was there before, of the new tokens what is not later.
    fn added(
        self,
        decoder: &mut Decoder<'_>,
        positions: TensorId,
        lengths: TensorId,
    ) -> Built<Mask> {
        let group = decoder.config.heads / decoder.config.kv_heads.max(1);
        let (batch, sequence) = (decoder.batch.clone(), decoder.sequence.clone());
        let graph = &mut decoder.graph;
        let new = graph.reshape(positions, shape![batch, 1_i64, 1_i64, sequence])?;
        let lengths = graph.reshape(lengths, shape![batch, 1_i64, 1_i64, 1_i64])?;
        let limit = graph.binary(Binary::Min, self.until, lengths)?;
        let past = graph.binary(Binary::Less, self.cached, limit)?;
        let new = graph.binary(Binary::Less, new, self.until)?;
        let zero = graph.constant(Values::F32([0.0].into()), &[1; 4])?;
        let unseen = graph.constant(Values::F32([UNSEEN].into()), &[1; 4])?;
        let past = graph.add(Op::Select, &[past, zero, unseen])?;
        let new = graph.add(Op::Select, &[new, zero, unseen])?;
        let one = graph.concat(&[past, new], 3)?;
        let all = vec![one; group as usize];
        let mask = if group == 1 {
            one
        } else {
            graph.concat(&all, 2)?
        };
        Ok(Mask::Added(mask))
    }

    /// Native form: the new tokens are in the cache already, at their positions.
    fn native(self, decoder: &mut Decoder<'_>) -> Built<Mask> {
        let seen = decoder
            .graph
            .binary(Binary::Less, self.cached, self.until)?;
        Ok(Mask::Seen(seen))
    }
}

impl Rotation {
    fn plain(decoder: &mut Decoder<'_>, positions: TensorId) -> Built<Self> {
        let (config, options) = (decoder.config, decoder.options);
        let (batch, sequence) = (decoder.batch.clone(), decoder.sequence.clone());
        let pairs = config.frequencies.len();
        let (cosines, sines) = rope::tables(&config.frequencies, options.capacity);
        let both = |table: &[f32], first: f32| -> Vec<f32> {
            let rows = table.chunks(pairs.max(1));
            rows.flat_map(|row| {
                row.iter()
                    .map(move |one| one * first)
                    .chain(row.iter().copied())
            })
            .collect()
        };
        let sizes = [i64::from(options.capacity), i64::from(config.head_length)];
        let here = shape![batch, 1_i64, sequence, config.head_length];
        let graph = &mut decoder.graph;
        let mut table = |values: &[f32]| {
            let values = Values::floats(options.activations, values);
            let table = graph.constant(values, &sizes)?;
            let rows = graph.gather(table, positions, 0)?;
            graph.reshape(rows, here.clone())
        };
        let cosines = table(&both(&cosines, 1.0))?;
        let sines = table(&both(&sines, -1.0))?;
        let half = i32::try_from(pairs).map_err(|_| overflow())?;
        let swapped: Vec<i32> = (half..2 * half).chain(0..half).collect();
        let swapped = graph.constant(Values::I32(swapped.into()), &[sizes[1]])?;
        Ok(Self::Plain {
            cosines,
            sines,
            swapped,
        })
    }

    fn native(decoder: &mut Decoder<'_>, positions: TensorId) -> Built<Self> {
        let (config, options) = (decoder.config, decoder.options);
        let (cosines, sines) = rope::tables(&config.frequencies, options.capacity);
        let pairs = i64::from(config.head_length / 2);
        let mut table = |values: &[f32]| {
            let values = Values::floats(options.activations, values);
            let sizes = [i64::from(options.capacity), pairs];
            decoder.graph.constant(values, &sizes)
        };
        Ok(Self::Native {
            cosines: table(&cosines)?,
            sines: table(&sines)?,
            positions,
        })
    }

    fn apply(&self, decoder: &mut Decoder<'_>, x: TensorId) -> Built {
        let graph = &mut decoder.graph;
        match *self {
            Self::Plain {
                cosines,
                sines,
                swapped,
            } => {
                let other = graph.gather(x, swapped, 3)?;
                let straight = graph.binary(Binary::Multiply, x, cosines)?;
                let turned = graph.binary(Binary::Multiply, other, sines)?;
                graph.binary(Binary::Add, straight, turned)
            }
            Self::Native {
                cosines,
                sines,
                positions,
            } => graph.add(Op::RotaryEmbedding, &[x, cosines, sines, positions]),
        }
    }
}
