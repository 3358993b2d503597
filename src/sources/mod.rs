//! Brings models from where they are published: `https://`, `hf://`, `oci://`, `ollama://`.
//!
//! A file appears under its name when it is whole and has the digest that was expected, and not
//! before; what a broken transfer left is gone on with. One process at a time fetches into a folder.
//! It decides nothing about when a model is fetched, nor whether it can be served.

pub mod credentials;
mod error;
mod hub;
mod lock;
pub mod protocol;
mod registry;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use credentials::Credentials;
pub use error::SourceError;
pub use transfer::Progress;

use crate::api::{ModelSource, Sha256Hex};
use crate::model::modelfile::Modelfile;
use crate::store::digest;
use lock::Lock;
use protocol::place::Place;
use registry::Login;
use transfer::{Auth, Item, Transfer};

/// For a server to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Where a source is fetched from, and with what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Stands in for the server that the source's name implies.
    pub endpoint: Option<String>,
    /// The same for `hf://` sources without an endpoint of their own, as `HF_ENDPOINT` says it.
    pub hub: Option<String>,
    /// What the server demands.
    pub credentials: Credentials,
}

/// A model that was brought.
#[derive(Debug)]
pub struct Brought {
    /// Its file.
    pub model: PathBuf,
    /// What comes beside it.
    pub modelfile: Modelfile,
    /// Its digest, where it is known; then these bytes were checked against it.
    pub sha256: Option<Sha256Hex>,
    /// Whether the file was fetched, and so lies in the folder of downloads.
    pub fetched: bool,
    /// Nobody else fetches into the folder meanwhile.
    _lock: Option<Lock>,
}

impl Brought {
    /// A file that is there already.
    pub fn at_hand(model: PathBuf) -> Self {
        Self {
            model,
            modelfile: Modelfile::default(),
            sha256: None,
            fetched: false,
            _lock: None,
        }
    }
}

/// A client for servers in the world: through the proxy that the environment names.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .user_agent(concat!("enginewright/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Brings a model into `folder`. `at_hand` is asked for a file with a digest before it is fetched;
/// what it names is not read here.
///
/// # Errors
/// [`SourceError`].
pub async fn bring(
    source: &ModelSource,
    sha256: Option<&Sha256Hex>,
    access: &Access,
    folder: &Path,
    progress: Progress,
    at_hand: &(dyn Fn(&Sha256Hex) -> Option<PathBuf> + Sync),
) -> Result<Brought, SourceError> {
    let hub = access
        .hub
        .as_deref()
        .filter(|_| matches!(source, ModelSource::Hf { .. }));
    let endpoint = access.endpoint.as_deref().or(hub);
    let place =
        Place::of(source, endpoint).ok_or_else(|| SourceError::NotRemote(source.to_string()))?;
    let lock = Lock::of(folder, &progress).await?;
    let client = client().map_err(|error| SourceError::of_link(&source.to_string(), &error))?;
    let transfer = Transfer::new(client, progress);
    let (mut item, modelfile) = find(&transfer, &place, &access.credentials).await?;
    if let (Some(wanted), Some(found)) = (sha256, &item.sha256)
        && wanted != found
    {
        return Err(SourceError::Digest {
            url: source.to_string(),
            wanted: wanted.clone(),
            found: found.clone(),
        });
    }
    item.sha256 = item.sha256.or_else(|| sha256.cloned());
    let there = match &item.sha256 {
        Some(sha256) => whole(at_hand(sha256), sha256).await,
        None => None,
    };
    let fetched = there.is_none();
    let model = match there {
        Some(file) => file,
        None => transfer.file(&item, folder).await?,
    };
    if fetched {
        lock.sweep(&model);
    }
    Ok(Brought {
        model,
        modelfile,
        sha256: item.sha256,
        fetched,
        _lock: Some(lock),
    })
}

/// The file, if it is the one that its name says.
async fn whole(file: Option<PathBuf>, wanted: &Sha256Hex) -> Option<PathBuf> {
    let file = file?;
    let path = file.clone();
    let hashed = tokio::task::spawn_blocking(move || digest::sha256(&path, &mut |_| true));
    let found = hashed.await.ok()?.ok();
    let same = found.is_some_and(|(found, _)| found == *wanted);
    if !same {
        tracing::warn!(file = %file.display(), "it is damaged, and fetched anew");
    }
    same.then_some(file)
}

/// Deletes the files that were fetched into `folder`. What is only in part there may be what another
/// fetch writes right now, and is checked when it is whole.
pub fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|one| one == "gguf") {
            // What cannot be deleted is found wrong again.
            let _left = std::fs::remove_file(entry.path());
        }
    }
}

/// Which file it is, and what comes beside it.
async fn find(
    transfer: &Transfer,
    place: &Place,
    credentials: &Credentials,
) -> Result<(Item, Modelfile), SourceError> {
    match place {
        Place::File { url } => {
            let token = credentials.token();
            let item = Item {
                url: url.clone(),
                auth: token.map_or(Auth::None, |token| Auth::Bearer(token.to_owned())),
                sha256: None,
                bytes: None,
            };
            Ok((item, Modelfile::default()))
        }
        Place::Hub {
            endpoint,
            repository,
            revision,
            file,
        } => {
            let wanted = hub::Wanted {
                endpoint,
                repository,
                revision,
                file: file.as_deref(),
            };
            let item = hub::find(transfer, wanted, credentials.hub_token()).await?;
            Ok((item, Modelfile::default()))
        }
        Place::Registry {
            origin,
            repository,
            reference,
            digest,
            host,
        } => {
            let login = Login::new(credentials.registry(host).cloned());
            let wanted = registry::Wanted {
                origin,
                repository,
                reference,
                digest: digest.as_ref(),
            };
            let auth = Auth::Registry(Arc::new(login));
            let found = registry::find(transfer, wanted, &auth).await?;
            Ok((found.model, found.modelfile))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_is_forgotten_but_not_what_is_being_fetched() {
        let folder = tempfile::tempdir().unwrap();
        for name in [lock::NAME, "sha256-a.gguf", "sha256-b.partial"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        forget(folder.path());
        let left = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, [lock::NAME, "sha256-b.partial"]);
    }
}
