//! Tests that need no external part.

mod layering;
