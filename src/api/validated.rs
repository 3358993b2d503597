//! A spec whose values were checked, together too: what every layer behind the edge works with.
//! After this, nobody digs in options or parses text again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::inference_engine::{
    EnginePolicy, EnvVar, FallbackBackend, Precision, Residency, RolloutStrategy, SecretKeyRef,
    SecretRef, Toleration,
};
use super::names::{Name, RevisionId, Sha256Hex};
use super::source::ModelSource;

/// An `InferenceEngine` whose values were checked. Made by [`crate::api::parse`] and
/// [`crate::api::validate`].
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedEngine {
    /// `metadata.name`.
    pub name: Name,
    /// `metadata.namespace`, `default` where none is written.
    pub namespace: String,
    /// `metadata.generation`; absent outside a cluster.
    pub generation: Option<i64>,
    /// The model.
    pub model: Model,
    /// What clients write as `model`.
    pub served_name: String,
    /// The engine.
    pub engine: Engine,
    /// The server that runs the model.
    pub runtime: Runtime,
    /// The nodes.
    pub placement: Placement,
    /// What the engine must reach.
    pub objectives: Objectives,
    /// How it is watched.
    pub health: Health,
    /// What answers while it does not.
    pub fallback: Fallback,
    /// How a new revision takes over.
    pub rollout: Rollout,
    /// Stop everything.
    pub suspend: bool,
}

/// `spec.model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Where it comes from.
    pub source: ModelSource,
    /// Digest of the file, where one was written.
    pub sha256: Option<Sha256Hex>,
    /// Stands in for the source's own server; without a slash at its end.
    pub endpoint: Option<String>,
    /// A Secret for the source.
    pub credentials: Option<SecretRef>,
}

/// `spec.engine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Number format of the weights.
    pub precision: Precision,
    /// Longest prompt, tokens.
    pub max_input_tokens: u32,
    /// Longest answer, tokens.
    pub max_output_tokens: u32,
    /// Sequences at the same time.
    pub slots: u32,
    /// Where the engine may come from.
    pub policy: EnginePolicy,
    /// Where bundles are looked up and pushed.
    pub registry: Option<Registry>,
    /// Which fetched engines may run.
    pub trust: Trust,
    /// A build or fetch without progress for this long has failed.
    pub progress_deadline: Duration,
    /// Most memory of a build, bytes.
    pub build_memory_limit: Option<u64>,
}

impl Engine {
    /// Tokens of one slot: prompt and answer together.
    pub fn context_tokens(&self) -> u32 {
        self.max_input_tokens.saturating_add(self.max_output_tokens)
    }
}

/// `spec.engine.registry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// `registry/repository`.
    pub repository: String,
    /// Push what was built here.
    pub push: bool,
    /// Speak plain HTTP.
    pub plain_http: bool,
    /// A Secret with the credentials.
    pub credentials: Option<SecretRef>,
}

/// `spec.engine.trust`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Refuse fetched bundles that no trusted key signed.
    pub require_signature: bool,
    /// Trusted keys, `ed25519:` and base64.
    pub public_keys: Vec<String>,
    /// The key that signs what is built here.
    pub signing_key: Option<SecretKeyRef>,
}

/// `spec.runtime`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Whose server.
    pub server: RuntimeServer,
    /// From start to first answer.
    pub startup_deadline: Duration,
}

/// Whose server runs the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeServer {
    /// Enginewright's own.
    Native,
    /// A container that serves the OpenAI API.
    Image(RuntimeImage),
}

/// `spec.runtime.image`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The image with its digest.
    pub image: String,
    /// Entry point; empty: the image's own.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Port of the API.
    pub port: u16,
    /// Path that answers 200.
    pub health_path: String,
    /// What this server calls the model.
    pub model_name: String,
    /// A Secret to pull with.
    pub pull_secret: Option<SecretRef>,
}

/// `spec.placement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints to tolerate.
    pub tolerations: Vec<Toleration>,
    /// `RuntimeClass` of the pods with the GPU.
    pub runtime_class_name: String,
    /// `StorageClass` of the cache; `None`: the cluster's default.
    pub storage_class_name: Option<String>,
    /// Size of the cache, bytes.
    pub cache_bytes: u64,
}

/// `spec.objectives`; `None`: not demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objectives {
    /// Longest median time to the first token.
    pub first_token: Option<Duration>,
    /// Longest median time of a whole answer.
    pub completion: Option<Duration>,
    /// Fewest tokens a second of one stream.
    pub tokens_per_second: Option<f64>,
    /// Smallest share of right tool calls, 0 to 1.
    pub tool_call_accuracy: Option<f64>,
}

/// `spec.health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Between two checks.
    pub probe_interval: Duration,
    /// Of one check.
    pub probe_timeout: Duration,
    /// Failed checks in a row before the rollback.
    pub failure_threshold: u32,
    /// Healthy for this long makes an engine last good.
    pub soak: Duration,
    /// Gateway: no first token for this long, on to the fallback.
    pub first_token_timeout: Duration,
    /// Gateway: nothing for this long in an answer, on to the fallback.
    pub stall_timeout: Duration,
}

