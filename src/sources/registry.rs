//! Registries that speak the protocol of OCI's distribution, Ollama's among them: who is asking, and
//! what a manifest says.
//!
//! Our own client and not the crate `oci-client`: it neither resumes by itself nor passes on how long
//! a busy server asks to wait, so that of it only the dance of tokens would remain; the challenges
//! are read by `http-auth`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_auth::parse_challenges;
use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::credentials::Basic;
use super::error::{SourceError, shown};
use super::protocol::manifest::{self, ACCEPT, Contents};
use super::transfer::{Auth, Item, Transfer, body, refusal};
use crate::api::Sha256Hex;
use crate::model::modelfile::{MOST_BYTES, Modelfile};

/// For the token of a registry.
const TOKEN_WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of a manifest, as OCI's specification asks registries to take.
const MANIFEST_BYTES: usize = 4 << 20;
/// Most bytes of an answer with a token; signed ones are a few KiB.
const TOKEN_BYTES: usize = 64 << 10;

/// What a registry demands of who asks, once it has said so.
pub struct Login {
    basic: Option<Basic>,
    answer: Mutex<Answer>,
}

#[derive(Clone, Default)]
enum Answer {
    #[default]
    Nothing,
    Basic,
    Token(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Login {
    /// With a user and a password, where there are some.
    pub fn new(basic: Option<Basic>) -> Self {
        Self {
            basic,
            answer: Mutex::default(),
        }
    }

    /// Whether there are credentials.
    pub const fn has_credentials(&self) -> bool {
        self.basic.is_some()
    }

    pub(super) fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        let answer = self
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match (answer, &self.basic) {
            (Answer::Token(token), _) => request.bearer_auth(token),
            (Answer::Basic, Some(basic)) => request.basic_auth(&basic.user, Some(&basic.password)),
            _ => request,
        }
    }

    /// Does what the challenge asks for; `false`: nothing can be done.
    pub(super) async fn answer(
        &self,
        client: &reqwest::Client,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<bool, SourceError> {
        let answer = match challenge(headers) {
            Some(Challenge::Token { realm, query }) => {
                Answer::Token(self.token(client, &realm, &query).await?)
            }
            Some(Challenge::Basic) if self.basic.is_some() => Answer::Basic,
            Some(Challenge::Basic) => return Ok(false),
            None => {
                tracing::debug!(
                    url = shown(url),
                    "the registry does not say what it demands"
                );
                return Ok(false);
            }
        };
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
        Ok(true)
    }

    async fn token(
        &self,
        client: &reqwest::Client,
        realm: &str,
        query: &[(String, String)],
    ) -> Result<String, SourceError> {
        let link = |error: reqwest::Error| SourceError::of_link(realm, &error);
        let nonsense = |why: &str| SourceError::Nonsense {
            url: shown(realm),
            why: why.to_owned(),
        };
        let mut request = client.get(with_query(realm, query)).timeout(TOKEN_WITHIN);
        if let Some(basic) = &self.basic {
            request = request.basic_auth(&basic.user, Some(&basic.password));
        }
        let response = request.send().await.map_err(link)?;
        if !response.status().is_success() {
            return Err(refusal(realm, &response, self.has_credentials()));
        }
        let bytes = body(realm, response, TOKEN_BYTES).await?;
        let read: Token =
            serde_json::from_slice(&bytes).map_err(|_| nonsense("it gives no token"))?;
        read.token
            .or(read.access_token)
            .ok_or_else(|| nonsense("it gives no token"))
    }
}

enum Challenge {
    Basic,
    Token {
        realm: String,
        query: Vec<(String, String)>,
    },
}

fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        for one in parse_challenges(value.to_str().ok()?).ok()? {
            if one.scheme.eq_ignore_ascii_case("bearer") {
                let mut realm = None;
                let mut query = Vec::new();
                for (name, value) in &one.params {
                    let value = value.to_unescaped();
                    match name.to_ascii_lowercase().as_str() {
                        "realm" => realm = Some(value),
                        name @ ("service" | "scope") => query.push((name.to_owned(), value)),
                        _ => {}
                    }
                }
                return realm.map(|realm| Challenge::Token { realm, query });
            }
            if one.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

fn with_query(realm: &str, query: &[(String, String)]) -> String {
    use super::protocol::place::segment;
    let mut url = realm.to_owned();
    for (name, value) in query {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(name);
        url.push('=');
        url.push_str(&segment(value));
    }
    url
}

/// A model in a registry.
#[derive(Debug)]
pub(super) struct Found {
    /// Its file.
    pub(super) model: Item,
    /// What is kept beside it.
    pub(super) modelfile: Modelfile,
}

/// What is asked of a registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) origin: &'a str,
    pub(super) repository: &'a str,
    pub(super) reference: &'a str,
    pub(super) digest: Option<&'a Sha256Hex>,
}

/// Reads the manifest, and the small parts that it names.
pub(super) async fn find(
    transfer: &Transfer,
    wanted: Wanted<'_>,
    auth: &Auth,
) -> Result<Found, SourceError> {
    let base = format!("{}/v2/{}", wanted.origin, wanted.repository);
    let url = format!("{base}/manifests/{}", wanted.reference);
    let bytes = transfer
        .small(&url, auth, Some(ACCEPT), MANIFEST_BYTES)
        .await?;
    if let Some(digest) = wanted.digest {
        verify(&url, &bytes, digest)?;
    }
    let Contents { model, parts } =
        manifest::read(&bytes).map_err(|source| SourceError::Manifest {
            what: shown(&url),
            source,
        })?;
    let blob = |sha256: &Sha256Hex| format!("{base}/blobs/sha256:{sha256}");
    let mut modelfile = Modelfile::default();
    let most = usize::try_from(MOST_BYTES).unwrap_or(usize::MAX);
    for (part, of) in parts {
        let url = blob(&of.sha256);
        let bytes = transfer.small(&url, auth, None, most).await?;
        verify(&url, &bytes, &of.sha256)?;
        modelfile
            .take(part, &bytes)
            .map_err(|source| SourceError::Part {
                what: shown(&url),
                source,
            })?;
    }
    let model = Item {
        url: blob(&model.sha256),
        auth: auth.clone(),
        sha256: Some(model.sha256),
        bytes: (model.bytes > 0).then_some(model.bytes),
    };
    Ok(Found { model, modelfile })
}

fn verify(url: &str, bytes: &[u8], wanted: &Sha256Hex) -> Result<(), SourceError> {
    let found = hex::encode(Sha256::digest(bytes));
    if found == wanted.as_str() {
        return Ok(());
    }
    Err(SourceError::Digest {
        url: shown(url),
        wanted: wanted.clone(),
        found: Sha256Hex::new(&found).unwrap_or_else(|| wanted.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[&str]) -> Option<Challenge> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        challenge(&map)
    }

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let text = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull""#;
        let Some(Challenge::Token { realm, query }) = asked(&["Basic realm=\"x\"", text]) else {
            panic!();
        };
        assert_eq!(
            with_query(&realm, &query),
            "https://auth.example/token?service=r.example&scope=repository%3Aa%2Fb%3Apull"
        );
        assert!(matches!(
            asked(&["Basic realm=\"x\""]),
            Some(Challenge::Basic)
        ));
        assert!(asked(&[]).is_none());
        assert!(asked(&["Bearer service=\"x\""]).is_none());
    }
}
