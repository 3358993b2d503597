//! TensorRT, safely: finding it, building engines with it, running them.
//!
//! It decides nothing: which network, which shapes and which memory is others' business. All `unsafe`
//! of the program is in [`ffi`]; outside of it nothing can be held longer than what it needs.
//!
//! # Why a shim of our own
//!
//! TensorRT's interface is C++ objects with virtual tables, whose layout differs between versions
//! that all answer to the same symbols. `libenginewright_trt.so` (`shim/`, one C++ file) is compiled
//! from the headers of the very TensorRT that it will call and refuses any other; this program talks
//! C to it. So one binary serves `JetPack` 6.2 (TensorRT 10.3), 7.2 (10.16) and TensorRT-RTX, and
//! links none of them.
//!
//! - The crate `tensorrt-rs` (0.3.0) speaks TensorRT 5 to 7 only: no strong typing, no 4-bit
//!   weights, no `enqueueV3`, and no network that could be described from Rust.
//! - The crate `trtx` (0.9.1) cannot be compiled for the TensorRT 10.3 of `JetPack` 6.2 (it needs types
//!   that came later), checks no version (code for 1.4 on a 1.5 library ends in a segmentation
//!   fault), and its lifetimes let a context outlive its engine.

mod error;
pub mod ffi;
mod search;
mod version;

pub use error::TensorRtError;
pub use ffi::cuda::{
    CudaError, DeviceBox, DeviceFacts, DeviceMemory, Event, Filing, FilingShape, Gpu, Graph,
    PinnedMemory, Stream, Wait,
};
pub use ffi::{
    Builder, BuilderOptions, Constant, Context, ContextOptions, Elementwise, Engine, EngineTensor,
    Library, MappedFile, Progress, Reduction, Selector, Session, SessionError, Specialise, Tensor,
    TrustedPlan, Type, Unary,
};
pub use search::{Search, is_installed, load};
pub use version::{Capabilities, Flavour, Version};

#[cfg(test)]
mod tests;
