//! The one place with `unsafe`: the shim's C functions, and memory that others own.
//!
//! What each block relies on stands before it. What this module promises outwards: a value of its
//! types keeps alive all that TensorRT still points to, and frees in the order that TensorRT needs
//! (context, engine, runtime; network, builder, constants). The shim and TensorRT themselves stay in the
//! process until it ends: neither survives being unloaded while a thread may still log.
#![allow(unsafe_code)]

mod builder;
mod callback;
mod context;
pub mod cuda;
mod engine;
mod library;
mod mapped;
mod operations;
mod raw;
mod session;
mod types;

pub use builder::{Builder, BuilderOptions, Constant, Tensor};
pub use callback::Progress;
pub use context::{Context, ContextOptions, Specialise};
pub use engine::{Engine, EngineTensor, TrustedPlan};
pub use library::Library;
pub use mapped::MappedFile;
pub use session::{Session, SessionError};
pub use types::{Elementwise, Reduction, Selector, Type, Unary};
