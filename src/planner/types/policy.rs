//! The user's wishes about *how* to roll out, watch and fall back, resolved to plain numbers. The
//! shell fills it from the validated resource; changing any of it is a new generation, and only a
//! change of *what* is served is a new revision.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the planner may behave. Filled by the shell from the spec at every observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `spec.rollout.strategy`.
    pub strategy: Strategy,
    /// `spec.rollout.retryLimit`: attempts after the first failed one, per revision, generation and
    /// retry token. 0 means that one failure is final.
    pub retry_limit: u32,
    /// `spec.rollout.backoff`: wait before a further attempt of a revision that failed, and between
    /// retries of transfers, of the gateway and of the fallback.
    pub backoff: Backoff,
    /// Wait before a promoted engine whose process ended is started again.
    pub restart: Backoff,
    /// Ends of a promoted engine's process that together are a crash loop: the last of them fails
    /// the attempt. At least 1.
    pub crash_limit: u32,
    /// Starts of one attempt that may vanish without a verdict (power cut, the shell killed) before
    /// the revision is held to be what kills the machine. At least 1.
    pub start_limit: u32,
    /// Uninterrupted healthy service after which a revision's crashes and failed attempts are
    /// forgiven, so that one bad day a month never adds up to a stall.
    pub forgive_after: Duration,
    /// `spec.health.probeInterval`.
    pub probe_interval: Duration,
    /// `spec.health.failureThreshold`: consecutive failed (or too slow) real generations that fail
    /// a promoted engine. At least 1.
    pub failure_threshold: u32,
    /// `spec.health.soak`: healthy service after promotion before a revision is the last good one.
    pub soak: Duration,
    /// Longest time without progress of a transfer, build, verification or engine start.
    pub progress_deadline: Duration,
    /// Longest time one proof may take before it is ordered anew; also the wait between proofs that
    /// could not measure.
    pub proof_deadline: Duration,
    /// How long the first engine start waits for the fallback to come up first.
    pub answer_grace: Duration,
    /// Whether the spec names objectives: without them a good smoke generation alone proves.
    pub has_objectives: bool,
    /// `spec.engine.policy`: where an engine bundle may come from.
    pub bundle: BundlePolicy,
    /// `spec.fallback`; `None` when the user wants no fallback.
    pub fallback: Option<Fallback>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Surge,
            retry_limit: 3,
            backoff: Backoff {
                initial: Duration::from_secs(30),
                max: Duration::from_secs(600),
            },
            restart: Backoff {
                initial: Duration::from_secs(1),
                max: Duration::from_secs(60),
            },
            crash_limit: 3,
            start_limit: 3,
            forgive_after: Duration::from_secs(24 * 3600),
            probe_interval: Duration::from_secs(10),
            failure_threshold: 3,
            soak: Duration::from_secs(60),
            progress_deadline: Duration::from_secs(300),
            proof_deadline: Duration::from_secs(120),
            answer_grace: Duration::from_secs(30),
            has_objectives: false,
            bundle: BundlePolicy::Auto,
            fallback: None,
        }
    }
}

/// How a new revision replaces a running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Proven beside the old one where both fit into memory, else as [`Strategy::StopStart`].
    Surge,
    /// The old one is stopped first; the fallback answers meanwhile.
    StopStart,
}

/// Exponential backoff without jitter (a device has no herd; a fleet's shell may add its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Wait after the first failure.
    pub initial: Duration,
    /// Upper bound.
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `failures`-th failure (1-based): `initial * 2^(failures-1)`, at most `max`.
    pub fn after(self, failures: u32) -> Duration {
        let factor = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.max)
    }
}

/// Where an engine bundle may come from. Revisions that run from the model file alone
/// ([`super::BuildNeed::None`]) do not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BundlePolicy {
    /// Cache, registry, else build.
    Auto,
    /// Cache or registry only.
    FetchOnly,
    /// Cache or build only.
    BuildOnly,
    /// What is in the cache, or nothing.
    Never,
}

/// The back end that answers when no engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// `true`: ours to start and stop. `false`: an address, always counted as running elsewhere.
    pub managed: bool,
    /// Memory of this node it needs while its model is loaded; 0 for an address.
    pub memory_bytes: u64,
    /// When a managed fallback may hold that memory.
    pub residency: Residency,
}

/// When a managed fallback may hold memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Residency {
    /// Always: an engine that does not fit beside it is refused, with the numbers.
    Warm,
    /// Beside the engine where both fit; else it makes room before the engine starts (the endpoint
    /// is dark while the engine loads) and comes back when the engine is gone.
    Standby,
    /// As `Standby`, and also gives its memory back once an engine serves.
    Cold,
}
