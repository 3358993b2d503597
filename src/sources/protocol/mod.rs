//! What the protocols of sources mean: names to addresses, manifests to layers, lists to files. Pure.

pub mod choice;
pub mod manifest;
pub mod place;
pub mod retry;
