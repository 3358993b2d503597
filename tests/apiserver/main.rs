//! Tests on a real API server: `scripts/tools cluster` builds it, each test has a namespace.
//!
//! None is skipped when a part is missing: it fails and names what to run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../real/tools.rs"]
mod tools;

mod agent;
mod agreement;
mod definitions;
mod gitops;
mod harness;
mod packaging;
mod rules;
mod specs;
