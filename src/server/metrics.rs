//! What `/metrics` says. All label sets are static: nothing a client sends becomes a label.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::generation::{FinishReason, Timings, Usage};
use super::worker::{EngineObserver, Outcome, StepReport};
use crate::telemetry::metrics_text;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: OutcomeLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum OutcomeLabel {
    Stop,
    Length,
    Cancelled,
    Failed,
}

/// The counters of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    answers: Family<OutcomeLabels, Counter>,
    first_token: Histogram,
    inter_token: Histogram,
    queue: Histogram,
    step: Histogram,
    prompt_tokens: Counter,
    reused_tokens: Counter,
    generated_tokens: Counter,
    busy_seconds: Counter<f64, AtomicU64>,
    slots: Gauge,
    slots_busy: Gauge,
    waiting: Gauge,
    connections: Gauge,
    ready: Gauge,
}

fn seconds(start: f64, count: u16) -> Histogram {
    Histogram::new(exponential_buckets(start, 2.0, count))
}

impl Metrics {
    /// All at zero, labelled with the back end.
    pub fn new(backend: &'static str) -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            answers: Family::default(),
            first_token: seconds(0.005, 15),
            inter_token: seconds(0.001, 14),
            queue: seconds(0.0005, 16),
            step: seconds(0.0005, 14),
            prompt_tokens: Counter::default(),
            reused_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            busy_seconds: Counter::default(),
            slots: Gauge::default(),
            slots_busy: Gauge::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            ready: Gauge::default(),
        };
        let mut registry = Registry::with_prefix_and_labels(
            "enginewright",
            std::iter::once(("backend".into(), backend.into())),
        );
        metrics.register(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "HTTP requests by route and status",
            self.requests.clone(),
        );
        registry.register("answers", "Answers by how they ended", self.answers.clone());
        registry.register(
            "time_to_first_token_seconds",
            "From submission to the first token",
            self.first_token.clone(),
        );
        registry.register(
            "inter_token_seconds",
            "From one token of an answer to its next",
            self.inter_token.clone(),
        );
        registry.register(
            "queue_seconds",
            "From submission to a slot",
            self.queue.clone(),
        );
        registry.register("step_seconds", "One call of the device", self.step.clone());
        registry.register(
            "prompt_tokens",
            "Prompt tokens taken in",
            self.prompt_tokens.clone(),
        );
        registry.register(
            "reused_tokens",
            "Prompt tokens whose KV rows were reused",
            self.reused_tokens.clone(),
        );
        registry.register(
            "generated_tokens",
            "Tokens generated",
            self.generated_tokens.clone(),
        );
        registry.register(
            "busy_seconds",
            "Time the device was at work",
            self.busy_seconds.clone(),
        );
        registry.register("slots", "Concurrent sequences", self.slots.clone());
        registry.register(
            "slots_busy",
            "Slots that serve a request",
            self.slots_busy.clone(),
        );
        registry.register(
            "waiting",
            "Requests that wait for a slot",
            self.waiting.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("ready", "1 when requests are welcome", self.ready.clone());
    }

    /// Counts an answered HTTP request.
    pub fn request(&self, route: &'static str, code: u16) {
        self.requests
            .get_or_create(&RequestLabels { route, code })
            .inc();
    }

    /// Takes the gauges that are read when somebody looks.
    pub fn look(&self, slots: u32, busy: u32, waiting: u32, connections: usize, ready: bool) {
        self.slots.set(slots.into());
        self.slots_busy.set(busy.into());
        self.waiting.set(waiting.into());
        self.connections
            .set(i64::try_from(connections).unwrap_or(i64::MAX));
        self.ready.set(ready.into());
    }

    /// The text of `/metrics`, in the `OpenMetrics` format.
    pub fn encode(&self) -> String {
        metrics_text(&self.registry)
    }
}

impl EngineObserver for Metrics {
    fn started(&self, queue: Duration, prompt_tokens: u32, reused_tokens: u32) {
        self.queue.observe(queue.as_secs_f64());
        self.prompt_tokens.inc_by(prompt_tokens.into());
        self.reused_tokens.inc_by(reused_tokens.into());
    }

    fn first_token(&self, since_submit: Duration) {
        self.first_token.observe(since_submit.as_secs_f64());
        self.generated_tokens.inc();
    }

    fn next_token(&self, gap: Duration) {
        self.inter_token.observe(gap.as_secs_f64());
        self.generated_tokens.inc();
    }

    fn ended(&self, outcome: Outcome, _usage: Usage, _timings: Timings) {
        let outcome = match outcome {
            Outcome::Finished(FinishReason::Stop) => OutcomeLabel::Stop,
            Outcome::Finished(FinishReason::Length) => OutcomeLabel::Length,
            Outcome::Cancelled => OutcomeLabel::Cancelled,
            Outcome::Failed => OutcomeLabel::Failed,
        };
        self.answers.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn step(&self, report: StepReport) {
        self.step.observe(report.duration.as_secs_f64());
        self.busy_seconds.inc_by(report.duration.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_observed_is_written_with_the_back_end() {
        let metrics = Metrics::new("Cpu");
        metrics.request("/v1/models", 200);
        metrics.started(Duration::from_millis(2), 10, 4);
        metrics.first_token(Duration::from_millis(80));
        metrics.next_token(Duration::from_millis(10));
        let outcome = Outcome::Finished(FinishReason::Stop);
        metrics.ended(outcome, Usage::default(), Timings::default());
        let text = metrics.encode();
        for line in [
            "enginewright_http_requests_total{backend=\"Cpu\",route=\"/v1/models\",code=\"200\"} 1",
            "enginewright_prompt_tokens_total{backend=\"Cpu\"} 10",
            "enginewright_reused_tokens_total{backend=\"Cpu\"} 4",
            "enginewright_generated_tokens_total{backend=\"Cpu\"} 2",
            "enginewright_time_to_first_token_seconds_count{backend=\"Cpu\"} 1",
            "enginewright_inter_token_seconds_count{backend=\"Cpu\"} 1",
            "enginewright_answers_total{backend=\"Cpu\",outcome=\"Stop\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
