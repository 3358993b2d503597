//! The TensorRT back end: an engine on a GPU behind [`crate::backend::Backend`].
//!
//! Three parts. [`plan`] is bookkeeping without a device: which sequences share a step, over how much
//! context, what every integer is, what fits where. `device` does what a plan says: memory, sessions,
//! recorded graphs, one stream. [`loader`] refuses what was built for another machine or does not fit,
//! then loads and warms.
//!
//! # What runs when
//!
//! A step is one launch of a recorded CUDA graph: integers to the device, the network, new keys and
//! values into the KV cache, logits to pinned memory. There is one graph per [`plan::Shape`] of single
//! tokens. Prompts run in chunks, one sequence at a time, padded to a power of two; with TensorRT-RTX the
//! chunks met last are recorded too, because it leaves memory behind whenever sizes change.
//! The KV cache is allocated once; a prefix is reused by one copy of rows; forgetting moves nothing.
//!
//! # What a failure means
//!
//! A call that breaks the contract is refused and changes nothing. Every failure of CUDA or TensorRT
//! is [`crate::backend::BackendError::Fatal`]: after it nothing on the device can be trusted, so the
//! process ends with exit code 3, the gateway answers from elsewhere, and the planner starts it again.

mod backend;
pub mod bundle;
mod device;
pub mod loader;
pub mod plan;
mod ports;
mod sessions;

pub use backend::{Inside, NAME, TensorRt};
pub use loader::{BuiltFor, TensorRtConfig, TensorRtLoader};
pub use ports::PortsError;