/// `spec.fallback`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// What is tried, first to last.
    pub order: Vec<FallbackBackend>,
    /// How ready Ollama is kept.
    pub residency: Residency,
    /// The Ollama; `None` where `order` does not name it.
    pub ollama: Option<Ollama>,
}

impl Fallback {
    /// Whether the last good engine is fallen back to.
    pub fn uses_last_good(&self) -> bool {
        self.order.contains(&FallbackBackend::LastGood)
    }
}

/// The Ollama that is fallen back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ollama {
    /// Run by us.
    Managed {
        /// The model's name in it.
        model: String,
        /// Whether the GGUF of `model.source` must be handed to it under that name, because the name
        /// is not one that Ollama itself knows.
        import: bool,
        /// The image in a cluster; `None`: the operator's default.
        image: Option<String>,
    },
    /// Run by somebody else.
    External {
        /// Base URL, without a slash at its end.
        url: String,
        /// The model's name there.
        model: String,
    },
}

impl Ollama {
    /// The model's name in it.
    pub fn model(&self) -> &str {
        match self {
            Self::Managed { model, .. } | Self::External { model, .. } => model,
        }
    }
}

/// `spec.rollout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// How the new engine takes over on a node.
    pub strategy: RolloutStrategy,
    /// Retries before the quarantine stays.
    pub retry_limit: u32,
    /// Before the first retry; doubled each time.
    pub backoff_initial: Duration,
    /// Longest time between two tries.
    pub backoff_max: Duration,
    /// A change lifts the quarantine.
    pub retry_token: Option<String>,
    /// For running answers to end.
    pub drain_timeout: Duration,
    /// Nodes that change at the same time.
    pub max_unavailable: u32,
    /// Waves, first to last.
    pub waves: Vec<Wave>,
}

impl Rollout {
    /// How long to wait before try number `attempt` (the first retry is 1).
    pub fn backoff(&self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.backoff_initial
            .saturating_mul(factor)
            .min(self.backoff_max)
    }
}

/// A wave of `spec.rollout.waves`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Its name.
    pub name: String,
    /// Labels of its nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Ready for this long before the next wave.
    pub pause: Duration,
}

/// What [`ValidatedEngine::revision`] hashes. A new field changes every revision and so restarts
/// every engine: raise `version` only together with a note to operators.
#[derive(Serialize)]
struct ServedInputs<'a> {
    version: u32,
    source: String,
    sha256: Option<&'a Sha256Hex>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    served_name: &'a str,
    precision: Precision,
    max_input_tokens: u32,
    max_output_tokens: u32,
    slots: u32,
    engine_wanted: bool,
    image: Option<ServedImage<'a>>,
}

#[derive(Serialize)]
struct ServedImage<'a> {
    image: &'a str,
    command: &'a [String],
    args: &'a [String],
    env: Vec<(&'a str, &'a str)>,
    port: u16,
    health_path: &'a str,
    model_name: &'a str,
}

impl ValidatedEngine {
    /// Names what would be served: the first ten hexadecimal digits of SHA-256 over model source,
    /// its endpoint and digest, served name, precision, lengths, slots, whether an engine is wanted at all, and the
    /// container of `runtime.type: Image`.
    ///
    /// Left out is what changes how it is obtained, judged or watched (registry, trust, build,
    /// credentials, placement, objectives, health, fallback, rollout): a change there must not restart
    /// a good engine. A file that changes in place is noticed by its digest, not here.
    pub fn revision(&self) -> RevisionId {
        let image = match &self.runtime.server {
            RuntimeServer::Native => None,
            RuntimeServer::Image(image) => Some(ServedImage {
                image: &image.image,
                command: &image.command,
                args: &image.args,
                env: image
                    .env
                    .iter()
                    .map(|var| (var.name.as_str(), var.value.as_str()))
                    .collect(),
                port: image.port,
                health_path: &image.health_path,
                model_name: &image.model_name,
            }),
        };
        let inputs = ServedInputs {
            version: 1,
            source: self.model.source.to_string(),
            sha256: self.model.sha256.as_ref(),
            endpoint: self.model.endpoint.as_deref(),
            served_name: &self.served_name,
            precision: self.engine.precision,
            max_input_tokens: self.engine.max_input_tokens,
            max_output_tokens: self.engine.max_output_tokens,
            slots: self.engine.slots,
            engine_wanted: self.engine.policy != EnginePolicy::Never,
            image,
        };
        // A struct of strings and numbers always serialises; hashing its text form is then stable
        // across builds because the field order is the declaration's.
        let text = serde_json::to_vec(&inputs).unwrap_or_default();
        RevisionId::from_digest(&Sha256::digest(&text))
    }
}
