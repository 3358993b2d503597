//! `spec.placement`: the nodes to serve on.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::api::rules;
use crate::api::size::ByteSize;

/// The nodes to serve on, and where on them the engine cache lies. Ignored by `enginewright run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacementSpec {
    /// Labels a node must have, at most 16. Default: none, every node with an NVIDIA GPU that an
    /// `EdgeNode` describes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), transform = label_bounds)]
    pub node_selector: BTreeMap<String, String>,

    /// Taints to tolerate, at most 16, besides not-ready and unreachable, which are always tolerated
    /// without limit: a device that lost its link keeps serving.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// `RuntimeClass` of the pods that use the GPU. Default: `nvidia`, as k3s creates it.
    #[schemars(
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        length(min = 1, max = 253)
    )]
    pub runtime_class_name: String,

    /// The engine cache: one volume per resource and node.
    pub cache: CacheSpec,
}

impl Default for PlacementSpec {
    fn default() -> Self {
        Self {
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            runtime_class_name: "nvidia".to_owned(),
            cache: CacheSpec::default(),
        }
    }
}

/// The engine cache: one volume per resource and node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheSpec {
    /// `StorageClass` of the volume. Default: the cluster's default, local-path on k3s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        length(min = 1, max = 253)
    )]
    pub storage_class_name: Option<String>,

    /// Size of the volume. Default: `24Gi`: the model, the engine in use and the last good one of an
    /// 8B model.
    pub size: ByteSize,
}

impl Default for CacheSpec {
    fn default() -> Self {
        Self {
            storage_class_name: None,
            size: ByteSize::new("24Gi"),
        }
    }
}

/// A taint to tolerate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = toleration_rules)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Key of the taint. Default: none, which with `operator: Exists` tolerates every taint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 316))]
    pub key: Option<String>,

    /// `Equal` (default): the value must be the same. `Exists`: any value.
    pub operator: TolerationOperator,

    /// Value of the taint, for `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// Effect of the taint: `NoSchedule`, `PreferNoSchedule` or `NoExecute`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The value must be the same.
    #[default]
    Equal,
    /// Any value.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away where possible.
    PreferNoSchedule,
    /// Running pods are evicted.
    NoExecute,
}

fn label_bounds(schema: &mut Schema) {
    rules::bound_strings(schema, "additionalProperties", 63);
}

fn toleration_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "self.operator != 'Exists' || !has(self.value)",
        "operator Exists takes any value; remove the toleration's value, or write operator: Equal",
    );
    rules::add(
        schema,
        "self.operator == 'Exists' || has(self.key)",
        "a toleration without a key tolerates every taint and needs operator Exists; write the \
         taint's key, or operator: Exists",
    );
}
