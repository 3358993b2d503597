//! Proving a server by real generation, and measuring it.
//!
//! It speaks HTTP to an engine as a client does and decides what came back: good, measured bad, or
//! not measurable. It never decides what happens then; that is the planner's.

pub mod chat;
pub mod health;
pub mod judge;
pub mod proof;
pub mod throttle;
pub mod tools;

pub use chat::{ProbeError, Prober, Sample};
