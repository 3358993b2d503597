//! Tests that need no external part.

mod crds;
mod gateway;
mod layering;
mod samples;
