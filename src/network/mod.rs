//! The network of a model as a value: a small typed graph of operations, before any engine exists. Pure.
//!
//! [`describe`] turns a model's facts into a [`Graph`]; one lowering makes TensorRT's layers of it,
//! and the tests evaluate the same graph on the CPU against llama.cpp and `transformers`. So a wrong
//! rotation, mask, head grouping or layout is found without a GPU.
//!
//! It decides which operations a model is made of, with shapes and types checked as each operation is
//! added. It never holds a byte of a weight (a [`WeightSpec`] says what one is made of), reads no
//! file, and knows no device: everything here exists as a layer of TensorRT 10.3, or, for the native
//! form, of 10.15 and TensorRT-RTX.

mod attention;
mod builder;
mod check;
mod check_moves;
mod check_native;
mod config;
mod decoder;
mod dimension;
mod graph;
mod op;
mod profile;
mod rope;
mod weight;
mod whole;

pub use builder::GraphBuilder;
pub use config::{Config, ConfigError, Extent, Form, Options};
pub use decoder::describe;
pub(crate) use dimension::shape;
pub use dimension::{Bindings, Dim, Shape, Symbol, Term};
pub use graph::{Graph, Node, Output, TensorId};
pub use op::{Binary, DataType, InputRole, Op, OutputRole, Reduction, Scaling, Unary, Values};
pub use profile::{Bounds, Point, Profile};
pub use rope::{FACTORS, Llama3Scaling, llama3_factors};
pub use weight::{
    Encoding, Layout, Part, Source, TensorMeta, WeightError, WeightId, WeightKind, WeightSource,
    WeightSpec,
};

/// Most bytes of one constant that a graph carries itself: the rotary table of a long context.
pub const MAX_INLINE_BYTES: u64 = 128 << 20;
/// Most axes of a tensor (TensorRT's `Dims::MAX_DIMS`).
pub const MAX_RANK: usize = 8;

/// Why a graph cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// An operation does not fit its operands.
    #[error("the operation `{name}` ({kind}) of {operands}: {problem}")]
    Operation {
        /// Name of the operation in the graph.
        name: String,
        /// Which operation.
        kind: &'static str,
        /// Its operands, each with type, shape and name.
        operands: String,
        /// What is wrong.
        problem: String,
    },
    /// A weight's description contradicts itself.
    #[error("the weight `{name}` {problem}")]
    Weight {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Inputs and outputs of the whole graph.
    #[error("the network's {what} `{name}` {problem}")]
    Port {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The choices of an engine contradict each other.
    #[error("the network cannot be described: {problem}")]
    Options {
        /// What is wrong.
        problem: String,
    },
    /// An optimisation profile.
    #[error("the profile `{name}` {problem}")]
    Profile {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
