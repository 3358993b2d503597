//! The inference server: HTTP in front of one thread that owns the device.

pub mod generation;
pub mod worker;
