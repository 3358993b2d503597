//! Between text and tokens: tokenizer, chat templates, sampling, constraints, tool calls.
//!
//! Everything here is a function of its inputs: no clock, no random source, no I/O. Seeds and dates
//! come in as values.

pub mod constraint;
pub mod detokenizer;
pub mod files;
pub mod model;
pub mod sampling;
pub mod stop;
pub mod template;
pub mod tokenizer;
pub mod tools;

pub use files::TextFiles;
pub use model::TextModel;
