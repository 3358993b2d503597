//! `enginewright run` with real processes: engine, gateway, Ollama.

mod ends;
mod fallback;
mod path;
mod revisions;
mod state;
pub mod support;
mod unit;
