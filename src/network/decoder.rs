//! The decoder as a graph: embedding, blocks of attention and feed-forward network, output layer.
//!
//! Activations are `[batch × sequence, …]`, so that every linear layer is one plain product; norms are
//! computed in F32, whose squares cannot overflow; only the rows that are wanted reach the output layer.

use super::attention::{Attention, Heads};
use super::builder::GraphBuilder;
use super::{
    Binary, Config, DataType, Dim, Encoding, Graph, InputRole, Layout, NetworkError, Options,
    OutputRole, Reduction, Source, Symbol, TensorId, Unary, Values, WeightId, WeightKind,
    WeightSpec, shape,
};

pub(super) type Built<T = TensorId> = Result<T, NetworkError>;

/// The network of a model for an engine.
///
/// # Errors
/// When the options contradict each other or the model, for example a block that does not divide a
/// row, or a profile that does not bound every changing size.
pub fn describe(config: &Config, options: &Options) -> Result<Graph, NetworkError> {
    options.check(config)?;
    let mut decoder = Decoder::new(config, options)?;
    let mut hidden = decoder.embed()?;
    let attention = Attention::prepare(&mut decoder)?;
    for layer in 0..config.layers {
        hidden = decoder.attend(&attention, layer, hidden)?;
        hidden = decoder.feed_forward(layer, hidden)?;
    }
    decoder.logits(hidden)?;
    decoder.graph.finish(options.profiles.clone())
}

/// The graph under construction with what every part of it uses.
pub(super) struct Decoder<'a> {
    pub(super) graph: GraphBuilder,
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    /// Sequences of a run.
    pub(super) batch: Dim,
    /// New tokens of each sequence.
    pub(super) sequence: Dim,
    /// Both multiplied.
    tokens: Dim,
    /// Rows of logits.
    rows: Dim,
    embedding: TensorId,
}

impl<'a> Decoder<'a> {
    fn new(config: &'a Config, options: &'a Options) -> Built<Self> {
        let mut graph = GraphBuilder::default();
        let batch = options.batch.dim(Symbol::Batch);
        let sequence = options.sequence.dim(Symbol::Sequence);
        let tokens = batch.times(&sequence).unwrap_or_else(|| Dim::fixed(0));
        let table = graph.weight(WeightSpec {
            name: "embedding".into(),
            kind: WeightKind::Table,
            sources: vec![embedding_source(config)],
            layout: Layout::Nk,
            encoding: options.plain(),
        })?;
        let embedding = graph.load(table)?;
        Ok(Self {
            graph,
            config,
            options,
            batch,
            sequence,
            tokens,
            rows: options.rows.dim(Symbol::Rows),
            embedding,
        })
    }

    /// `[batch, sequence]` token ids → hidden states `[batch × sequence, hidden]`.
    fn embed(&mut self) -> Built {
        self.graph.scope("embedding");
        let shape = shape![self.batch, self.sequence];
        let ids = self
            .graph
            .input("tokens", InputRole::Tokens, DataType::I32, shape)?;
        let ids = self.graph.reshape(ids, shape![self.tokens])?;
        let rows = self.graph.gather(self.embedding, ids, 0)?;
        self.graph.cast(rows, self.options.residual)
    }

    fn attend(&mut self, attention: &Attention, layer: u32, hidden: TensorId) -> Built {
        self.graph.scope(format!("layer.{layer}.attention"));
        let config = self.config;
        let x = self.norm(
            hidden,
            &format!("blk.{layer}.attn_norm.weight"),
            config.hidden,
        )?;
        let heads = self.project(layer, x)?;
        let attended = attention.layer(self, layer, heads)?;
        let turned = self.graph.transpose(attended, &[0, 2, 1, 3])?;
        let flat = shape![self.tokens, config.query_length()];
        let flat = self.graph.reshape(turned, flat)?;
        let source = matrix(layer, "attn_output", config.hidden, config.query_length());
        let weight = self.matrix(format!("layer.{layer}.attention.output"), vec![source])?;
        let y = self.graph.linear(flat, weight)?;
        self.add_to(hidden, y)
    }

