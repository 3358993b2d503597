//! One file over HTTP: resumed where it broke off, and under its name only when it is whole and has
//! the digest that was expected. Decides nothing about which file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::error::{SourceError, shown};
use super::protocol::retry::Retry;
use super::registry::Login;
use crate::api::Sha256Hex;
use crate::store::{atomic, digest};

/// Nothing for this long ends a try; the next one goes on where it stopped.
const SILENCE: Duration = Duration::from_mins(1);
/// Space that stays free for everybody else on the disk.
const SPARE: u64 = 64 << 20;

/// Gets bytes done and in all.
pub type Progress = Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

/// What a request is allowed with.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nothing.
    None,
    /// A token.
    Bearer(String),
    /// What the registry demands.
    Registry(Arc<Login>),
}

impl Auth {
    fn is_given(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bearer(_) => true,
            Self::Registry(login) => login.has_credentials(),
        }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its address.
    pub url: String,
    /// What to ask with.
    pub auth: Auth,
    /// The digest that it must have.
    pub sha256: Option<Sha256Hex>,
    /// Its length, where it is known.
    pub bytes: Option<u64>,
}

/// Fetches.
#[derive(Clone)]
pub struct Transfer {
    client: reqwest::Client,
    progress: Progress,
}

impl Transfer {
    /// With a client, telling `progress`.
    pub fn new(client: reqwest::Client, progress: Progress) -> Self {
        Self { client, progress }
    }

    /// An answer of a few bytes, checked against its digest.
    pub(super) async fn small(
        &self,
        url: &str,
        auth: &Auth,
        accept: Option<&'static str>,
        most: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let mut retry = Retry::default();
        loop {
            let error = match self.small_once(url, auth, accept, most).await {
                Err(error) if error.passes() => error,
                other => return other,
            };
            wait(&mut retry, error).await?;
        }
    }

    async fn small_once(
        &self,
        url: &str,
        auth: &Auth,
        accept: Option<&'static str>,
        most: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(
                ACCEPT,
                accept.parse().map_err(|_| nonsense(url, "a header"))?,
            );
        }
        let response = self.ask(url, auth, &headers).await?;
        if !response.status().is_success() {
            return Err(refusal(url, &response, auth.is_given()));
        }
        body(url, response, most).await
    }

    /// Brings a file into `folder`, under a name made of its digest, else of its address.
    ///
    /// # Errors
    /// [`SourceError`]. What has arrived stays there and is gone on with.
    pub async fn file(&self, item: &Item, folder: &Path) -> Result<PathBuf, SourceError> {
        let name = item.sha256.as_ref().map_or_else(
            || format!("url-{}", hex::encode(Sha256::digest(&item.url))),
            |sha256| format!("sha256-{sha256}"),
        );
        let target = folder.join(format!("{name}.gguf"));
        if target.is_file() {
            // An earlier program left it: whole, as far as it knew.
            match check(item, &target).await {
                Ok(()) => return Ok(target),
                Err(SourceError::Digest { .. }) => tokio::fs::remove_file(&target).await?,
                Err(error) => return Err(error),
            }
        }
        let partial = folder.join(format!("{name}.partial"));
        let resumed = length(&partial).await? > 0;
        self.whole(item, &partial).await?;
        let checked = check(item, &partial).await;
        match checked {
            // The fault may lie in the part that was there before.
            Err(SourceError::Digest { .. }) if resumed => {
                tracing::warn!(
                    url = shown(&item.url),
                    "resumed to another digest, from the beginning"
                );
                tokio::fs::remove_file(&partial).await?;
                self.whole(item, &partial).await?;
                checked_or_removed(item, &partial).await?;
            }
            Err(error @ SourceError::Digest { .. }) => {
                tokio::fs::remove_file(&partial).await?;
                return Err(error);
            }
            other => other?,
        }
        tokio::fs::rename(&partial, &target).await?;
        atomic::sync_folder(folder)?;
        Ok(target)
    }

    /// Tries until all has arrived.
    async fn whole(&self, item: &Item, partial: &Path) -> Result<(), SourceError> {
        let mut retry = Retry::default();
        loop {
            let before = length(partial).await?;
            let error = match self.go_on(item, partial).await {
                Err(error) if error.passes() => error,
                other => return other,
            };
            let after = length(partial).await?;
            if after > before {
                retry.moved();
            }
            tracing::info!(%error, bytes = after, "the transfer goes on there");
            wait(&mut retry, error).await?;
        }
    }

    async fn go_on(&self, item: &Item, partial: &Path) -> Result<(), SourceError> {
        let mut options = tokio::fs::File::options();
        let mut file = options.create(true).append(true).open(partial).await?;
        let mut there = file.metadata().await?.len();
        if item.bytes.is_some_and(|bytes| there > bytes) {
            file.set_len(0).await?;
            there = 0;
        }
        if item.bytes == Some(there) && there > 0 {
            return Ok(());
        }
        if let Some(bytes) = item.bytes {
            space(partial, bytes - there)?;
        }
        let url = &item.url;
        let mut headers = HeaderMap::new();
        if there > 0 {
            let range = format!("bytes={there}-");
            headers.insert(RANGE, range.parse().map_err(|_| nonsense(url, "a range"))?);
        }
        let mut response = self.ask(url, &item.auth, &headers).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, there) => {}
            // The server does not resume.
            StatusCode::OK => {
                file.set_len(0).await?;
                there = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                // What is there is no part of this file.
                file.set_len(0).await?;
                return Err(SourceError::Link {
                    url: shown(url),
                    why: "cannot go on where it broke off, and starts anew".to_owned(),
                });
            }
            _ => return Err(refusal(url, &response, item.auth.is_given())),
        }
        let told = response.content_length().map(|rest| there + rest);
        let total = item.bytes.or(told);
        let mut done = there;
        while let Some(chunk) = next(url, &mut response).await? {
            file.write_all(&chunk).await?;
            done += chunk.len() as u64;
            (self.progress)(done, total);
        }
        // Only then an error of the last write is known.
        file.flush().await?;
        file.sync_all().await?;
        if total.is_some_and(|total| done < total) {
            return Err(SourceError::Link {
                url: shown(url),
                why: "broke off".to_owned(),
            });
        }
        Ok(())
    }

    /// Asks, and once more with what the registry demands.
    async fn ask(
        &self,
        url: &str,
        auth: &Auth,
        headers: &HeaderMap,
    ) -> Result<Response, SourceError> {
        let response = self.send(url, auth, headers).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Auth::Registry(login) = auth
            && login.answer(&self.client, url, response.headers()).await?
        {
            return self.send(url, auth, headers).await;
        }
        Ok(response)
    }

    async fn send(
        &self,
        url: &str,
        auth: &Auth,
        headers: &HeaderMap,
    ) -> Result<Response, SourceError> {
        let request = self.client.get(url).headers(headers.clone());
        let request = match auth {
            Auth::None => request,
            Auth::Bearer(token) => request.bearer_auth(token),
            Auth::Registry(login) => login.sign(request),
        };
        match timeout(SILENCE, request.send()).await {
            Ok(answer) => answer.map_err(|error| SourceError::of_link(url, &error)),
            Err(_) => Err(silent(url)),
        }
    }
}

