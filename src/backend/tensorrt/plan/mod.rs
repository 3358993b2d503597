//! The bookkeeping of the TensorRT back end. Pure: no device, no clock, no file.
//!
//! It decides what shapes an engine is run with, what integers it is given, where everything lies
//! in device memory and what a step may not do. It must not know how any of this reaches a GPU.

pub mod cache;
pub mod geometry;
pub mod memory;
pub mod pass;
pub mod patience;
pub mod recent;
pub mod slots;
#[cfg(test)]
mod tests;

pub use geometry::{Form, Geometry, GeometryError, Profile};
pub use pass::{Pass, Shape, Wanted, passes};
pub use slots::{Refusal, Slots};
