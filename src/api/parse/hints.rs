//! What a pattern means in words. A regular expression is exact and helps nobody.

use crate::api::size::SIZE_PATTERN;
use crate::api::span::SPAN_PATTERN;

/// What a pattern allows, and an example of it.
pub(super) struct Hint {
    pub(super) allowed: &'static str,
    pub(super) example: &'static str,
}

const fn hint(allowed: &'static str, example: &'static str) -> Hint {
    Hint { allowed, example }
}

/// The hint for a pattern of the schema.
pub(super) fn for_pattern(pattern: &str) -> Option<Hint> {
    Some(match pattern {
        SPAN_PATTERN => hint(
            "a length of time is whole numbers with the units ms, s, m or h",
            "30s, 500ms or 1h30m",
        ),
        SIZE_PATTERN => hint("an amount is a whole number with the unit Mi or Gi", "12Gi"),
        "^[0-9a-f]{64}$" => hint(
            "a SHA-256 digest is 64 lower-case hexadecimal digits",
            "what `sha256sum FILE` prints",
        ),
        "^[A-Za-z0-9][A-Za-z0-9._:/-]*$" => hint(
            "a model name starts with a letter or digit and holds letters, digits and . _ : / -",
            "hermes3:8b",
        ),
        "^[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$" => hint(
            "a model of Ollama is a name and a tag",
            "hermes3:8b-llama3.1-q4_K_M",
        ),
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" | "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" => hint(
            "a name is lower-case letters, digits and '-', and starts and ends with one of the first two",
            "my-name",
        ),
        "^[-._a-zA-Z0-9]+$" => hint("a key is letters, digits and - . _", "signing-key.pem"),
        "^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+$" => hint(
            "a repository is registry/path, without scheme, tag or digest",
            "ghcr.io/acme/engines",
        ),
        "^ed25519:[A-Za-z0-9+/]{43}=$" => hint(
            "a public key is ed25519: and 44 characters of base64",
            "ed25519:MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw=",
        ),
        "^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_][A-Za-z0-9._-]*)?@sha256:[0-9a-f]{64}$" => {
            hint(
                "an image is registry/path pinned by its digest, a tag can change under you",
                "registry/path@sha256: and the 64 digits that `crane digest` prints",
            )
        }
        "^/[!-~]*$" => hint("a path starts with / and has no blanks", "/health"),
        "^[A-Za-z_][A-Za-z0-9_]*$" => hint(
            "a variable's name is letters, digits and _, and does not start with a digit",
            "LOG_LEVEL",
        ),
        "^https?://([A-Za-z0-9][A-Za-z0-9.-]*|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?/?$" => hint(
            "an address is http:// or https://, a host and a port, without a path",
            "http://192.168.1.20:11434",
        ),
        "^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$" => hint(
            "an endpoint is http:// or https://, a host, perhaps a port and a path",
            "http://registry.lan:5000",
        ),
        "^[!-~]+$" => hint("a token is printable ASCII without blanks", "\"2\""),
        "^[a-z]([-a-z0-9]*[a-z0-9])?$" => hint(
            "a name is lower-case letters, digits and '-', starts with a letter and does not end with '-'",
            "hermes3",
        ),
        _ => return None,
    })
}

/// An example of a field that must be there.
pub(super) fn for_missing(path: &str) -> Option<&'static str> {
    Some(match path {
        "metadata" => "metadata: { name: hermes3 }",
        "metadata.name" => "name: hermes3",
        "spec" => "spec: { model: { source: \"ollama://hermes3:8b-llama3.1-q4_K_M\" } }",
        "spec.model" => "model: { source: \"ollama://hermes3:8b-llama3.1-q4_K_M\" }",
        "spec.model.source" => "source: \"ollama://hermes3:8b-llama3.1-q4_K_M\"",
        "spec.engine.registry.repository" => "repository: ghcr.io/acme/engines",
        _ => return None,
    })
}
