//! Hugging Face: what its API says of a repository.
//!
//! The plain HTTP API and not the crate `hf-hub`, whose 1.0 brings a second protocol for transfers
//! (xet) with a cache of its own: here a file is on disk once.

use serde::Deserialize;

use super::error::SourceError;
use super::protocol::choice::choose;
use super::protocol::place::{path, segment};
use super::transfer::{Auth, Item, Transfer};
use crate::api::Sha256Hex;

/// Most bytes of an answer about a repository: some hundred files.
const MOST_BYTES: usize = 16 << 20;
/// What the API says of a repository.
#[derive(Debug, Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// What is asked of a hub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) endpoint: &'a str,
    pub(super) repository: &'a str,
    pub(super) revision: &'a str,
    pub(super) file: Option<&'a str>,
}

/// Asks which file is meant. What is fetched afterwards is that of one commit, whatever moves.
pub(super) async fn find(
    transfer: &Transfer,
    wanted: Wanted<'_>,
    token: Option<&str>,
) -> Result<Item, SourceError> {
    let Wanted {
        endpoint,
        repository,
        revision,
        file,
    } = wanted;
    let name = path(repository);
    let about = format!(
        "{endpoint}/api/models/{name}/revision/{}?blobs=true",
        segment(revision)
    );
    let auth = token.map_or(Auth::None, |token| Auth::Bearer(token.to_owned()));
    let bytes = transfer.small(&about, &auth, None, MOST_BYTES).await?;
    let nonsense = |why: String| SourceError::Nonsense {
        url: super::error::shown(&about),
        why,
    };
    let found: Repository =
        serde_json::from_slice(&bytes).map_err(|error| nonsense(error.to_string()))?;
    let names: Vec<&str> = found
        .siblings
        .iter()
        .map(|one| one.rfilename.as_str())
        .collect();
    let chosen = choose(repository, &names, file)?;
    let lfs = found
        .siblings
        .iter()
        .find(|one| one.rfilename == chosen)
        .map(|one| (one.size, one.lfs.as_ref()));
    let sha256 = lfs
        .and_then(|(_, lfs)| lfs?.sha256.as_deref())
        .map(|text| Sha256Hex::new(text).ok_or_else(|| nonsense(format!("the digest {text:?}"))))
        .transpose()?;
    let bytes = lfs.and_then(|(size, lfs)| lfs.and_then(|lfs| lfs.size).or(size));
    Ok(Item {
        url: format!(
            "{endpoint}/{name}/resolve/{}/{}",
            segment(&found.sha),
            path(chosen)
        ),
        auth,
        sha256,
        bytes,
    })
}