async fn checked_or_removed(item: &Item, partial: &Path) -> Result<(), SourceError> {
    let checked = check(item, partial).await;
    if matches!(checked, Err(SourceError::Digest { .. })) {
        tokio::fs::remove_file(partial).await?;
    }
    checked
}

async fn check(item: &Item, partial: &Path) -> Result<(), SourceError> {
    let Some(wanted) = item.sha256.clone() else {
        return Ok(());
    };
    let path = partial.to_owned();
    let hashed = tokio::task::spawn_blocking(move || digest::sha256(&path, &mut |_| true));
    let (found, _) = hashed.await.map_err(std::io::Error::other)??;
    if found == wanted {
        return Ok(());
    }
    Err(SourceError::Digest {
        url: shown(&item.url),
        wanted,
        found,
    })
}

/// A short body.
pub(super) async fn body(
    url: &str,
    mut response: Response,
    most: usize,
) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(url, &mut response).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            return Err(nonsense(url, "it is far too long"));
        }
    }
    Ok(bytes)
}

async fn next(url: &str, response: &mut Response) -> Result<Option<bytes::Bytes>, SourceError> {
    match timeout(SILENCE, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| SourceError::of_link(url, &error)),
        Err(_) => Err(silent(url)),
    }
}

async fn wait(retry: &mut Retry, error: SourceError) -> Result<(), SourceError> {
    match retry.failed(error.after()) {
        Some(wait) => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
        None => Err(error),
    }
}

async fn length(path: &Path) -> Result<u64, SourceError> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Refuses what cannot fit before hours are spent on it.
fn space(partial: &Path, needed: u64) -> Result<(), SourceError> {
    let folder = partial.parent().unwrap_or(partial);
    let Ok(found) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if needed.saturating_add(SPARE) <= free {
        return Ok(());
    }
    Err(SourceError::NoSpace {
        needed,
        free,
        folder: folder.to_owned(),
    })
}

/// Whether the part that comes begins where ours ends.
fn starts_at(response: &Response, there: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    range
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'))
        .is_some_and(|(first, _)| first.parse() == Ok(there))
}

/// The error of a status that is no success. `given`: credentials were sent.
pub(super) fn refusal(url: &str, response: &Response, given: bool) -> SourceError {
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    SourceError::of_status(url, response.status().as_u16(), after, given)
}

fn silent(url: &str) -> SourceError {
    SourceError::Link {
        url: shown(url),
        why: "fell silent".to_owned(),
    }
}

fn nonsense(url: &str, why: &str) -> SourceError {
    SourceError::Nonsense {
        url: shown(url),
        why: why.to_owned(),
    }
}
