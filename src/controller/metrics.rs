//! What the operator counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::server::admin::Report;
use crate::telemetry::metrics_text;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    writes: Family<Write, Counter>,
    reconciliations: Family<Outcome, Counter>,
    seconds: Histogram,
    leading: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("enginewright_operator");
        let writes = Family::default();
        let reconciliations = Family::default();
        let steps = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];
        let seconds = Histogram::new(steps);
        let leading = Gauge::default();
        registry.register(
            "writes",
            "Writes to the API server by verb and kind",
            Family::clone(&writes),
        );
        registry.register(
            "reconciliations",
            "Reconciliations by result",
            Family::clone(&reconciliations),
        );
        registry.register(
            "reconciliation_seconds",
            "How long a reconciliation took",
            seconds.clone(),
        );
        registry.register(
            "leading",
            "1 while this operator leads",
            Gauge::clone(&leading),
        );
        Self {
            registry,
            writes,
            reconciliations,
            seconds,
            leading,
        }
    }
}

impl Metrics {
    /// Something is written.
    pub fn write(&self, verb: &'static str, kind: &str) {
        let kind = kind.to_owned();
        self.writes.get_or_create(&Write { verb, kind }).inc();
    }

    /// A reconciliation came to its end.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciliations
            .get_or_create(&Outcome { result })
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Whether this operator leads.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}

impl Report for Metrics {
    fn unready(&self) -> Option<String> {
        let leads = self.leading.get() == 1;
        (!leads).then(|| "another operator leads, or the API server cannot be reached".to_owned())
    }

    fn metrics(&self) -> String {
        metrics_text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_verb_and_kind() {
        let metrics = Metrics::default();
        metrics.write("apply", "Deployment");
        metrics.write("apply", "Deployment");
        let text = metrics.metrics();
        let line = "enginewright_operator_writes_total{verb=\"apply\",kind=\"Deployment\"} 2";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn only_the_operator_that_leads_is_ready() {
        let metrics = Metrics::default();
        assert!(metrics.unready().is_some());
        metrics.leading(true);
        assert_eq!(metrics.unready(), None);
        metrics.leading(false);
        assert!(metrics.unready().is_some());
    }
}
