//! The engine key, memory arithmetic and the choice of precision. Pure.
//!
//! All sizes are estimates from a model's dimensions, made before anything is built; each line says
//! how it was computed, so that a person can check it. What was measured on a device later wins.

mod budget;
mod fit;
mod key;
mod need;
mod outlook;
mod precision;
mod served;
mod speed;

pub use budget::{Budget, budget};
pub use fit::{BuildFit, Candidate, Fit, Handover, Request, Verdict, fit};
pub use key::{BUILDER_VERSION, CHUNK, EngineKey, KeyInputs, group_in_key};
pub use need::{FallbackNeed, Need, build_bytes, build_need, fallback_need, need};
pub use outlook::{Known, ModelOutlook, Outlook, Step, outlook, request};
pub use precision::{Format, formats};
pub use served::Served;
pub use speed::{Speed, speed};

use serde::Serialize;

use crate::hardware::Bytes;

/// One line of an account of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What takes it.
    pub what: String,
    /// How much.
    pub bytes: Bytes,
    /// How that was computed.
    pub how: String,
}

impl Line {
    fn new(what: impl Into<String>, bytes: u64, how: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            bytes: Bytes(bytes),
            how: how.into(),
        }
    }
}

fn sum(lines: &[Line]) -> u64 {
    lines
        .iter()
        .fold(0, |sum, line| sum.saturating_add(line.bytes.0))
}

#[cfg(test)]
mod tests;
