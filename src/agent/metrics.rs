//! What the agent counts and measures. What changes by itself is here and not in a status.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::decide::{Host, WriteKind};
use crate::server::admin::Report;
use crate::telemetry::metrics_text;

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// All is published.
    Published,
    /// The node has another name.
    NoSuchNode,
    /// The API server refused.
    Forbidden,
    /// The API server failed.
    ApiError,
    /// The API server did not answer.
    TimedOut,
    /// The probe was lost.
    ProbeFailed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoundLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    object: WriteKind,
}

impl EncodeLabelValue for WriteKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Failed rounds in a row after which the agent is no longer ready.
const UNREADY_AFTER: u64 = 3;

/// The metrics, and whether the agent is ready.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rounds: Family<RoundLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    free_disk: Gauge,
    memory_available: Gauge,
    /// Failed rounds in a row; more than any before the first good one.
    failures: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("enginewright_agent");
        let rounds = Family::<RoundLabels, Counter>::default();
        let writes = Family::<WriteLabels, Counter>::default();
        let (free_disk, memory_available) = (Gauge::default(), Gauge::default());
        registry.register("rounds", "Looks at the node, by outcome", rounds.clone());
        registry.register("writes", "Writes to the API server", writes.clone());
        registry.register_with_unit(
            "free_disk",
            "Free space of the file system with the engine caches",
            Unit::Bytes,
            free_disk.clone(),
        );
        registry.register_with_unit(
            "memory_available",
            "Memory that could be had without swapping",
            Unit::Bytes,
            memory_available.clone(),
        );
        Self {
            registry,
            rounds,
            writes,
            free_disk,
            memory_available,
            failures: AtomicU64::new(u64::MAX),
        }
    }
}

impl Metrics {
    /// A round ended.
    pub fn round(&self, outcome: Outcome) {
        self.rounds.get_or_create(&RoundLabels { outcome }).inc();
        if outcome == Outcome::Published {
            self.failures.store(0, Ordering::Relaxed);
        } else {
            let more = |failures: u64| Some(failures.saturating_add(1));
            let _always = self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Something was written.
    pub fn wrote(&self, object: WriteKind) {
        self.writes.get_or_create(&WriteLabels { object }).inc();
    }

    /// The machine was looked at.
    pub fn seen(&self, host: &Host) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(free) = host.free_disk {
            self.free_disk.set(bytes(free.0));
        }
        if let Some(available) = host.hardware.memory.available {
            self.memory_available.set(bytes(available.0));
        }
    }
}

impl Report for Metrics {
    fn unready(&self) -> Option<String> {
        match self.failures.load(Ordering::Relaxed) {
            u64::MAX => Some("the node has not been published yet".to_owned()),
            failures if failures >= UNREADY_AFTER => {
                Some(format!("{failures} looks in a row were not published"))
            }
            _ => None,
        }
    }

    fn metrics(&self) -> String {
        metrics_text(&self.registry)
    }
}
