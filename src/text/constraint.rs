//! Structured output.

/// A compiled grammar.
#[derive(Debug)]
pub struct Constraint;
