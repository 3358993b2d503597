//! The model source: one URL, six schemes. Decides the syntax, twice: as CEL rules for the API
//! server, and as a parser with the same verdict. Opens nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::names::Sha256Hex;

/// Rules of `spec.model.source`: `(rule, message)`. [`ModelSource::parse`] gives the same verdict.
pub(super) const SOURCE_RULES: [(&str, &str); 7] = [
    (
        "self.matches('^(ollama|hf|oci|https|file|pvc)://')",
        "a source is one URL that starts with ollama://, hf://, oci://, https://, file:// or \
         pvc://; write for example ollama://hermes3:8b-llama3.1-q4_K_M",
    ),
    (
        "!self.startsWith('ollama://') || self.matches('^ollama://[A-Za-z0-9][A-Za-z0-9._/-]*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$')",
        "an Ollama source names a model and a tag; write for example \
         ollama://hermes3:8b-llama3.1-q4_K_M",
    ),
    (
        "!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._/-]*(#[A-Za-z0-9][A-Za-z0-9._/-]*)?$')",
        "a Hugging Face source names organisation, repository and revision; write for example \
         hf://NousResearch/Hermes-3-Llama-3.1-8B@896ea440e5a9e6070e3d8a2774daf2b481ab425b",
    ),
    (
        "!self.startsWith('oci://') || self.matches('^oci://[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)+@sha256:[0-9a-f]{64}$')",
        "an OCI source is pinned by its digest, a tag can change under you; write \
         oci://registry/repository@sha256: and the 64 hexadecimal digits that `crane digest` prints",
    ),
    (
        "!self.startsWith('https://') || self.matches('^https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?/[!-~]+$')",
        "an https source is a whole URL without a user name, a password or blanks; write for \
         example https://models.example.com/hermes3.gguf",
    ),
    (
        "!self.startsWith('file://') || self.matches('^file://[.][.]?/') || (self.matches('^file:///[^/]') && !self.matches('/[.][.](/|$)'))",
        "a file source is an absolute path without '..'; write for example \
         file:///var/lib/models/hermes3.gguf",
    ),
    (
        "!self.startsWith('pvc://') || (self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/]') && !self.matches('/[.][.](/|$)'))",
        "a pvc source names a claim of this namespace and a path in it, without '..'; write for \
         example pvc://models/hermes3.gguf",
    ),
];

/// Message of the rule that keeps relative files out of clusters; `parse` allows them.
pub(super) const RELATIVE_FILE_MESSAGE: &str = "a relative file is only for `enginewright run` and \
     `plan`, in a cluster there is no YAML file to be relative to; write the absolute path on the \
     node, for example file:///var/lib/models/hermes3.gguf";

/// What is not a model source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What is allowed and what to write, in the shape `allowed; write`.
    message: &'static str,
}

impl SourceError {
    /// What is allowed and what to write, in the shape `allowed; write`.
    pub fn message(&self) -> &'static str {
        self.message
    }
}

/// A path of a `file://` source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum FilePath {
    /// On the node, or on this machine.
    Absolute(PathBuf),
    /// Relative to the folder of the YAML file; only for `run` and `plan`.
    Relative(PathBuf),
}

impl FilePath {
    /// The path to open, with relative ones seen from `folder` (that of the YAML file).
    pub fn resolve(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Absolute(path) => path.clone(),
            Self::Relative(path) => folder.join(path),
        }
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ModelSource {
    /// `ollama://name:tag`: a model of Ollama's library or store.
    Ollama {
        /// The name with its tag, as Ollama takes it; `:latest` where none was written.
        name: String,
    },
    /// `hf://org/repo@revision#file`: a repository on Hugging Face.
    Hf {
        /// `org/repo`.
        repository: String,
        /// Commit, tag or branch. A branch can change under you.
        revision: String,
        /// One file of the repository, where the repository has several models.
        file: Option<String>,
    },
    /// `oci://registry/repo@sha256:…`: an OCI image with the model's files.
    Oci {
        /// `registry/repository`.
        repository: String,
        /// Digest of the manifest.
        digest: Sha256Hex,
    },
    /// `https://…`: one file.
    Https {
        /// The whole URL.
        url: String,
    },
    /// `file:///path`: a file that is there already.
    File {
        /// Its path.
        path: FilePath,
    },
    /// `pvc://claim/path`: a file in a `PersistentVolumeClaim` of the same namespace.
    Pvc {
        /// Name of the claim.
        claim: String,
        /// Path in the claim, without a leading slash.
        path: String,
    },
}

impl ModelSource {
    /// Reads a source as written in `spec.model.source`.
    ///
    /// # Errors
    /// When the text is none of the six forms; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let [scheme, ollama, hf, oci, https, file, pvc] = SOURCE_RULES.map(|(_, message)| message);
        let (kind, rest) = text.split_once("://").unwrap_or(("", ""));
        let (parsed, message) = match kind {
            "ollama" => (parse_ollama(rest), ollama),
            "hf" => (parse_hf(rest), hf),
            "oci" => (parse_oci(rest), oci),
            "https" => (parse_https(text, rest), https),
            "file" => (parse_file(rest), file),
            "pvc" => (parse_pvc(rest), pvc),
            _ => (None, scheme),
        };
        parsed.ok_or(SourceError { message })
    }

