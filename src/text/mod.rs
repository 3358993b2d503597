//! Between text and tokens: tokenizer, chat templates, sampling, constraints, tool calls. Pure.

pub mod constraint;
pub mod sampling;