    /// Queries, keys and values, each `[batch, heads, sequence, head length]`.
    fn project(&mut self, layer: u32, x: TensorId) -> Built<Heads> {
        let (queries, keys) = (self.config.query_length(), self.config.key_length());
        let parts = [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)];
        let source = |(name, length)| matrix(layer, name, length, self.config.hidden);
        let sources = parts.into_iter().map(source).collect();
        let weight = self.matrix(format!("layer.{layer}.attention.qkv"), sources)?;
        let mut all = self.graph.linear(x, weight)?;
        if self.config.attention_biases {
            let name = format!("layer.{layer}.attention.qkv.bias");
            let source = |(part, length)| vector(format!("blk.{layer}.{part}.bias"), length);
            let sources = parts.into_iter().map(source).collect();
            let plain = self.options.plain();
            let bias = self.vector(name, sources, plain, queries + 2 * keys, 2)?;
            all = self.graph.binary(Binary::Add, all, bias)?;
        }
        let mut from = 0;
        let mut cut = |decoder: &mut Self, length: u32, norm: Option<&str>| {
            let part = decoder
                .graph
                .slice(all, 1, Dim::from(from), Dim::from(length))?;
            from += length;
            decoder.heads(layer, part, length, norm)
        };
        let norms = self.config.head_norms;
        let query = cut(self, queries, norms.then_some("attn_q_norm"))?;
        let key = cut(self, keys, norms.then_some("attn_k_norm"))?;
        let value = cut(self, keys, None)?;
        Ok(Heads { query, key, value })
    }

    /// `[batch × sequence, length]` → `[batch, heads, sequence, head length]`.
    fn heads(&mut self, layer: u32, x: TensorId, length: u32, norm: Option<&str>) -> Built {
        let head = self.config.head_length;
        let to = shape![self.batch, self.sequence, length / head, head];
        let mut x = self.graph.reshape(x, to)?;
        if let Some(norm) = norm {
            x = self.norm(x, &format!("blk.{layer}.{norm}.weight"), head)?;
        }
        self.graph.transpose(x, &[0, 2, 1, 3])
    }

    /// The gated feed-forward network, added to the hidden state.
    fn feed_forward(&mut self, layer: u32, hidden: TensorId) -> Built {
        self.graph.scope(format!("layer.{layer}.feed_forward"));
        let (narrow, wide) = (self.config.hidden, self.config.feed_forward);
        let x = self.norm(hidden, &format!("blk.{layer}.ffn_norm.weight"), narrow)?;
        let sources = ["ffn_gate", "ffn_up"].map(|name| matrix(layer, name, wide, narrow));
        let name = format!("layer.{layer}.feed_forward.gate_up");
        let weight = self.matrix(name, sources.into())?;
        let both = self.graph.linear(x, weight)?;
        let gate = self.graph.slice(both, 1, Dim::fixed(0), Dim::from(wide))?;
        let up = self
            .graph
            .slice(both, 1, Dim::from(wide), Dim::from(wide))?;
        let open = self.graph.unary(Unary::Sigmoid, gate)?;
        let gate = self.graph.binary(Binary::Multiply, gate, open)?;
        let x = self.graph.binary(Binary::Multiply, gate, up)?;
        let source = matrix(layer, "ffn_down", narrow, wide);
        let weight = self.matrix(format!("layer.{layer}.feed_forward.down"), vec![source])?;
        let y = self.graph.linear(x, weight)?;
        self.add_to(hidden, y)
    }

    /// The wanted rows through the last norm and the output layer.
    fn logits(&mut self, hidden: TensorId) -> Built<()> {
        self.graph.scope("output");
        let shape = shape![self.rows];
        let rows = self
            .graph
            .input("rows", InputRole::Rows, DataType::I32, shape)?;
        let x = self.graph.gather(hidden, rows, 0)?;
        let x = self.norm(x, "output_norm.weight", self.config.hidden)?;
        let tied = self.config.tied_embeddings;
        let logits = if tied && !self.options.head.has_scales() {
            self.graph.mat_mul(x, self.embedding, true)?
        } else {
            let source = if tied {
                embedding_source(self.config)
            } else {
                Source {
                    name: "output.weight".into(),
                    ..embedding_source(self.config)
                }
            };
            let weight = self.graph.weight(WeightSpec {
                name: "output".into(),
                kind: WeightKind::Linear,
                sources: vec![source],
                layout: self.options.layout,
                encoding: self.unquantised_as_activations(self.options.head),
            })?;
            self.graph.linear(x, weight)?
        };
        let logits = self.graph.cast(logits, DataType::F32)?;
        self.graph.output("logits", OutputRole::Logits, logits);
        Ok(())
    }

    /// `x / √(mean(x²) + ε) × weight` along the last axis, in F32; the result is an activation.
    fn norm(&mut self, x: TensorId, weight: &str, length: u32) -> Built {
        let rank = self.graph.shape(x).map_or(0, super::Shape::rank);
        let axis = rank.saturating_sub(1);
        let wide = self.graph.cast(x, DataType::F32)?;
        let squares = self.graph.binary(Binary::Multiply, wide, wide)?;
        let mean = self.graph.reduce(Reduction::Mean, squares, axis)?;
        let epsilon = Values::F32([self.config.epsilon].into());
        let epsilon = self.graph.constant(epsilon, &vec![1; rank])?;
        let mean = self.graph.binary(Binary::Add, mean, epsilon)?;
        let root = self.graph.unary(Unary::Sqrt, mean)?;
        let inverse = self.graph.unary(Unary::Reciprocal, root)?;
        let unit = self.graph.binary(Binary::Multiply, wide, inverse)?;
        let source = vector(weight.to_owned(), length);
        let weight = self.vector(weight.to_owned(), vec![source], Encoding::F32, length, rank)?;
        let y = self.graph.binary(Binary::Multiply, unit, weight)?;
        self.graph.cast(y, self.options.activations)
    }

    fn add_to(&mut self, hidden: TensorId, y: TensorId) -> Built {
        let y = self.graph.cast(y, self.options.residual)?;
        self.graph.binary(Binary::Add, hidden, y)
    }

    fn unquantised_as_activations(&self, encoding: Encoding) -> Encoding {
        if encoding.has_scales() {
            encoding
        } else {
            self.options.plain()
        }
    }

    fn matrix(&mut self, name: String, sources: Vec<Source>) -> Built<WeightId> {
        self.graph.weight(WeightSpec {
            name,
            kind: WeightKind::Linear,
            sources,
            layout: self.options.layout,
            encoding: self.unquantised_as_activations(self.options.encoding),
        })
    }

    /// A vector of `length` with `rank` axes, all but the last 1.
    fn vector(
        &mut self,
        name: String,
        sources: Vec<Source>,
        encoding: Encoding,
        length: u32,
        rank: usize,
    ) -> Built {
        let weight = self.graph.weight(WeightSpec {
            name,
            kind: WeightKind::Vector,
            sources,
            layout: Layout::Nk,
            encoding,
        })?;
        let vector = self.graph.load(weight)?;
        let mut sizes = vec![Dim::fixed(1); rank.saturating_sub(1)];
        sizes.push(Dim::from(length));
        self.graph.reshape(vector, super::Shape(sizes))
    }
}

fn embedding_source(config: &Config) -> Source {
    Source {
        name: "token_embd.weight".into(),
        rows: config.vocabulary.into(),
        row_length: config.hidden.into(),
    }
}

fn matrix(layer: u32, part: &str, outputs: u32, inputs: u32) -> Source {
    Source {
        name: format!("blk.{layer}.{part}.weight"),
        rows: outputs.into(),
        row_length: inputs.into(),
    }
}

fn vector(name: String, length: u32) -> Source {
    Source {
        name,
        rows: 1,
        row_length: length.into(),
    }
}
