//! The HTTP server on the scripted back end: what clients get, byte for byte, and what hostile ones
//! get.

mod connections;
mod drain;
mod errors;
mod guarded;
mod health;
mod load;
mod ollama;
mod openai;
mod plain;
mod support;
