//! `spec.model`: where the model comes from and what clients call it.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::api::rules;
use crate::api::source::{RELATIVE_FILE_MESSAGE, SOURCE_RULES};

/// The model to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = model_rules)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Where the model comes from, as one URL:
    /// `ollama://name:tag` (from the node's Ollama store, pulled through Ollama if absent),
    /// `hf://org/repo@revision` (Hugging Face; `#file.gguf` picks one file),
    /// `oci://registry/repo@sha256:…` (an OCI artifact with one GGUF file as a layer),
    /// `https://…` (one GGUF file, with `sha256`),
    /// `file:///path` (a file on the node or, for `enginewright run`, on this machine, which also
    /// takes `file://./path` relative to the YAML file),
    /// `pvc://claim/path` (a file in a `PersistentVolumeClaim` of the same namespace).
    #[schemars(length(min = 8, max = 512), transform = source_rules)]
    pub source: String,

    /// SHA-256 of the model file, 64 lower-case hexadecimal digits. Required for `https://`;
    /// checked before use for every source that is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"), length(max = 64))]
    pub sha256: Option<String>,

    /// Stands in for the server that the source's name implies: a mirror, or one without TLS, such as
    /// `http://registry.lan:5000`. For `ollama://` and `oci://` a registry, for `hf://` what clients of
    /// Hugging Face know as `HF_ENDPOINT`. Digests are checked all the same. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(
            pattern = "^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$"
        ),
        length(min = 8, max = 253)
    )]
    pub endpoint: Option<String>,

    /// What clients write as `model`. Default: the name in an `ollama://` source, so that clients of
    /// Ollama change nothing; else the name of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$"),
        length(min = 1, max = 128)
    )]
    pub served_name: Option<String>,

    /// A Secret of the same namespace with what the source demands: `token` for `hf://` and
    /// `https://`, `.dockerconfigjson` for `oci://` and `ollama://`. Mounted by the kubelet; never read by the
    /// operator. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretRef>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        length(min = 1, max = 253)
    )]
    pub name: String,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
        length(min = 1, max = 253)
    )]
    pub name: String,

    /// Key in the Secret.
    #[schemars(regex(pattern = "^[-._a-zA-Z0-9]+$"), length(min = 1, max = 253))]
    pub key: String,
}

fn source_rules(schema: &mut Schema) {
    for (rule, message) in SOURCE_RULES {
        rules::add(schema, rule, message);
    }
    rules::add(
        schema,
        r"!self.startsWith('file://.')",
        RELATIVE_FILE_MESSAGE,
    );
}

fn model_rules(schema: &mut Schema) {
    rules::add(
        schema,
        "!self.source.startsWith('https://') || has(self.sha256)",
        "an https:// source is checked against its SHA-256; write model.sha256 with the 64 \
         hexadecimal digits that `sha256sum FILE` prints",
    );
    rules::add(
        schema,
        "!has(self.endpoint) || self.source.startsWith('ollama://') || self.source.startsWith('hf://') || self.source.startsWith('oci://')",
        "an endpoint stands in for the server of ollama://, hf:// and oci:// sources; remove \
         model.endpoint, an https:// source is the whole address",
    );
    rules::add(
        schema,
        "!has(self.sha256) || !(self.source.startsWith('ollama://') || self.source.startsWith('oci://'))",
        "sha256 is for sources that are one file (https, file, pvc, hf with #file); remove \
         model.sha256, an oci:// source carries its digest and Ollama checks its own",
    );
}
