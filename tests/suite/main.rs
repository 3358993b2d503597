//! Tests that need no external part.

mod crds;
mod gateway;
mod generated;
mod layering;
mod plan;
mod samples;
mod server;
