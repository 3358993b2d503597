//! The state directory: atomic writes, locks, digests.
