//! The user's wishes about *how* to roll out, watch and fall back, resolved to plain numbers. The
//! shell fills it from the validated resource; changing any of it is a new generation, and only a
//! change of *what* is served is a new revision.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{
    EnginePolicy, FallbackBackend, Objectives, Ollama, Residency, RolloutStrategy, ValidatedEngine,
};

/// Waits between two starts of an engine that crashes.
const RESTART: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(30),
};

/// How the planner may behave. Filled by the shell from the spec at every observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `spec.rollout.strategy`. `Auto` and `Surge` prove the new revision beside the old one where
    /// memory allows; where it does not, and with `StopStart`, the old one ends first, behind the
    /// fallback.
    pub strategy: RolloutStrategy,
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
    /// `spec.runtime.startupDeadline`: from the start of an engine to its readiness.
    pub startup_deadline: Duration,
    /// `spec.engine.build.progressDeadline`: longest time without progress of a transfer, build or
    /// verification.
    pub progress_deadline: Duration,
    /// Longest time one proof may take before it is ordered anew; also the wait between proofs that
    /// could not measure.
    pub proof_deadline: Duration,
    /// How long the first engine start waits for the fallback to come up first.
    pub answer_grace: Duration,
    /// Whether the spec names objectives: without them a good smoke generation alone proves.
    pub has_objectives: bool,
    /// `spec.engine.policy`: where an engine bundle may come from. Revisions that run from the model
    /// alone ([`super::BuildNeed::None`]) do not care.
    pub bundle: EnginePolicy,
    /// Where `LastGood` stands in `spec.fallback.order`.
    pub last_good: LastGoodUse,
    /// Ollama; `None` when it is not in `spec.fallback.order`.
    pub fallback: Option<Fallback>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::Auto,
            retry_limit: 3,
            backoff: Backoff {
                initial: Duration::from_mins(1),
                max: Duration::from_hours(1),
            },
            restart: Backoff {
                initial: Duration::from_secs(1),
                max: Duration::from_mins(1),
            },
            crash_limit: 3,
            start_limit: 3,
            forgive_after: Duration::from_hours(24),
            probe_interval: Duration::from_secs(10),
            failure_threshold: 3,
            soak: Duration::from_mins(2),
            startup_deadline: Duration::from_mins(10),
            progress_deadline: Duration::from_mins(10),
            proof_deadline: Duration::from_mins(2),
            answer_grace: Duration::from_secs(30),
            has_objectives: false,
            bundle: EnginePolicy::Auto,
            last_good: LastGoodUse::First,
            fallback: None,
        }
    }
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

/// Ollama as the fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// `true`: ours to start and stop. `false`: an address, always counted as running elsewhere.
    pub managed: bool,
    /// Memory of this node it needs while its model is loaded; 0 for an address.
    pub memory_bytes: u64,
    /// What a managed fallback does while the engine serves. Where both fit into memory, `Warm` and
    /// `Standby` stay up, `Cold` is parked. Where they do not, each is parked before the engine
    /// loads; the endpoint is dark until the engine is proven or the fallback is back.
    pub residency: Residency,
}

/// Whether the last good revision takes over when the desired one has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LastGoodUse {
    /// It comes first in `fallback.order`.
    First,
    /// It comes after Ollama: only while the fallback has failed.
    AfterFallback,
    /// It is not in `fallback.order`.
    Never,
}

impl Policy {
    /// The policy of a resource. `fallback_bytes`: memory of the loaded fallback.
    pub fn of(engine: &ValidatedEngine, fallback_bytes: u64) -> Self {
        let fallback = engine.fallback.ollama.as_ref().map(|ollama| match ollama {
            Ollama::Managed { .. } => Fallback {
                managed: true,
                memory_bytes: fallback_bytes,
                residency: engine.fallback.residency,
            },
            Ollama::External { .. } => Fallback {
                managed: false,
                memory_bytes: 0,
                residency: engine.fallback.residency,
            },
        });
        Self {
            strategy: engine.rollout.strategy,
            retry_limit: engine.rollout.retry_limit,
            backoff: Backoff {
                initial: engine.rollout.backoff_initial,
                max: engine.rollout.backoff_max,
            },
            restart: RESTART,
            probe_interval: engine.health.probe_interval,
            failure_threshold: engine.health.failure_threshold,
            soak: engine.health.soak,
            startup_deadline: engine.runtime.startup_deadline,
            progress_deadline: engine.engine.progress_deadline,
            has_objectives: engine.objectives != Objectives::default(),
            bundle: engine.engine.policy,
            last_good: last_good(&engine.fallback.order),
            fallback,
            ..Self::default()
        }
    }
}

fn last_good(order: &[FallbackBackend]) -> LastGoodUse {
    let place = |wanted| order.iter().position(|backend| *backend == wanted);
    match (
        place(FallbackBackend::LastGood),
        place(FallbackBackend::Ollama),
    ) {
        (None, _) => LastGoodUse::Never,
        (Some(own), Some(ollama)) if ollama < own => LastGoodUse::AfterFallback,
        (Some(_), _) => LastGoodUse::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fallbacks_decides_when_the_last_good_engine_is_used() {
        use FallbackBackend::{LastGood, Ollama};
        assert_eq!(last_good(&[LastGood, Ollama]), LastGoodUse::First);
        assert_eq!(last_good(&[LastGood]), LastGoodUse::First);
        assert_eq!(last_good(&[Ollama, LastGood]), LastGoodUse::AfterFallback);
        assert_eq!(last_good(&[Ollama]), LastGoodUse::Never);
        assert_eq!(last_good(&[]), LastGoodUse::Never);
    }
}
