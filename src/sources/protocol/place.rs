//! Where a source's server is, and what it is asked for: names to addresses. Pure.

use crate::api::{ModelSource, Sha256Hex};

/// Ollama's own registry.
const OLLAMA: &str = "registry.ollama.ai";
/// Hugging Face.
const HUGGING_FACE: &str = "https://huggingface.co";

/// A source as its protocol sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One file.
    File {
        /// Its address.
        url: String,
    },
    /// A manifest in a registry.
    Registry {
        /// Scheme, host and port.
        origin: String,
        /// Path of the repository.
        repository: String,
        /// Tag, or digest with its algorithm.
        reference: String,
        /// The digest that the manifest must have.
        digest: Option<Sha256Hex>,
        /// The host that credentials are looked up by.
        host: String,
    },
    /// A repository on a hub.
    Hub {
        /// Scheme, host, port and perhaps a path.
        endpoint: String,
        /// `organisation/name`.
        repository: String,
        /// Commit, tag or branch.
        revision: String,
        /// The file, where one was named.
        file: Option<String>,
    },
}

impl Place {
    /// The place of a source; `None`: it is on this machine, or in the cluster. `endpoint` stands in
    /// for the server that the source's name implies.
    pub fn of(source: &ModelSource, endpoint: Option<&str>) -> Option<Self> {
        let endpoint = endpoint.map(|text| text.trim_end_matches('/'));
        Some(match source {
            ModelSource::Https { url } => Self::File { url: url.clone() },
            ModelSource::Hf {
                repository,
                revision,
                file,
            } => Self::Hub {
                endpoint: endpoint.unwrap_or(HUGGING_FACE).to_owned(),
                repository: repository.clone(),
                revision: revision.clone(),
                file: file.clone(),
            },
            ModelSource::Oci { repository, digest } => {
                let (host, path) = repository.split_once('/')?;
                Self::Registry {
                    origin: endpoint.map_or_else(|| origin(host), str::to_owned),
                    repository: path.to_owned(),
                    reference: format!("sha256:{digest}"),
                    digest: Some(digest.clone()),
                    host: host.to_owned(),
                }
            }
            ModelSource::Ollama { name } => {
                let (path, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
                let parts: Vec<&str> = path.split('/').collect();
                let (host, path) = match parts.as_slice() {
                    [model] => (OLLAMA, format!("library/{model}")),
                    [user, model] => (OLLAMA, format!("{user}/{model}")),
                    [host, rest @ ..] => (*host, rest.join("/")),
                    [] => return None,
                };
                Self::Registry {
                    origin: endpoint.map_or_else(|| origin(host), str::to_owned),
                    repository: path,
                    reference: tag.to_owned(),
                    digest: None,
                    host: host.to_owned(),
                }
            }
            ModelSource::File { .. } | ModelSource::Pvc { .. } => return None,
        })
    }
}

/// Registries on this very machine speak without TLS, as other clients of registries hold it, too.
fn origin(host: &str) -> String {
    let name = host.split(':').next().unwrap_or(host);
    let here = name == "localhost" || name.starts_with("127.");
    let scheme = if here { "http" } else { "https" };
    // The name under which Docker Hub is known is not the one of its server.
    let host = if host == "docker.io" {
        "registry-1.docker.io"
    } else {
        host
    };
    format!("{scheme}://{host}")
}

/// A text as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            written.push(char::from(byte));
        } else {
            written.push('%');
            written.push_str(&hex::encode_upper([byte]));
        }
    }
    written
}

/// A path, segment by segment.
pub fn path(text: &str) -> String {
    let segments: Vec<String> = text.split('/').map(segment).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str, endpoint: Option<&str>) -> Place {
        Place::of(&ModelSource::parse(source).unwrap(), endpoint).unwrap()
    }

    fn registry(source: &str, endpoint: Option<&str>) -> (String, String, String) {
        match place(source, endpoint) {
            Place::Registry {
                origin,
                repository,
                reference,
                ..
            } => (origin, repository, reference),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ollamas_names_are_those_of_its_registry_unless_they_name_another() {
        for (source, origin, repository, tag) in [
            (
                "ollama://hermes3",
                "https://registry.ollama.ai",
                "library/hermes3",
                "latest",
            ),
            (
                "ollama://me/mine:8b",
                "https://registry.ollama.ai",
                "me/mine",
                "8b",
            ),
            (
                "ollama://hf.co/org/repo:Q4_K_M",
                "https://hf.co",
                "org/repo",
                "Q4_K_M",
            ),
        ] {
            let expected = (origin.to_owned(), repository.to_owned(), tag.to_owned());
            assert_eq!(registry(source, None), expected);
        }
        let mirror = registry("ollama://hermes3:8b", Some("http://10.0.0.1:5000/"));
        assert_eq!(mirror.0, "http://10.0.0.1:5000");
        assert_eq!(mirror.1, "library/hermes3");
    }

    #[test]
    fn only_registries_on_this_machine_are_reached_without_tls() {
        let digest = "0a".repeat(32);
        for (host, origin) in [
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("ghcr.io", "https://ghcr.io"),
            ("localhost.example.com", "https://localhost.example.com"),
            ("docker.io", "https://registry-1.docker.io"),
        ] {
            let source = format!("oci://{host}/a/b@sha256:{digest}");
            assert_eq!(registry(&source, None).0, origin);
        }
    }

    #[test]
    fn what_is_on_this_machine_has_no_place() {
        for source in ["file:///m.gguf", "pvc://claim/m.gguf"] {
            let source = ModelSource::parse(source).unwrap();
            assert_eq!(Place::of(&source, None), None);
        }
    }

    #[test]
    fn names_are_escaped_in_addresses() {
        assert_eq!(segment("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(path("a b/c#d.gguf"), "a%20b/c%23d.gguf");
    }
}
