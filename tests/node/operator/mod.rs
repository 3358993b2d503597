//! The operator on a real node: real pods of real images, the real model, a real Ollama.

mod breaks;
mod builds;
mod client;
mod history;
mod images;
mod path;
mod support;
mod times;
