//! Tests that need no external part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod crds;
mod gateway;
mod generated;
#[path = "../interpreter/mod.rs"]
mod interpreter;
mod layering;
mod named;
mod network;
mod plan;
mod samples;
mod server;
