//! Why a model cannot be had, whose fault that is, and what a person can do. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::protocol::choice::ChoiceError;
use super::protocol::manifest::ManifestError;
use crate::api::{Reason, Sha256Hex};
use crate::model::modelfile::PartError;
use crate::planner::{Failure, failure, transient};

/// Why a model cannot be had. Addresses are shown without what follows a question mark, which may
/// be a secret.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The server wants other credentials.
    #[error("{url} answers with status {status}: {}", if *.given {
        "the credentials are wrong, or do not reach that far"
    } else {
        "it wants credentials, or does not tell strangers that it has no such model; ask for access \
         there and name a Secret with them in spec.model.credentials"
    })]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// Whether credentials were given.
        given: bool,
    },
    /// There is no such thing.
    #[error("{url} answers with status {status}: there is nothing under this name")]
    NotFound {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// Too many requests, or overloaded.
    #[error("{url} answers with status {status}: too many requests{}", match .after {
        Some(after) => format!("; it asks to come back in {} s", after.as_secs()),
        None => String::new(),
    })]
    Busy {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// How long to wait, where it says so.
        after: Option<Duration>,
    },
    /// Another status.
    #[error("{url} answers with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// The link.
    #[error("{url} {why}")]
    Link {
        /// What was asked for.
        url: String,
        /// What happened, as the rest of a sentence.
        why: String,
    },
    /// The answer is not what the protocol says.
    #[error("{url} answers nonsense ({why}); is there a proxy or a sign-in page in between?")]
    Nonsense {
        /// What was asked for.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The bytes are others.
    #[error("what {url} sends has the sha256 {found}, and {wanted} is expected")]
    Digest {
        /// What was asked for.
        url: String,
        /// The digest expected.
        wanted: Sha256Hex,
        /// The digest of what came.
        found: Sha256Hex,
    },
    /// The manifest.
    #[error("{what}: {source}")]
    Manifest {
        /// The source.
        what: String,
        /// Why.
        source: ManifestError,
    },
    /// A part beside the model.
    #[error("{what}: {source}")]
    Part {
        /// The part.
        what: String,
        /// Why.
        source: PartError,
    },
    /// No file, or none alone, is meant.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The credentials cannot be read.
    #[error("the credentials in {} cannot be used: {why}", .path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It would not fit.
    #[error("the model needs {} more, and {} has {} free", mebibytes(*.needed), .folder.display(), mebibytes(*.free))]
    NoSpace {
        /// Bytes still to come.
        needed: u64,
        /// Bytes there.
        free: u64,
        /// Where.
        folder: PathBuf,
    },
    /// The disk.
    #[error("the model cannot be stored: {0}")]
    Disk(#[from] std::io::Error),
    /// Nothing here fetches such a source.
    #[error("{0} is fetched from nowhere: it is a file of this machine or of the cluster")]
    NotRemote(String),
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl SourceError {
    /// The error of a status that is no success.
    pub fn of_status(url: &str, status: u16, after: Option<Duration>, given: bool) -> Self {
        let url = shown(url);
        match status {
            401 | 403 => Self::Unauthorized { url, status, given },
            404 | 410 => Self::NotFound { url, status },
            429 | 503 => Self::Busy { url, status, after },
            _ => Self::Status { url, status },
        }
    }

    /// The error of a request that got no answer, or half of one.
    pub fn of_link(url: &str, error: &reqwest::Error) -> Self {
        let why = if error.is_timeout() {
            "does not answer in time".to_owned()
        } else if error.is_connect() {
            format!("cannot be reached ({})", innermost(error))
        } else {
            format!("broke off ({})", innermost(error))
        };
        Self::Link {
            url: shown(url),
            why,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Link { .. } | Self::Busy { .. } => true,
            Self::Status { status, .. } => *status == 408 || *status >= 500,
            _ => false,
        }
    }

    /// How long the server asks to wait.
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// As the planner takes it.
    pub fn failure(&self) -> Failure {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let text = format!("{self}.");
        match self {
            Self::Unauthorized { .. } | Self::Credentials { .. } => {
                failure(Reason::ModelUnauthorized, &text)
            }
            Self::NotFound { .. } | Self::Choice(_) => failure(Reason::ModelNotFound, &text),
            Self::Busy { .. } | Self::Status { .. } | Self::Link { .. } | Self::Nonsense { .. } => {
                transient(Reason::ModelUnreachable, &text)
            }
            Self::Digest { .. } => failure(Reason::ModelDigestMismatch, &text),
            Self::Manifest { source, .. } => match source {
                ManifestError::Json(_) => transient(Reason::ModelUnreachable, &text),
                ManifestError::Adapter => failure(Reason::ModelUnsupported, &text),
                _ => failure(Reason::ModelNotFound, &text),
            },
            Self::Part { .. } => failure(Reason::ModelInvalid, &text),
            Self::NoSpace { .. } => transient(Reason::OutOfDisk, &text),
            Self::Disk(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => {
                transient(Reason::OutOfDisk, "There is no space for the model.")
            }
            Self::Disk(_) => transient(Reason::EnvironmentError, &text),
            Self::NotRemote(_) => failure(Reason::SpecInvalid, &text),
        }
    }
}

/// An address without what may be secret in it.
pub fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_whose_fault_it_is() {
        for (status, reason, passing) in [
            (401, Reason::ModelUnauthorized, false),
            (403, Reason::ModelUnauthorized, false),
            (404, Reason::ModelNotFound, false),
            (410, Reason::ModelNotFound, false),
            (429, Reason::ModelUnreachable, true),
            (500, Reason::ModelUnreachable, true),
            (503, Reason::ModelUnreachable, true),
        ] {
            let error = SourceError::of_status("https://x.example/m", status, None, false);
            let failure = error.failure();
            assert_eq!(failure.reason, reason, "{status}");
            assert_eq!(failure.transient, passing, "{status}");
            assert_eq!(error.passes(), passing, "{status}");
            assert!(failure.message.contains(&status.to_string()), "{failure:?}");
        }
    }

    #[test]
    fn missing_and_wrong_credentials_are_told_apart() {
        let text = |given| {
            SourceError::of_status("https://x.example/m", 401, None, given)
                .failure()
                .message
        };
        assert!(text(false).contains("spec.model.credentials"));
        assert!(text(true).contains("are wrong"));
    }

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let url = "https://cdn.example/m.gguf?X-Amz-Signature=secret";
        let error = SourceError::of_status(url, 403, None, true);
        assert!(!error.to_string().contains("secret"));
        let after = Some(Duration::from_secs(90));
        let error = SourceError::of_status(url, 429, after, true);
        assert!(error.to_string().contains("90 s"), "{error}");
    }
}
