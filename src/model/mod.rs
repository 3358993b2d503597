//! Model files. Reads and checks GGUF headers; runs nothing.
