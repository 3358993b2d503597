//! Tests on a whole node: `scripts/tools cluster node` installs its parts; needs root.
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
mod life;
mod operator;
