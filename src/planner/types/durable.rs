//! What must survive a restart because it cannot be observed again, and what may be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Failure, InstanceId, Timestamp, Work};
use crate::api::{Reason, RevisionId};

/// Version of [`Durable`]'s serialised form. A shell that reads a newer one must refuse to start.
pub const SCHEMA_VERSION: u32 = 1;

/// What must survive a restart. The shell persists `Plan::durable` *before* it performs any action
/// of that plan (intent before effect), atomically; when it cannot, it performs none. No times: a
/// device may have lost its clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// [`SCHEMA_VERSION`] at the time of writing.
    pub version: u32,
    /// Newest generation a plan was made for. Never goes back.
    pub observed_generation: u64,
    /// Digest of that generation's spec, see [`Durable::generation_of`].
    pub spec_digest: String,
    /// The next [`InstanceId`] to give away.
    pub next_instance: u64,
    /// The revision the gateway was last told to serve first; `None` before the first promotion.
    pub active: Option<RevisionId>,
    /// The revision that last passed proof *and* soak. Never unset, replaced only by another.
    pub last_good: Option<RevisionId>,
    /// What happened to revisions, newest last, at most [`Durable::LEDGER_LIMIT`].
    pub ledger: Vec<Ledger>,
    /// Instances still around whose end or failure is already in the ledger, so that a restart
    /// between persisting and acting counts nothing twice.
    pub settled: Vec<InstanceId>,
}

impl Default for Durable {
    fn default() -> Self {
        Self {
            version: SCHEMA_VERSION,
            observed_generation: 0,
            spec_digest: String::new(),
            next_instance: 1,
            active: None,
            last_good: None,
            ledger: Vec::new(),
            settled: Vec::new(),
        }
    }
}

impl Durable {
    /// Most ledger entries kept.
    pub const LEDGER_LIMIT: usize = 8;

    /// The generation of a spec with this digest, for shells without an API server: the one last
    /// seen when nothing changed, else the next.
    pub fn generation_of(&self, spec_digest: &str) -> u64 {
        if self.observed_generation > 0 && self.spec_digest == spec_digest {
            self.observed_generation
        } else {
            self.observed_generation.saturating_add(1)
        }
    }

    /// The ledger entry of a revision, of whatever generation.
    pub fn entry(&self, revision: &RevisionId) -> Option<&Ledger> {
        self.ledger.iter().find(|entry| entry.revision == *revision)
    }
}

/// What a revision has on its account. In force only for the generation and retry token it was
/// written under: a changed spec or token starts a clean page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Whose.
    pub revision: RevisionId,
    /// Generation the counters belong to.
    pub generation: u64,
    /// Retry token the counters belong to.
    pub retry_token: Option<String>,
    /// Attempts that failed.
    pub attempts: u32,
    /// Ends of the process while promoted in this attempt.
    pub crashes: u32,
    /// Starts in this attempt that have no verdict yet.
    pub starts: u32,
    /// The last failure, kept for the status also when the counters start anew.
    pub failure: Option<DurableFailure>,
}

impl Ledger {
    /// A page that no generation has written on yet.
    pub const fn new(revision: RevisionId) -> Self {
        Self {
            revision,
            generation: 0,
            retry_token: None,
            attempts: 0,
            crashes: 0,
            starts: 0,
            failure: None,
        }
    }
}

/// What is remembered of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurableFailure {
    /// Stable CamelCase word.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// Of the process, where it ended.
    pub exit_code: Option<i32>,
}

impl From<&Failure> for DurableFailure {
    fn from(failure: &Failure) -> Self {
        Self {
            reason: failure.reason,
            message: failure.message.clone(),
            exit_code: failure.exit_code,
        }
    }
}

/// What the planner remembers between two plans of one life of the shell: only times and retry
/// counts, whose loss makes it wait again from the beginning and breaks nothing. The shell hands it
/// back as it got it and never persists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When the last failed attempt of a revision ended: its backoff counts from here.
    pub failed_at: BTreeMap<RevisionId, Timestamp>,
    /// When the process of a revision last ended while promoted: its restart wait counts from here.
    pub crashed_at: BTreeMap<RevisionId, Timestamp>,
    /// Work ordered or seen running whose failure has not been looked at yet.
    pub begun: BTreeSet<(RevisionId, Work)>,
    /// Consecutive retries of work and services, by name.
    pub retries: BTreeMap<String, u32>,
}