    /// The source as a file path, where it is one.
    pub fn file(&self) -> Option<&FilePath> {
        match self {
            Self::File { path } => Some(path),
            _ => None,
        }
    }

    /// The model's name in Ollama, where the source is Ollama's own.
    pub fn ollama_name(&self) -> Option<&str> {
        match self {
            Self::Ollama { name } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ollama { name } => write!(f, "ollama://{name}"),
            Self::Hf {
                repository,
                revision,
                file,
            } => {
                write!(f, "hf://{repository}@{revision}")?;
                file.as_ref().map_or(Ok(()), |file| write!(f, "#{file}"))
            }
            Self::Oci { repository, digest } => write!(f, "oci://{repository}@sha256:{digest}"),
            Self::Https { url } => f.write_str(url),
            Self::File {
                path: FilePath::Absolute(path) | FilePath::Relative(path),
            } => write!(f, "file://{}", path.display()),
            Self::Pvc { claim, path } => write!(f, "pvc://{claim}/{path}"),
        }
    }
}

/// Starts with a letter or digit and holds only letters, digits and `others`.
fn is_word(text: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// Like [`is_word`], without capital letters.
fn is_lower_word(text: &str, others: &str) -> bool {
    is_word(text, others) && !text.contains(|c: char| c.is_ascii_uppercase())
}

fn climbs(path: &str) -> bool {
    path.split('/').skip(1).any(|part| part == "..")
}

fn parse_ollama(rest: &str) -> Option<ModelSource> {
    let (name, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    (is_word(name, "._/-") && is_word(tag, "._-")).then(|| ModelSource::Ollama {
        name: format!("{name}:{tag}"),
    })
}

fn parse_hf(rest: &str) -> Option<ModelSource> {
    let (rest, file) = match rest.split_once('#') {
        Some((rest, file)) => (rest, Some(file)),
        None => (rest, None),
    };
    let (repository, revision) = rest.split_once('@')?;
    let (organisation, name) = repository.split_once('/')?;
    let valid = is_word(organisation, "._-")
        && is_word(name, "._-")
        && is_word(revision, "._/-")
        && file.is_none_or(|file| is_word(file, "._/-"));
    valid.then(|| ModelSource::Hf {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        file: file.map(str::to_owned),
    })
}

fn parse_oci(rest: &str) -> Option<ModelSource> {
    let (repository, digest) = rest.split_once("@sha256:")?;
    let (registry, path) = repository.split_once('/')?;
    let valid =
        is_host(registry, is_lower_word) && path.split('/').all(|part| is_lower_word(part, "._-"));
    Some(ModelSource::Oci {
        repository: valid.then(|| repository.to_owned())?,
        digest: Sha256Hex::new(digest)?,
    })
}

/// A host with an optional port.
fn is_host(text: &str, word: fn(&str, &str) -> bool) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    word(host, ".-") && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_https(url: &str, rest: &str) -> Option<ModelSource> {
    let (host, path) = rest.split_once('/')?;
    let valid = is_host(host, is_word)
        && !path.is_empty()
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| ModelSource::Https {
        url: url.to_owned(),
    })
}

fn parse_file(rest: &str) -> Option<ModelSource> {
    let path = if rest.starts_with('/') {
        let names_something = rest.len() > 1 && !rest.starts_with("//");
        (names_something && !climbs(rest)).then(|| FilePath::Absolute(rest.into()))?
    } else {
        let from_here = rest.starts_with("./") || rest.starts_with("../");
        (from_here && !rest.ends_with('/')).then(|| FilePath::Relative(rest.into()))?
    };
    Some(ModelSource::File { path })
}

fn parse_pvc(rest: &str) -> Option<ModelSource> {
    let (claim, path) = rest.split_once('/')?;
    let valid = is_lower_word(claim, ".-")
        && !claim.ends_with(['-', '.'])
        && !path.is_empty()
        && !path.starts_with('/')
        && !climbs(rest);
    valid.then(|| ModelSource::Pvc {
        claim: claim.to_owned(),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use kube::core::cel::Validator;
    use serde_json::json;

    use super::*;

    const GOOD: &[&str] = &[
        "ollama://hermes3:8b-llama3.1-q4_K_M",
        "ollama://hermes3",
        "ollama://hf.co/org/repo:Q4_K_M",
        "hf://NousResearch/Hermes-3-Llama-3.1-8B@main",
        "hf://a/b@refs/pr/1#sub/model-Q4.gguf",
        "oci://ghcr.io/acme/models/hermes3@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "oci://localhost:5000/m@sha256:abcdef0000000000000000000000000000000000000000000000000000000000",
        "https://models.example.com/m.gguf",
        "https://example.com:8443/a/b/m.gguf?download=true",
        "file:///var/lib/models/hermes3.gguf",
        "file:///m with blank.gguf",
        "file:///a..b/c...gguf",
        "file:///a/.../b",
        "pvc://models/hermes3.gguf",
        "pvc://my-claim.1/sub/dir/m.gguf",
    ];

    const BAD: &[&str] = &[
        "",
        "hermes3",
        "OLLAMA://hermes3",
        "http://example.com/m.gguf",
        "s3://bucket/m",
        "ollama://",
        "ollama://:8b",
        "ollama://a:b:c",
        "ollama://a:",
        "ollama://-a",
        "ollama://a b",
        "hf://org/repo",
        "hf://org@rev",
        "hf://org/a/b@rev",
        "hf://org/repo@",
        "hf://org/repo@rev#",
        "hf://org/repo@a@b",
        "hf://org/repo@rev#a#b",
        "oci://ghcr.io/acme/m:tag",
        "oci://ghcr.io/acme/m@sha256:00",
        "oci://ghcr.io@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "oci://ghcr.io/Acme@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "oci://ghcr.io:x/acme@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "oci://ghcr.io//acme@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "https://example.com",
        "https://example.com/",
        "https://user:secret@example.com/m.gguf",
        "https://example.com/a b",
        "https://exämple.com/m",
        "file://",
        "file:///",
        "file:////etc/passwd",
        "file://host/path",
        "file:///a/../b",
        "file:///a/..",
        "file:///..",
        "pvc://claim",
        "pvc://claim/",
        "pvc://claim//x",
        "pvc://Claim/x",
        "pvc://claim-/x",
        "pvc://claim/../x",
        "pvc://claim/a/..",
    ];

    /// What the rules say about a source, as the API server would evaluate them.
    fn rules_accept(source: &str) -> bool {
        let rules: Vec<_> = SOURCE_RULES
            .iter()
            .map(|(rule, message)| json!({"rule": rule, "message": message}))
            .collect();
        let schema = json!({"type": "string", "x-kubernetes-validations": rules});
        Validator::new()
            .validate(&schema, &json!(source), None)
            .is_ok()
    }

    #[test]
    fn parser_and_rules_give_the_same_verdict() {
        for source in GOOD {
            assert!(ModelSource::parse(source).is_ok(), "parser: {source}");
            assert!(rules_accept(source), "rules: {source}");
        }
        for source in BAD {
            assert!(ModelSource::parse(source).is_err(), "parser: {source}");
            assert!(!rules_accept(source), "rules: {source}");
        }
    }

    #[test]
    fn a_source_is_written_as_it_was_read() {
        for source in GOOD {
            let text = ModelSource::parse(source).unwrap().to_string();
            let expected = if *source == "ollama://hermes3" {
                "ollama://hermes3:latest"
            } else {
                source
            };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_relative_file_is_seen_from_the_folder_of_the_resource() {
        for (source, expected) in [
            ("file://./m.gguf", "/etc/ew/./m.gguf"),
            ("file://../m.gguf", "/etc/ew/../m.gguf"),
            ("file:///m.gguf", "/m.gguf"),
        ] {
            let parsed = ModelSource::parse(source).unwrap();
            let path = parsed.file().unwrap().resolve(Path::new("/etc/ew"));
            assert_eq!(path, Path::new(expected));
        }
    }
}
