//! `spec.engine`: the TensorRT engine, its shape, and where it comes from.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::model::{SecretKeyRef, SecretRef};
use crate::api::rules;
use crate::api::size::ByteSize;
use crate::api::span::Span;

/// The TensorRT engine: its shape, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = engine_rules)]
#[serde(rename_all = "camelCase", default)]
pub struct EngineSpec {
    /// Number format of the weights. `Auto` (default): the most precise that fits the memory of the
    /// node together with the KV cache, and with which the memory's bandwidth allows the tokens per
    /// second of `objectives.tokensPerSecond` (15 where not set). `Fp16`: 2 bytes a weight. `Int8`:
    /// about 1. `Int4`: about 0.56, in groups of 128.
    pub precision: Precision,

    /// Longest prompt in tokens. Requests above it are refused with the numbers. Default: 3072.
    /// Prompt and answer together take KV cache memory for each slot.
    #[schemars(range(min = 16, max = 131_072))]
    pub max_input_tokens: u32,

    /// Longest answer in tokens. Default: 1024.
    #[schemars(range(min = 1, max = 131_072))]
    pub max_output_tokens: u32,

    /// Sequences generated at the same time. Default: 2, so that a health check never waits for a
    /// user's answer, nor a user's for another's. Each costs KV cache memory.
    #[schemars(range(min = 1, max = 64))]
    pub slots: u32,

    /// Where the engine may come from. `Auto` (default): the node's cache, then the registry, then
    /// built on the node. `FetchOnly`: never built. `BuildOnly`: never fetched. `Never`: no TensorRT
    /// engine; the fallback serves, or the CPU back end with `enginewright run`.
    pub policy: EnginePolicy,

    /// OCI registry in which engine bundles are looked up and to which they are pushed, so that
    /// equal nodes build once. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySpec>,

    /// Which fetched engines may run. An engine is native code.
    pub trust: TrustSpec,

    /// Limits of a build on the node.
    pub build: BuildSpec,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self {
            precision: Precision::Auto,
            max_input_tokens: 3072,
            max_output_tokens: 1024,
            slots: 2,
            policy: EnginePolicy::Auto,
            registry: None,
            trust: TrustSpec::default(),
            build: BuildSpec::default(),
        }
    }
}

/// Number format of an engine's weights.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Precision {
    /// The most precise that fits and is fast enough.
    #[default]
    Auto,
    /// 16-bit floating point: 2 bytes a weight.
    Fp16,
    /// 8-bit integers: about 1 byte a weight.
    Int8,
    /// 4-bit integers in groups of 128: about 0.56 bytes a weight.
    Int4,
}

/// Where an engine may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EnginePolicy {
    /// Cache, then registry, then build.
    #[default]
    Auto,
    /// Cache, then registry; never built.
    FetchOnly,
    /// Cache, then build; never fetched.
    BuildOnly,
    /// No TensorRT engine at all.
    Never,
}

/// An OCI registry for engine bundles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrySpec {
    /// Registry and repository without scheme or tag, for example `ghcr.io/acme/engines`. The
    /// engine key is the tag.
    #[schemars(
        regex(pattern = "^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+$"),
        length(min = 3, max = 255)
    )]
    pub repository: String,

    /// Push what was built here. Default: `true`.
    #[serde(default = "yes")]
    pub push: bool,

    /// Speak plain HTTP to the registry: only for one on the same trusted network. Default: `false`;
    /// there is no silent downgrade.
    #[serde(default)]
    pub plain_http: bool,

    /// A Secret of type `kubernetes.io/dockerconfigjson` in the same namespace. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretRef>,
}

fn yes() -> bool {
    true
}

/// Which fetched engines may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustSpec {
    /// Refuse fetched bundles that none of `publicKeys` signed. Default: `true`. What was built on
    /// the node itself needs no signature.
    pub require_signature: bool,

    /// Ed25519 public keys whose signatures count, at most 8: `ed25519:` and 44 characters of
    /// base64. Two at a time make rotation possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(regex(pattern = "^ed25519:[A-Za-z0-9+/]{43}=$"), length(max = 52))
    )]
    pub public_keys: Vec<String>,

    /// The Ed25519 private key (PKCS#8 PEM) that signs what is built here. Default: none, bundles
    /// are pushed unsigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretKeyRef>,
}

impl Default for TrustSpec {
    fn default() -> Self {
        Self {
            require_signature: true,
            public_keys: Vec::new(),
            signing_key: None,
        }
    }
}

/// Limits of a build on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BuildSpec {
    /// A fetch or build without progress (bytes or build steps) for this long has failed. Default:
    /// `15m`. A slow link or a big model is no failure as long as it moves.
    pub progress_deadline: Span<10_000, 86_400_000>,

    /// Most memory the build may take, for example `10Gi`. Default: what the node has left when the
    /// engine and the fallback keep theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<ByteSize>,
}

impl Default for BuildSpec {
    fn default() -> Self {
        Self {
            progress_deadline: Span::new("15m"),
            memory_limit: None,
        }
    }
}

fn engine_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "self.maxInputTokens + self.maxOutputTokens <= 131072",
        "maxInputTokens and maxOutputTokens are together at most 131072; write smaller ones, for \
         example maxInputTokens: 3072 and maxOutputTokens: 1024",
    );
    rules::add(
        schema,
        "(self.maxInputTokens + self.maxOutputTokens) * self.slots <= 1048576",
        "the KV cache holds slots × (maxInputTokens + maxOutputTokens), at most 1048576 tokens; \
         write fewer slots or smaller lengths",
    );
    rules::add(
        schema,
        "self.policy != 'FetchOnly' || has(self.registry)",
        "policy FetchOnly needs somewhere to fetch from; write engine.registry.repository, for \
         example ghcr.io/acme/engines, or policy: Auto",
    );
    rules::add(
        schema,
        "!has(self.registry) || self.policy in ['BuildOnly', 'Never'] || !self.trust.requireSignature || (has(self.trust.publicKeys) && size(self.trust.publicKeys) > 0)",
        "an engine fetched from a registry is native code and must be signed by a key you name; \
         write engine.trust.publicKeys, or requireSignature: false if everybody who can push there \
         may run code here",
    );
}
