//! Tests with a real TensorRT: the shim against all headers and under sanitizers, engines built by
//! TensorRT-RTX on the CPU. They need no GPU.
//!
//! None is skipped when a part is missing: it fails and names `make tools`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../real/tools.rs"]
mod tools;

mod command;
mod matrix;
mod run;
mod shim;
mod wrapper;
