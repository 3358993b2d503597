//! `spec.objectives` and `spec.health`: when an engine is good enough, and how that is watched.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::api::rules;
use crate::api::span::Span;

/// What the engine must reach to be promoted, and to stay promoted. Unset: not demanded.
/// Measured-bad is a failure; could-not-measure is not. Slow because hot or because of the power
/// mode is reported, not punished.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectivesSpec {
    /// Longest median time to the first token of the proof's requests, for example `500ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<Span<1, 600_000>>,

    /// Longest median time of a whole answer of the proof's requests, for example `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<Span<1, 3_600_000>>,

    /// Fewest tokens a second of one stream after its first token, median of the proof's requests,
    /// for example 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub tokens_per_second: Option<f64>,

    /// Smallest share of right tool calls in the tool-calling suite, from 0 to 1, for example 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub tool_call_accuracy: Option<f64>,
}

/// How often and how patiently the engine is checked. A check is a real generation: a 200 from
/// `/healthz` with dead generation is a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = health_rules)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthSpec {
    /// Time between two checks. Default: `10s`.
    pub probe_interval: Span<500, 3_600_000>,

    /// How long one check may take before it counts as failed. Default: `30s`.
    pub probe_timeout: Span<500, 600_000>,

    /// Failed checks in a row after which the engine is rolled back. Default: 3. Single requests
    /// do not wait for that: the gateway sends a failed one to the fallback at once.
    #[schemars(range(min = 1, max = 20))]
    pub failure_threshold: u32,

    /// How long a promoted engine must stay healthy before it becomes the last good one. Default:
    /// `2m`; `0s` trusts the proof alone.
    pub soak: Span<0, 86_400_000>,

    /// The gateway sends a request to the fallback when its first token takes longer than this.
    /// Default: `30s`; a cold prompt of 3,000 tokens takes an 8B model on an Orin NX about 6.
    pub first_token_timeout: Span<100, 600_000>,

    /// The gateway continues an answer on the fallback when the engine sends nothing for this long
    /// in the middle of it. Default: `10s`.
    pub stall_timeout: Span<100, 600_000>,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            probe_interval: Span::new("10s"),
            probe_timeout: Span::new("30s"),
            failure_threshold: 3,
            soak: Span::new("2m"),
            first_token_timeout: Span::new("30s"),
            stall_timeout: Span::new("10s"),
        }
    }
}

fn health_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "duration(self.soak) == duration('0s') || duration(self.soak) >= duration(self.probeInterval)",
        "health.soak is 0s or at least one probeInterval, else nothing is checked in it; write for \
         example soak: 2m with probeInterval: 10s",
    );
}
