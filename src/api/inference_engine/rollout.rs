//! `spec.rollout`: how a new revision takes over.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::api::rules;
use crate::api::span::Span;

/// How a new revision takes over from the old one, and how often a failed one is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// `Auto` (default): `Surge` where the memory holds both, else `StopStart`, which is the case on
    /// a node with one GPU. `StopStart`: the old engine ends before the new one starts, the fallback
    /// answers meanwhile. `Surge`: the new one is proven beside the old.
    pub strategy: RolloutStrategy,

    /// How often a failed revision is tried again on a node before it stays quarantined. Default: 3.
    #[schemars(range(min = 0, max = 10))]
    pub retry_limit: u32,

    /// Time between two tries.
    pub backoff: BackoffSpec,

    /// Any change of this text lifts the quarantine of the failed revision once. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[!-~]+$"), length(min = 1, max = 64))]
    pub retry_token: Option<String>,

    /// How long running answers may take to end when their server is replaced. Default: `2m`; then
    /// the gateway continues them on the fallback.
    pub drain_timeout: Span<0, 3_600_000>,

    /// Nodes that change at the same time within a wave. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: u32,

    /// Waves of a fleet, first to last, at most 16: a wave starts when the one before is ready on all
    /// of its nodes and has soaked. Nodes of no wave come last. Default: none, one wave of all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub waves: Vec<WaveSpec>,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::Auto,
            retry_limit: 3,
            backoff: BackoffSpec::default(),
            retry_token: None,
            drain_timeout: Span::new("2m"),
            max_unavailable: 1,
            waves: Vec::new(),
        }
    }
}

/// How a new engine takes over from the old one on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    /// `Surge` where the memory holds both, else `StopStart`.
    #[default]
    Auto,
    /// The old one ends before the new one starts.
    StopStart,
    /// The new one is proven beside the old.
    Surge,
}

/// Time between two tries of a failed revision: doubled each time, up to a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = backoff_rules)]
#[serde(rename_all = "camelCase", default)]
pub struct BackoffSpec {
    /// Time before the first retry. Default: `1m`.
    pub initial: Span<100, 86_400_000>,

    /// Longest time between two tries. Default: `1h`.
    pub max: Span<100, 604_800_000>,
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self {
            initial: Span::new("1m"),
            max: Span::new("1h"),
        }
    }
}

/// A wave of a rollout over a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveSpec {
    /// Name of the wave.
    #[schemars(
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        length(min = 1, max = 63)
    )]
    pub name: String,

    /// Labels of the wave's nodes, at most 16.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16), transform = label_bounds)]
    pub node_selector: BTreeMap<String, String>,

    /// How long the wave must stay ready before the next one starts. Default: `0s`, which is after
    /// `health.soak` on its last node.
    #[serde(default = "no_pause")]
    pub pause: Span<0, 604_800_000>,
}

fn no_pause() -> Span<0, 604_800_000> {
    Span::new("0s")
}

fn label_bounds(schema: &mut Schema) {
    rules::bound_strings(schema, "additionalProperties", 63);
}

fn backoff_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "duration(self.initial) <= duration(self.max)",
        "backoff.initial is at most backoff.max; write for example initial: 1m and max: 1h",
    );
}
