//! Model files. Reads and checks GGUF headers; runs nothing and never maps tensor data.
//!
//! What other layers may rely on: a [`gguf::GgufFile`] that was returned is consistent with the
//! length of its file, so no count, length or offset in it can lead out of the file.

pub mod gguf;
