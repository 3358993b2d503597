//! Proving a server by real generation, and measuring it.
