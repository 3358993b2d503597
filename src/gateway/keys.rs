//! Who may ask: bearer keys, kept as hashes, compared in constant time.

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The keys that are accepted; none: everybody is.
#[derive(Clone, Default)]
pub struct Keys {
    hashes: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.hashes.len())
    }
}

/// Why a file of keys is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file holds no key: write one per line, or leave the option out")]
pub struct NoKeys;

impl Keys {
    /// From a file's text: one key per line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`NoKeys`]: an empty file must not open the endpoint to everybody.
    pub fn parse(text: &str) -> Result<Self, NoKeys> {
        let lines = text.lines().map(str::trim);
        let hashes: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|key| Sha256::digest(key.as_bytes()).into())
            .collect();
        if hashes.is_empty() {
            Err(NoKeys)
        } else {
            Ok(Self { hashes })
        }
    }

    /// Whether the request carries one of the keys, or none is needed.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.hashes.is_empty() {
            return true;
        }
        let value = headers
            .get(header::AUTHORIZATION)
            .map(http::HeaderValue::as_bytes);
        let Some((scheme, key)) = value.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        let hash: [u8; 32] = Sha256::digest(key).into();
        let known = self
            .hashes
            .iter()
            .fold(Choice::from(0), |known, candidate| {
                known | candidate.ct_eq(&hash)
            });
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_key_opens() {
        let keys = Keys::parse("# ours\n\n one \ntwo\n").unwrap();
        let admit = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            keys.admit(&headers)
        };
        assert!(admit("Bearer one"));
        assert!(admit("bearer two"));
        for wrong in [
            "Bearer three",
            "Bearer ",
            "one",
            "Basic one",
            "Bearer one two",
            "",
        ] {
            assert!(!admit(wrong), "{wrong:?}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
        assert!(Keys::default().admit(&HeaderMap::new()));
    }

    #[test]
    fn an_empty_file_does_not_open_the_endpoint() {
        assert_eq!(Keys::parse("# nothing\n").unwrap_err(), NoKeys);
    }
}
