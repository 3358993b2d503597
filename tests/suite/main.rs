//! Tests that need no external part.

mod gateway;
mod layering;
