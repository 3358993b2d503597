//! Names that cannot be wrong once they exist: objects, digests, revisions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of an `InferenceEngine`, in characters. Names of what belongs to it (`-gateway`,
/// `-ollama`, a node's hash) are made from it and are at most 63 long, as Services demand.
pub const MAX_NAME: usize = 40;

/// What a [`Name`] looks like (a DNS label).
pub(super) const NAME_PATTERN: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// The name of an `InferenceEngine`: a DNS label of at most [`MAX_NAME`] characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Checks a name; `None` when it is not a DNS label that starts with a letter, or too long.
    pub fn new(text: &str) -> Option<Self> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.len() <= MAX_NAME
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|byte| inner(byte) || byte == b'-')
            && !text.ends_with('-');
        valid.then(|| Self(text.to_owned()))
    }

    /// A name that stands for one that could not be made.
    pub(super) fn stand_in() -> Self {
        Self("stand-in".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// Checks a digest; `None` when it is not 64 lower-case hexadecimal digits.
    pub fn new(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names what a spec asks to be served: ten hexadecimal digits, equal for specs that would serve
/// the same (see [`crate::api::ValidatedEngine::revision`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionId(String);

impl RevisionId {
    /// The revision named by the first ten hexadecimal digits of a digest.
    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        let mut hex = hex::encode(digest);
        hex.truncate(10);
        Self(hex)
    }

    /// Takes a name that was stored before, or one for a test.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_that_leaves_room_for_suffixes() {
        for good in ["hermes3", "a", "a-b-1"] {
            assert!(Name::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "1a",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            &"a".repeat(MAX_NAME + 1),
        ] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_64_lower_case_hexadecimal_digits() {
        assert!(Sha256Hex::new(&"0a".repeat(32)).is_some());
        for bad in [
            "",
            "0a",
            &"0A".repeat(32),
            &"0g".repeat(32),
            &"0a".repeat(33),
        ] {
            assert!(Sha256Hex::new(bad).is_none(), "{bad}");
        }
    }
}
