//! Models from where they are published: a real registry filled by a real `ollama push` and by ORAS,
//! and a server that speaks the API of Hugging Face. In front of them a proxy that cuts, refuses and
//! damages.

mod faults;
mod hub;
mod oci;
mod ollama;
mod proxy;
mod support;
