//! `enginewright run` with real processes: engine, gateway, Ollama.

mod ends;
mod fallback;
mod path;
mod revisions;
mod state;
mod support;
mod unit;
