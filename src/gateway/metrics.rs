//! What the gateway counts. Labels come from fixed sets.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::telemetry::metrics_text;

/// Which API, how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// The API.
    pub api: &'static str,
    /// `ok`, `resumed`, `refused`, `unavailable`, `broken` (an error event ended it), `gone` (the
    /// client went away).
    pub outcome: &'static str,
}

/// Which upstream, why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FailureLabels {
    /// `primary` or `fallback`.
    pub upstream: &'static str,
    /// See `Failure::class`.
    pub class: &'static str,
}

/// Which upstream.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// `primary` or `fallback`.
    pub upstream: &'static str,
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    continuations: Counter,
    first_token: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    breaker: Family<UpstreamLabels, Gauge>,
    routes: Gauge,
    routes_refused: Counter,
}

fn seconds() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("enginewright_gateway");
        let metrics = Self {
            requests: Family::default(),
            failures: Family::default(),
            continuations: Counter::default(),
            first_token: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            breaker: Family::default(),
            routes: Gauge::default(),
            routes_refused: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Generation requests by end",
            metrics.requests.clone(),
        );
        registry.register(
            "upstream_failures",
            "Requests an upstream failed",
            metrics.failures.clone(),
        );
        registry.register(
            "continuations",
            "Streams continued by another upstream after their first token",
            metrics.continuations.clone(),
        );
        registry.register_with_unit(
            "first_token",
            "Request to first token, failovers included",
            Unit::Seconds,
            metrics.first_token.clone(),
        );
        registry.register(
            "in_flight",
            "Generation requests running",
            metrics.in_flight.clone(),
        );
        registry.register(
            "breaker_open",
            "0 closed, 1 half open, 2 open",
            metrics.breaker.clone(),
        );
        registry.register(
            "routes_generation",
            "Route table in force",
            metrics.routes.clone(),
        );
        registry.register(
            "routes_refused",
            "Route files that could not be used",
            metrics.routes_refused.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// A request ended.
    pub fn ended(&self, api: &'static str, outcome: &'static str) {
        self.requests
            .get_or_create(&RequestLabels { api, outcome })
            .inc();
    }

    /// An upstream failed a request.
    pub fn failed(&self, upstream: &'static str, class: &'static str) {
        self.failures
            .get_or_create(&FailureLabels { upstream, class })
            .inc();
    }

    /// A stream was continued.
    pub fn continued(&self) {
        self.continuations.inc();
    }

    /// The client got its first token.
    pub fn first_token(&self, upstream: &'static str, after: Duration) {
        self.first_token
            .get_or_create(&UpstreamLabels { upstream })
            .observe(after.as_secs_f64());
    }

    /// A request began (1) or ended (-1).
    pub fn in_flight(&self, change: i64) {
        self.in_flight.inc_by(change);
    }

    /// Requests running.
    pub fn running(&self) -> i64 {
        self.in_flight.get()
    }

    /// The state of a breaker.
    pub fn breaker(&self, upstream: &'static str, level: i64) {
        self.breaker
            .get_or_create(&UpstreamLabels { upstream })
            .set(level);
    }

    /// The route table in force.
    pub fn routes(&self, generation: u64) {
        self.routes
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// A route file was refused.
    pub fn routes_refused(&self) {
        self.routes_refused.inc();
    }

    /// The exposition format of `OpenMetrics`.
    pub fn text(&self) -> String {
        metrics_text(&self.registry)
    }
}
