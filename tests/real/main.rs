//! Tests with the real parts: a real model, real processes, a real Ollama, real client libraries.
//!
//! None is skipped when a part is missing: it fails and names `make tools`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod clients;
mod disconnects;
mod engine;
mod gateway;
mod guard;
mod hostile_models;
#[path = "../interpreter/mod.rs"]
mod interpreter;
mod network;
mod run;
mod sources;
mod structured;
mod structured_served;
mod tokenizer;
mod tools;
mod weights;
