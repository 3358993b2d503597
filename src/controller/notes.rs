//! What the operator has seen of one resource in this life: since when things are as they are, and
//! what was found by asking. All of it may be lost at any time; what must not is in [`super::state`].

use std::collections::{BTreeMap, BTreeSet};

use super::workloads::Order;
use crate::planner::{Failure, Garbage, Health, InstanceId, Memory, Proof, Route, Timestamp};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The planner's part.
    pub memory: Memory,
    /// Findings about engines.
    pub engines: BTreeMap<InstanceId, Findings>,
    /// The route table that gateways were seen to have taken over.
    pub in_force: Option<InForce>,
    /// What the companion of the fallback last said.
    pub companion: Option<Companion>,
    /// What an Ollama at an address last said.
    pub external: Option<Result<(), String>>,
    /// The fallback was ordered and waits for its model.
    pub fallback_ordered: bool,
    /// The last collection of garbage.
    pub garbage: Garbage,
    /// How often a kubelet had to be asked again to refresh the table.
    pub nudges: u32,
    /// When the resource was first looked at.
    pub first: Option<Timestamp>,
    /// When the last plan wanted to be made again.
    pub due: Option<Timestamp>,
    /// A time that the planner waited for and that has come: what was found before it does not count
    /// for what is decided after it, so the next good probe is news.
    pub passed: Option<Timestamp>,
    since: BTreeMap<String, Timestamp>,
    touched: BTreeSet<String>,
}

/// Findings about one engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// The last proof.
    pub proof: Proof,
    /// Number of the last proof that was begun.
    pub proofs: u64,
    /// The periodic probe.
    pub health: Option<Health>,
    /// Since when it is the primary.
    pub serving_since: Option<Timestamp>,
}

/// A route table that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its generation.
    pub generation: u64,
    /// The planner's route behind it.
    pub route: Route,
    /// UIDs of the gateways' pods that have it.
    pub pods: BTreeSet<String>,
}

/// What a companion said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// UID of its pod.
    pub pod: String,
    /// What it was told, as far as it has read that.
    pub order: Option<Order>,
    /// Whether the order is carried out.
    pub done: bool,
    /// Why it cannot be.
    pub problem: Option<Failure>,
}

impl Notes {
    /// Since when `what` is so: from now on, if it was not so at the last observation.
    pub fn since(&mut self, what: impl Into<String>, now: Timestamp) -> Timestamp {
        let what = what.into();
        self.touched.insert(what.clone());
        *self.since.entry(what).or_insert(now)
    }

    /// The end of an observation: what was not so any more is forgotten.
    pub fn settle(&mut self, present: &BTreeSet<InstanceId>) {
        let touched = std::mem::take(&mut self.touched);
        self.since.retain(|what, _| touched.contains(what));
        self.engines.retain(|id, _| present.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_begins_anew_after_it_was_left() {
        let mut notes = Notes::default();
        let none = BTreeSet::new();
        assert_eq!(notes.since("ready", Timestamp(1)), Timestamp(1));
        notes.settle(&none);
        assert_eq!(notes.since("ready", Timestamp(5)), Timestamp(1));
        notes.settle(&none);
        notes.settle(&none);
        assert_eq!(notes.since("ready", Timestamp(9)), Timestamp(9));
    }
}
