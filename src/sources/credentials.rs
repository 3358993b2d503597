//! What a source demands of who asks: a token, or a user and a password for each registry.
//!
//! Read from a folder as a Secret is mounted. Never shown: not in logs, not in errors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::SourceError;

/// Key of a Secret with a token for `hf://` and `https://`.
const TOKEN: &str = "token";
/// Keys of a Secret with the configuration of a client of registries, as `kubectl create secret
/// docker-registry` writes it, and as such clients have it.
const REGISTRIES: [&str; 2] = [".dockerconfigjson", "config.json"];

/// What was given to this process.
#[derive(Clone, Default)]
pub struct Credentials {
    token: Option<String>,
    hub_token: Option<String>,
    registries: BTreeMap<String, Basic>,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Basic(..)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.is_some())
            .field("hub_token", &self.hub_token.is_some())
            .field("registries", &self.registries.keys())
            .finish()
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// Reads those in `folder`; what is not there is not given.
    ///
    /// # Errors
    /// [`SourceError::Credentials`].
    pub fn read(folder: &Path) -> Result<Self, SourceError> {
        let mut read = Self::default();
        if let Some(token) = text(&folder.join(TOKEN))? {
            read.token = given(&token);
        }
        for name in REGISTRIES {
            let path = folder.join(name);
            if let Some(json) = text(&path)? {
                let found = registries(&json).map_err(|why| SourceError::Credentials {
                    path: path.clone(),
                    why,
                })?;
                read.registries.extend(found);
            }
        }
        Ok(read)
    }

    /// With a token for `hf://` alone, where the folder has none.
    #[must_use]
    pub fn with_hub_token(mut self, token: &str) -> Self {
        self.hub_token = given(token);
        self
    }

    /// The token for `https://`.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The token for `hf://`.
    pub fn hub_token(&self) -> Option<&str> {
        self.token.as_deref().or(self.hub_token.as_deref())
    }

    /// The user and the password for the registry at `host`.
    pub fn registry(&self, host: &str) -> Option<&Basic> {
        self.registries.get(host)
    }
}

fn given(token: &str) -> Option<String> {
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

fn text(path: &Path) -> Result<Option<String>, SourceError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SourceError::Credentials {
            path: path.to_owned(),
            why: error.to_string(),
        }),
    }
}

/// The hosts of a client's configuration. An entry that cannot be read is said without quoting it.
fn registries(json: &str) -> Result<BTreeMap<String, Basic>, String> {
    // An error of serde's may quote the text.
    let config: Config =
        serde_json::from_str(json).map_err(|_| "it is no JSON with `auths`".to_owned())?;
    let mut all = BTreeMap::new();
    for (name, entry) in config.auths {
        let host = host(&name);
        let basic = if entry.auth.is_empty() {
            Basic {
                user: entry.username,
                password: entry.password,
            }
        } else {
            decode(&entry.auth).ok_or_else(|| format!("the entry of {host} cannot be decoded"))?
        };
        if !basic.user.is_empty() {
            all.insert(host, basic);
        }
    }
    Ok(all)
}

fn decode(auth: &str) -> Option<Basic> {
    let bytes = STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

/// The host of an entry, which may be written as an address, as Docker Hub's is.
fn host(name: &str) -> String {
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    if host == "index.docker.io" {
        "docker.io".to_owned()
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_as_kubernetes_mounts_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_abc\n").unwrap();
        let auth = STANDARD.encode("me:pass:word");
        let json = format!(
            r#"{{"auths":{{"ghcr.io":{{"auth":"{auth}"}},
            "https://index.docker.io/v1/":{{"username":"u","password":"p"}}}}}}"#
        );
        std::fs::write(folder.path().join(".dockerconfigjson"), json).unwrap();
        let read = Credentials::read(folder.path()).unwrap();
        assert_eq!(read.token(), Some("hf_abc"));
        assert_eq!(read.clone().with_hub_token("x").hub_token(), Some("hf_abc"));
        let only_hub = Credentials::default().with_hub_token("x");
        assert_eq!((only_hub.token(), only_hub.hub_token()), (None, Some("x")));
        assert_eq!(read.registry("ghcr.io").unwrap().password, "pass:word");
        assert_eq!(read.registry("docker.io").unwrap().user, "u");
        assert_eq!(read.registry("example.com"), None);
        let shown = format!("{read:?}{:?}", read.registry("ghcr.io"));
        assert!(
            !shown.contains("hf_abc") && !shown.contains("word"),
            "{shown}"
        );
    }

    #[test]
    fn nothing_given_is_no_error_and_a_damaged_secret_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Credentials::read(folder.path()).unwrap().token(), None);
        let path = folder.path().join("config.json");
        for damaged in [
            r#"{"auths":{"x":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":"hunter2"}"#,
        ] {
            std::fs::write(&path, damaged).unwrap();
            let error = Credentials::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("config.json"), "{error}");
            for secret in ["c2VjcmV0", "secret", "hunter2"] {
                assert!(!error.contains(secret), "{error}");
            }
        }
    }
}
