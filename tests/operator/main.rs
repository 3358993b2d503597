//! The operator on a real API server with the real controllers of Deployments, Jobs and garbage. Only
//! the kubelet is not one: it says of pods what a test wants, and what they would serve is served from
//! loopback addresses. `scripts/tools cluster` builds the parts.
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

mod crash;
mod faults;
mod kubelet;
mod life;
mod rights;
mod scale;
mod storm;
mod support;
