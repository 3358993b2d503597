//! What is to be described: the dimensions of a model, and the choices of an engine.
//!
//! [`Config`] comes from the model alone; [`Options`] from what is asked of the engine and what its
//! TensorRT can do. Both are checked here, so that [`super::describe`] fails on neither.

use super::{
    Bounds, DataType, Dim, Encoding, Layout, MAX_INLINE_BYTES, NetworkError, Profile, Symbol,
    WeightError, WeightSource, rope,
};
use crate::model::{Architecture, ModelFacts};

/// Dimensions and constants of a decoder of the Llama family, Qwen 2 or Qwen 3.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: u32,
    /// Length of one head; even.
    pub head_length: u32,
    /// Length of the hidden state.
    pub hidden: u32,
    /// Length of the feed-forward network's hidden state.
    pub feed_forward: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
    /// Whether the output layer is the embedding.
    pub tied_embeddings: bool,
    /// Whether queries, keys and values have biases (Qwen 2).
    pub attention_biases: bool,
    /// Whether each head of queries and keys is normalised (Qwen 3).
    pub head_norms: bool,
    /// What is added to the mean square in every norm.
    pub epsilon: f32,
    /// Radians per position of each rotated pair, `head_length / 2` of them.
    pub frequencies: Vec<f64>,
}

impl Config {
    /// The configuration of the model with these facts, whose frequency factors, where it has them,
    /// are read from `source`.
    ///
    /// # Errors
    /// When the factors cannot be read, or positions are encoded in a way that is not supported.
    pub fn new(facts: &ModelFacts, source: &dyn WeightSource) -> Result<Self, ConfigError> {
        let mut factors = Vec::new();
        if facts.rope.has_factors {
            source.read_f32(rope::FACTORS, 0..1, &mut factors)?;
        }
        Ok(Self {
            layers: facts.layers,
            heads: facts.heads,
            kv_heads: facts.kv_heads,
            head_length: facts.head_length,
            hidden: facts.hidden,
            feed_forward: facts.feed_forward,
            vocabulary: facts.vocabulary,
            tied_embeddings: facts.tied_embeddings,
            attention_biases: facts.attention_biases,
            head_norms: facts.architecture == Architecture::Qwen3,
            epsilon: facts.rms_epsilon,
            frequencies: rope::frequencies(&facts.rope, &factors)?,
        })
    }

    /// Length of all heads of queries together.
    pub fn query_length(&self) -> u32 {
        self.heads * self.head_length
    }

    /// Length of all heads of keys, or of values, together.
    pub fn key_length(&self) -> u32 {
        self.kv_heads * self.head_length
    }
}

/// Why a model has no network here.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Something that the network needs cannot be read.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Positions are encoded in a way that engines do not compute.
    #[error("the model's positions are {problem}: serve it with the CPU back end")]
    Positions {
        /// What is wrong.
        problem: String,
    },
}

/// How attention is made of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Layers of TensorRT 10.3 only: past keys and values are inputs, those of the new tokens are
    /// outputs, and the runtime copies them into the cache.
    Split,
    /// KV-cache update, attention and rotary embedding as layers of their own: TensorRT 10.15 and
    /// TensorRT-RTX.
    Native,
}

/// A size that is the same in every run, or bounded by the profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// The same in every run.
    Fixed(u32),
    /// Changes from run to run.
    Changing,
}

impl Extent {
    pub(super) fn dim(self, symbol: Symbol) -> Dim {
        match self {
            Self::Fixed(size) => Dim::from(size),
            Self::Changing => Dim::from(symbol),
        }
    }
}

/// The choices of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Form of the attention.
    pub form: Form,
    /// Encoding of the linear layers inside the blocks.
    pub encoding: Encoding,
    /// Encoding of the output layer; where it is quantised and tied, the embedding is there twice.
    pub head: Encoding,
    /// Layout of all linear layers; a tied output layer is `[N, K]` in any case.
    pub layout: Layout,
    /// Type of activations, of the cache, of embedding and biases: F16, or F32 as a reference.
    pub activations: DataType,
    /// Type of the residual stream. F32 costs little and cannot overflow.
    pub residual: DataType,
    /// Sequences of a run.
    pub batch: Extent,
    /// New tokens of each sequence in a run.
    pub sequence: Extent,
    /// Rows of logits of a run.
    pub rows: Extent,
    /// Tokens that a slot of the cache holds, padding of the last run included: in the native form
    /// every run writes `sequence` tokens from the slot's length on.
    pub capacity: u32,
    /// Bounds of what changes.
    pub profiles: Vec<Profile>,
}

impl Options {
    /// An engine that serves `slots` sequences of `capacity` tokens, with prompts computed in chunks
    /// of up to `chunk`: one profile for decoding, with exactly one token of each sequence, and one for
    /// prompts.
    pub fn serving(form: Form, encoding: Encoding, slots: u32, capacity: u32, chunk: u32) -> Self {
        let bounds = |min: u32, opt: u32, max: u32| Bounds {
            min: min.into(),
            opt: opt.max(min).into(),
            max: max.max(min).into(),
        };
        let slots = slots.max(1);
        let context = bounds(1, capacity / 4, capacity);
        let several = slots > 1;
        let profile = |name: &str, usual: u32, sequence: Bounds| {
            let profile = Profile::new(name)
                .with(Symbol::Sequence, sequence)
                .with(Symbol::Context, context);
            if several {
                let bounds = bounds(1, usual, slots);
                profile
                    .with(Symbol::Batch, bounds)
                    .with(Symbol::Rows, bounds)
            } else {
                profile
            }
        };
        let extent = if several {
            Extent::Changing
        } else {
            Extent::Fixed(1)
        };
        Self {
            form,
            encoding,
            head: Encoding::F16,
            layout: Layout::Nk,
            activations: DataType::F16,
            residual: DataType::F32,
            batch: extent,
            sequence: Extent::Changing,
            rows: extent,
            capacity,
            profiles: vec![
                profile("decode", slots, Bounds::exactly(1)),
                profile("prefill", 1, bounds(1, chunk, chunk.min(capacity))),
            ],
        }
    }

    /// Encoding of what is never quantised.
    pub(super) fn plain(&self) -> Encoding {
        match self.activations {
            DataType::F32 => Encoding::F32,
            _ => Encoding::F16,
        }
    }

    /// Checks the choices, alone and with the model.
    pub(super) fn check(&self, config: &Config) -> Result<(), NetworkError> {
        let wrong = |problem: &str| NetworkError::Options {
            problem: problem.to_owned(),
        };
        let Config {
            heads,
            kv_heads,
            head_length,
            ..
        } = *config;
        if kv_heads == 0 || heads % kv_heads != 0 || head_length == 0 || head_length % 2 != 0 {
            return Err(wrong(
                "heads must be a multiple of KV heads, and of even length",
            ));
        }
        if config.frequencies.len() != head_length as usize / 2 {
            return Err(wrong("there must be one frequency for each pair of a head"));
        }
        let table = u64::from(self.capacity) * u64::from(head_length) * 4;
        if table > MAX_INLINE_BYTES {
            return Err(wrong("the capacity is too large for a table of positions"));
        }
        if !self.activations.is_float() || !self.residual.is_float() {
            return Err(wrong("activations and residual stream must be F16 or F32"));
        }
        let sizes = [self.batch, self.sequence, self.rows];
        if self.capacity == 0 || sizes.contains(&Extent::Fixed(0)) {
            return Err(wrong(
                "batch, sequence, rows and capacity must be at least 1",
            ));
        }
        Ok(())
    }
}
