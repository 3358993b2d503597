//! Sampling.

/// How tokens are drawn.
#[derive(Clone, Debug)]
pub struct SamplingParams;
