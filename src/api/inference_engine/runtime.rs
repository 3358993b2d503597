//! `spec.runtime`: the server that runs the model.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::model::SecretRef;
use crate::api::rules;
use crate::api::span::Span;

/// The server that runs the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = runtime_rules)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeSpec {
    /// `Native` (default): Enginewright's own server. `Image`: the container named in `image`, with
    /// the same health check, rollback and fallback.
    #[serde(rename = "type")]
    pub kind: RuntimeType,

    /// The container of `type: Image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<RuntimeImageSpec>,

    /// How long the server may take from its start to its first answer before it counts as failed.
    /// Default: `10m`; loading an 8B engine takes a Jetson about one.
    pub startup_deadline: Span<5_000, 7_200_000>,
}

impl Default for RuntimeSpec {
    fn default() -> Self {
        Self {
            kind: RuntimeType::Native,
            image: None,
            startup_deadline: Span::new("10m"),
        }
    }
}

/// Whose server runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RuntimeType {
    /// Enginewright's own.
    #[default]
    Native,
    /// Any container that serves the OpenAI API.
    Image,
}

/// A container that serves the OpenAI API. No pod template passes through: what can be said is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeImageSpec {
    /// The image, pinned by digest. It must be on the allow-list of the operator of the cluster.
    #[schemars(
        regex(
            pattern = "^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64}$"
        ),
        length(min = 74, max = 512)
    )]
    pub image: String,

    /// Replaces the image's entry point. At most 16. Default: the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub command: Vec<String>,

    /// Arguments. At most 64. `$(MODEL)` is the path of the model's files, `$(PORT)` the port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,

    /// Environment variables with plain values. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Port of the OpenAI API. Default: 8000.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Path that answers 200 when the server is up. Default: `/health`. It is only the first check;
    /// a real generation is the second.
    #[serde(default = "health_path")]
    #[schemars(regex(pattern = "^/[!-~]*$"), length(min = 1, max = 256))]
    pub health_path: String,

    /// What this server calls the model. Default: `model.servedName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub model_name: Option<String>,

    /// A Secret of type `kubernetes.io/dockerconfigjson` to pull the image with. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<SecretRef>,
}

fn port() -> u16 {
    8000
}

fn health_path() -> String {
    "/health".to_owned()
}

/// An environment variable with a plain value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    #[schemars(
        regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"),
        length(min = 1, max = 128)
    )]
    pub name: String,

    /// Value. Default: empty. Never a secret: anybody who can read this resource can read it.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

fn runtime_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "self.type != 'Image' || has(self.image)",
        "runtime.type Image needs a container; write runtime.image.image, pinned by digest, or \
         type: Native",
    );
    rules::add(
        schema,
        "self.type == 'Image' || !has(self.image)",
        "runtime.image is only used with runtime.type Image; write type: Image, or remove \
         runtime.image",
    );
}
