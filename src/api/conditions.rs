//! Conditions and reasons: the words that people, `kubectl wait`, Flux and Argo CD read. They are
//! stable: a reason is never renamed.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition of a status, as Kubernetes defines it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is said to be so or not.
    #[serde(rename = "type")]
    pub kind: ConditionType,

    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,

    /// `metadata.generation` this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When `status` last changed, RFC 3339.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub last_transition_time: String,

    /// Why, as one stable word.
    pub reason: Reason,

    /// Why, in a sentence that ends with what to do.
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known, for example on the first visit.
    Unknown,
}

impl ConditionStatus {
    /// The word in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Declares an enum of stable words with the text of each variant's documentation.
macro_rules! words {
    (
        $(#[$outer:meta])*
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident ),+ $(,)? }
    ) => {
        $(#[$outer])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
            JsonSchema,
        )]
        pub enum $name { $( $(#[doc = $doc])+ $variant ),+ }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),+ ];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant) ),+ }
            }

            /// What it means, for the reference documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc),+).trim_ascii() ),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What a condition speaks of. `Ready`, `Reconciling` and `Stalled` are read by kstatus, so
    /// Flux, Argo CD and `kubectl wait` need nothing extra.
    ConditionType {
        /// What is served is what the spec asks for. Always there, `Unknown` on the first write.
        Ready,
        /// Something is being done. There only while so; never together with `Stalled`.
        Reconciling,
        /// A person must act. There only while so.
        Stalled,
        /// A node exists on which the model can run as asked.
        HardwareMatched,
        /// The model is there and its digest is right.
        ModelFetched,
        /// The engine is there, verified and proven.
        EngineReady,
        /// Something answers requests.
        Available,
        /// The fallback answers requests.
        FallbackActive,
    }
}

words! {
    /// Why a condition is as it is. Stable: never renamed, only added to.
    Reason {
        /// What is served is what the spec asks for.
        Serving,
        /// Nothing has been looked at yet.
        Pending,
        /// `spec.suspend` is set.
        Suspended,
        /// The spec contradicts itself, or asks for what this version does not know.
        SpecInvalid,

        /// A node fits.
        HardwareFits,
        /// No node matches the selector, or no node has described itself.
        NoMatchingNode,
        /// The precision does not exist on this GPU.
        PrecisionUnsupported,
        /// Weights, KV cache and runtime do not fit into the memory left over.
        InsufficientMemory,
        /// No container runtime class for the GPU.
        RuntimeClassMissing,
        /// The node has not been heard of.
        NodeUnreachable,
        /// The node has described itself and a container can use its GPU.
        HardwareFound,
        /// The node has described itself; it has no NVIDIA GPU.
        GpuNotFound,

        /// The model is being fetched.
        FetchingModel,
        /// The model is there.
        ModelPresent,
        /// The source names nothing that exists.
        ModelNotFound,
        /// The source refuses the credentials, or wants some.
        ModelUnauthorized,
        /// The source does not answer.
        ModelUnreachable,
        /// The model's digest is not the one written.
        ModelDigestMismatch,
        /// The model file is damaged or no model.
        ModelInvalid,
        /// The model's architecture or format is not supported.
        ModelUnsupported,
        /// The disk is full.
        OutOfDisk,

        /// The engine is being fetched.
        FetchingEngine,
        /// The engine is being built.
        BuildingEngine,
        /// Signature, digest and key are being checked.
        VerifyingEngine,
        /// No TensorRT engine is wanted, or none can be had on this machine.
        EngineDisabled,
        /// Neither cache nor registry has the engine, and the policy forbids a build.
        EngineNotFound,
        /// The registry refuses or does not answer.
        RegistryUnreachable,
        /// The build failed.
        BuildFailed,
        /// The build or fetch made no progress for `engine.build.progressDeadline`.
        BuildStalled,
        /// The build was killed for memory.
        BuildOutOfMemory,
        /// The bundle has no signature, and one is required.
        SignatureMissing,
        /// No trusted key signed the bundle.
        SignatureInvalid,
        /// The bundle is not what its manifest says.
        EngineDigestMismatch,
        /// The engine was made for another TensorRT, GPU or platform.
        EngineKeyMismatch,

        /// The server is being started.
        StartingEngine,
        /// The server runs and is being measured.
        Proving,
        /// The proof is passed; the gateway moves new requests over.
        Promoting,
        /// Promoted, and being watched before it counts as last good.
        Soaking,
        /// The old server's running answers are coming to their end.
        Draining,
        /// The engine is there, verified and proven.
        EngineProven,
        /// The server did not start.
        StartFailed,
        /// The server was not ready within `runtime.startupDeadline`.
        StartTimedOut,
        /// Every start was cut off before it could be judged: power, or the whole machine went down.
        StartInterrupted,
        /// The server was killed for memory.
        EngineOutOfMemory,
        /// The server exited.
        EngineCrashed,
        /// The server is up but does not generate, or generates nothing.
        GenerationFailed,
        /// A generation took longer than `health.probeTimeout`.
        GenerationTimedOut,
        /// The engine was measured and misses an objective.
        ObjectiveMissed,
        /// The engine could not be measured; it is tried again.
        ProofInconclusive,

        /// The engine failed and the last good one or the fallback took over.
        RolledBack,
        /// The next try waits for the backoff.
        WaitingForRetry,
        /// The revision failed too often, and is not tried again until the spec or
        /// `rollout.retryToken` changes.
        RetryLimitReached,

        /// The engine answers.
        EngineServing,
        /// The last good engine answers.
        LastGoodServing,
        /// The engine of an earlier spec answers until the desired one is ready.
        PreviousServing,
        /// Everything is being taken down.
        Removing,
        /// The fallback answers.
        FallbackServing,
        /// Nothing answers.
        NothingServing,
        /// The engine is not ready yet.
        EngineNotReady,
        /// The engine serves; the fallback is not needed.
        FallbackNotNeeded,
        /// The fallback is being started.
        FallbackStarting,
        /// The fallback does not answer either, or cannot be had.
        FallbackUnavailable,
        /// `fallback.order` is empty.
        NoFallback,
        /// The gateway does not run.
        GatewayUnavailable,
        /// Something on this machine is in the way: a port, a file, a permission.
        EnvironmentError,
        /// An object with a name that is needed belongs to somebody else.
        ObjectConflict,
    }
}

impl Reason {
    /// What a person can do about it, as the last sentence of a message; `None` where nothing is to
    /// be done or the message must say it with the numbers at hand.
    pub const fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::Suspended => "Set spec.suspend to false to serve again.",
            Self::SpecInvalid => {
                "Correct the spec; `enginewright plan -f FILE` lists every mistake."
            }
            Self::NoMatchingNode => {
                "Label a node to match spec.placement.nodeSelector, or run the agent on it."
            }
            Self::PrecisionUnsupported => "Write engine.precision: Auto.",
            Self::InsufficientMemory => {
                "Choose a smaller precision, fewer slots, shorter lengths or a smaller model."
            }
            Self::RuntimeClassMissing => {
                "Install the NVIDIA container toolkit on the node and restart k3s."
            }
            Self::GpuNotFound => "Install the NVIDIA driver if the node has a GPU.",
            Self::NodeUnreachable => "Check the node's power and link; it serves on meanwhile.",
            Self::ModelNotFound => "Correct spec.model.source.",
            Self::ModelUnauthorized => "Correct the Secret named in spec.model.credentials.",
            Self::ModelUnreachable => "Check the link to the source; it is tried again.",
            Self::ModelDigestMismatch => "Correct spec.model.sha256, or fetch the file anew.",
            Self::ModelInvalid => "Replace the model file with an undamaged one.",
            Self::ModelUnsupported => {
                "Choose a model of the Llama or Qwen family in GGUF, or runtime.type: Image."
            }
            Self::OutOfDisk => "Free disk space on the node.",
            Self::EngineNotFound => "Push the engine to the registry, or write policy: Auto.",
            Self::RegistryUnreachable => "Check engine.registry and its credentials.",
            Self::BuildFailed => "Read the log of the build, then change rollout.retryToken.",
            Self::BuildStalled => "Check link and load, or write a longer build.progressDeadline.",
            Self::BuildOutOfMemory => {
                "Add swap, or build on a bigger node and share through engine.registry."
            }
            Self::SignatureMissing | Self::SignatureInvalid => {
                "Sign the bundle with a key in engine.trust.publicKeys."
            }
            Self::EngineDigestMismatch => "Delete the bundle; it is fetched or built anew.",
            Self::EngineKeyMismatch => "Build the engine on this kind of node.",
            Self::StartFailed | Self::EngineCrashed => {
                "Read the server's log; change the spec or rollout.retryToken to try again."
            }
            Self::StartTimedOut => "Write a longer runtime.startupDeadline.",
            Self::StartInterrupted => "Check power and memory, then change rollout.retryToken.",
            Self::EngineOutOfMemory => "Write fewer slots, shorter lengths or a smaller precision.",
            Self::GenerationFailed | Self::GenerationTimedOut => {
                "Try the model with another server; change the spec to try again."
            }
            Self::ObjectiveMissed => {
                "Lower the objective in spec.objectives, or choose a smaller precision or model."
            }
            Self::RetryLimitReached | Self::RolledBack => {
                "Change the spec, or rollout.retryToken to try the same again."
            }
            Self::FallbackUnavailable => "Check that Ollama is installed and answers.",
            Self::NoFallback => "Add Ollama to fallback.order to stay available.",
            Self::GatewayUnavailable => "Read the gateway's log.",
            Self::EnvironmentError => "Remove what is in the way; it is tried again.",
            Self::ObjectConflict => "Delete or rename the object that is in the way.",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_written_as_it_is_named() {
        for reason in Reason::ALL {
            assert_eq!(
                serde_json::to_value(reason).unwrap(),
                serde_json::json!(reason.as_str())
            );
        }
        for kind in ConditionType::ALL {
            assert_eq!(
                serde_json::to_value(kind).unwrap(),
                serde_json::json!(kind.as_str())
            );
        }
    }

    #[test]
    fn every_remedy_is_a_sentence_that_says_what_to_do() {
        for remedy in Reason::ALL.iter().filter_map(|reason| reason.remedy()) {
            assert!(remedy.ends_with('.'), "{remedy}");
            assert!(
                remedy.starts_with(|c: char| c.is_ascii_uppercase()),
                "{remedy}"
            );
        }
    }

    #[test]
    fn failures_name_a_remedy() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            let fails = [
                "Failed",
                "Mismatch",
                "Missing",
                "Invalid",
                "NotFound",
                "Unreachable",
            ];
            if fails.iter().any(|end| word.ends_with(end)) {
                assert!(reason.remedy().is_some(), "{word}");
            }
        }
    }
}
