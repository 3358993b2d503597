//! API keys: who may use the endpoint. Keys are held as digests and compared in constant time, all
//! of them each time, so that neither a key's letters nor its place in the file can be measured.

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The accepted keys; none: everybody is let in.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.digests.len())
    }
}

/// Why a file of keys is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A file without keys would let everybody in, which nobody means who names a file.
    #[error("the file holds no key: write one key a line")]
    Empty,
    /// Too short to be a secret.
    #[error("line {line}: a key has at least {MIN_KEY_BYTES} characters")]
    TooShort {
        /// From 1.
        line: usize,
    },
    /// Not what a header can hold.
    #[error("line {line}: a key consists of visible ASCII characters without spaces")]
    NotVisible {
        /// From 1.
        line: usize,
    },
}

/// Shortest key that is accepted, in bytes.
pub const MIN_KEY_BYTES: usize = 8;

impl ApiKeys {
    /// Reads the text of a key file: one key a line; empty lines and those that begin with `#` are
    /// skipped.
    ///
    /// # Errors
    /// [`KeysError`], which never quotes a key.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut digests = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.len() < MIN_KEY_BYTES {
                return Err(KeysError::TooShort { line: index + 1 });
            }
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeysError::NotVisible { line: index + 1 });
            }
            digests.push(Sha256::digest(key.as_bytes()).into());
        }
        if digests.is_empty() {
            Err(KeysError::Empty)
        } else {
            Ok(Self { digests })
        }
    }

    /// Whether a key is asked for at all.
    pub fn are_required(&self) -> bool {
        !self.digests.is_empty()
    }

    /// Whether a request with these headers is let in: `Authorization: Bearer KEY` or
    /// `x-api-key: KEY`.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.digests.is_empty() {
            return true;
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let key = bearer.or_else(|| headers.get("x-api-key").map(http::HeaderValue::as_bytes));
        let Some(key) = key else { return false };
        let digest: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        let known = self
            .digests
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&digest));
        known.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn each_key_of_the_file_is_accepted_and_nothing_else() {
        let keys = ApiKeys::parse("# staff\nfirst-key-1\n\n second-key-2 \n").unwrap();
        for good in [
            "Bearer first-key-1",
            "bearer second-key-2",
            "BEARER  first-key-1 ",
        ] {
            assert!(keys.admit(&headers("authorization", good)), "{good}");
        }
        assert!(keys.admit(&headers("x-api-key", "second-key-2")));
        for bad in [
            "first-key-1",
            "Bearer first-key-",
            "Bearer # staff",
            "Basic first-key-1",
            "Bearer",
        ] {
            assert!(!keys.admit(&headers("authorization", bad)), "{bad}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
    }

    #[test]
    fn a_file_without_keys_or_with_bad_ones_is_refused_without_quoting_them() {
        assert_eq!(ApiKeys::parse("# none\n").unwrap_err(), KeysError::Empty);
        assert_eq!(
            ApiKeys::parse("\nabc").unwrap_err(),
            KeysError::TooShort { line: 2 }
        );
        let error = ApiKeys::parse("clé-secrète").unwrap_err();
        assert_eq!(error, KeysError::NotVisible { line: 1 });
        assert!(!error.to_string().contains("secr"));
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = ApiKeys::parse("first-key-1").unwrap();
        assert_eq!(format!("{keys:?}"), "ApiKeys(1)");
    }
}
