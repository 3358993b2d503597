//! Why there is no engine, and what is told of one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{LowerError, RoomError, WeightsError};
use crate::network::{Graph, Node};
use crate::store::bundle::{BundleError, EngineFacts, Port, ProfileFacts, SizeBounds};
use crate::tensorrt::TensorRtError;

/// Why an engine was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Too little memory or disk.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Another build runs there.
    #[error("another build runs in {}: wait for it, or choose another directory with --out", .folder.display())]
    Busy {
        /// Where.
        folder: PathBuf,
    },
    /// The bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The model's weights cannot be read or encoded.
    #[error("{0}")]
    Weights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The weights cannot be laid down.
    #[error("{0}")]
    Laying(String),
    /// TensorRT refuses the network.
    #[error(transparent)]
    Network(#[from] LowerError),
    /// TensorRT does not build.
    #[error("TensorRT did not build the engine: {0}")]
    TensorRt(#[source] TensorRtError),
    /// Stopped from outside.
    #[error("the build was stopped; nothing was left behind")]
    Stopped,
}

impl From<TensorRtError> for BuildError {
    fn from(error: TensorRtError) -> Self {
        match error {
            TensorRtError::Cancelled => Self::Stopped,
            other => Self::TensorRt(other),
        }
    }
}

impl BuildError {
    pub(super) fn from_weights<E: std::error::Error + Send + Sync + 'static>(
        error: WeightsError<E>,
    ) -> Self {
        match error {
            WeightsError::Weight(error) => Self::Weights(Box::new(error)),
            WeightsError::Write { path, source } => {
                Self::Bundle(BundleError::Write { path, source })
            }
            WeightsError::Stopped => Self::Stopped,
            other @ WeightsError::Length { .. } => Self::Laying(other.to_string()),
        }
    }
}

/// What the manifest tells of the engine.
pub(super) fn facts(graph: &Graph, model: &str, layers: u32) -> EngineFacts {
    let mut operations = BTreeMap::new();
    for node in graph.nodes() {
        *operations.entry(node.op.kind().to_owned()).or_insert(0) += 1;
    }
    let port = |name: &str, node: &Node, is_input| Port {
        name: name.to_owned(),
        kind: node.dtype.to_string(),
        shape: node.shape.to_string(),
        is_input,
    };
    let inputs = graph
        .inputs()
        .map(|(_, _, node)| port(&node.name, node, true));
    let outputs = graph.outputs().iter();
    let outputs = outputs.map(|output| port(&output.name, graph.node(output.tensor), false));
    let profiles = graph.profiles().iter().map(|profile| ProfileFacts {
        name: profile.name.clone(),
        bounds: profile
            .bounds
            .iter()
            .map(|(symbol, bounds)| {
                let (min, opt, max) = (bounds.min, bounds.opt, bounds.max);
                (symbol.name().to_owned(), SizeBounds { min, opt, max })
            })
            .collect(),
    });
    EngineFacts {
        model: model.to_owned(),
        attention: if graph.is_native() { "native" } else { "split" }.to_owned(),
        weight_bytes: graph.weight_bytes(),
        operations,
        layers,
        ports: inputs.chain(outputs).collect(),
        profiles: profiles.collect(),
    }
}
