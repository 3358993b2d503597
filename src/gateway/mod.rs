//! The stable endpoint in front of engine and fallback: same APIs, same model name, whoever answers.
//!
//! ```text
//!  client ── service ── relay ──┬─ source (same API) ──────────── primary: enginewright serve
//!               │         │     └─ source (translated, emit) ──── fallback: Ollama
//!               │         ├─ ledger: what the client has seen, what to do when a source fails
//!            endpoint     └─ breaker: who may be asked
//!              ask
//! ```
//!
//! Decisions are pure: [`endpoint`], [`ask`], [`wanted`], [`fallback`], [`openai`], [`chunk`],
//! [`piece`], [`emit`], [`whole`], [`ledger`], [`mark`], [`verdict`], [`breaker`], [`routes`]. They
//! open no connection and read no clock. The shell ([`client`], [`source`], [`attempt`], [`relay`],
//! [`service`], [`metadata`], [`background`], [`listener`]) moves bytes and carries verdicts out.

pub mod ask;
pub mod attempt;
pub mod background;
pub mod breaker;
pub mod chunk;
pub mod client;
pub mod emit;
pub mod endpoint;
pub mod failure;
pub mod fallback;
pub mod ledger;
pub mod listener;
pub mod mark;
pub mod metadata;
pub mod metrics;
pub mod openai;
pub mod piece;
pub mod prompt;
pub mod relay;
pub mod routes;
pub mod service;
pub mod source;
pub mod state;
pub mod verdict;
pub mod wanted;
pub mod whole;
