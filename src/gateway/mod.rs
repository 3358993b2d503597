//! The stable endpoint in front of engine and fallback.
