//! Who leads: one operator writes at a time. Leadership is a claim with an end, checked at each
//! write by the local monotonic clock, so that an operator that was paused, or cut off from the API
//! server, stops by itself before another one may begin.
//!
//! Another's lease is waited for by our own clock too: it is taken when it did not change for its
//! whole duration, so clocks that disagree do no harm.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

use super::error::{Error, is_conflict};
use super::read::bounded;

/// How long a claim holds.
const DURATION: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// How long it is made use of: a write that was begun must have ended before another one leads.
const HELD: Duration = Duration::from_secs(15);
/// Between two looks at somebody else's lease.
const LOOK: Duration = Duration::from_secs(2);
/// Name of the Lease.
const NAME: &str = "enginewright-operator";

/// A claim to lead.
#[derive(Debug, Default)]
pub struct Claim {
    until: Mutex<Option<Instant>>,
}

impl Claim {
    /// Whether it holds now.
    pub fn is_held(&self) -> bool {
        let until = self.until.lock().map_or(None, |until| *until);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn hold(&self, until: Option<Instant>) {
        if let Ok(mut held) = self.until.lock() {
            *held = until;
        }
    }
}

/// The Lease of one operator.
#[derive(Clone, Debug)]
pub struct Leader {
    api: Api<Lease>,
    holder: String,
}

/// What was last seen of somebody else's lease.
type Seen = Option<(Option<String>, Instant)>;

impl Leader {
    /// In `namespace`, as `holder` (unique for each process).
    pub fn new(client: Client, namespace: &str, holder: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            holder,
        }
    }

    /// Waits until this process leads.
    pub async fn acquire(&self, claim: &Claim) {
        let mut seen: Seen = None;
        loop {
            match self.take(&mut seen).await {
                Ok(Some(begun)) => {
                    claim.hold(Some(begun + HELD));
                    tracing::info!(holder = self.holder, "leading");
                    return;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be had"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Renews the claim; returns when another one leads. While the API server cannot be reached the claim
    /// runs out, nothing is written, and it is taken up again afterwards if nobody else did.
    pub async fn keep(&self, claim: &Claim) {
        let mut seen: Seen = None;
        loop {
            tokio::time::sleep(RENEW).await;
            match self.take(&mut seen).await {
                Ok(Some(begun)) => claim.hold(Some(begun + HELD)),
                Ok(None) => {
                    claim.hold(None);
                    return;
                }
                Err(error) => tracing::warn!(%error, "the lease cannot be renewed"),
            }
        }
    }

    /// Gives the lease back, so that the next operator need not wait.
    pub async fn vacate(&self, claim: &Claim) {
        claim.hold(None);
        let Ok(Some(mut lease)) = self.get().await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.holder.as_str()) {
            spec.holder_identity = None;
            let _lost = self.api.replace(NAME, &PostParams::default(), &lease).await;
        }
    }

    async fn get(&self) -> Result<Option<Lease>, Error> {
        bounded("get", || NAME.to_owned(), self.api.get_opt(NAME)).await
    }

    /// Takes or renews the lease: when that was begun, or `None` when another one has it.
    async fn take(&self, seen: &mut Seen) -> Result<Option<Instant>, Error> {
        let begun = Instant::now();
        let Some(lease) = self.get().await? else {
            let lease = self.lease(None);
            let params = PostParams::default();
            let request = self.api.create(&params, &lease);
            return won(
                begun,
                bounded("create", || NAME.to_owned(), request)
                    .await
                    .map(drop),
            );
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.holder {
            let version = lease.metadata.resource_version.clone();
            let since = match seen {
                Some((old, since)) if *old == version => *since,
                _ => begun,
            };
            *seen = Some((version, since));
            let duration = spec.lease_duration_seconds.unwrap_or(0);
            let duration = Duration::from_secs(u64::try_from(duration).unwrap_or(0));
            if since.elapsed() < duration.max(Duration::from_secs(1)) {
                return Ok(None);
            }
        }
        let next = self.lease(Some(&lease));
        let params = PostParams::default();
        let request = self.api.replace(NAME, &params, &next);
        won(
            begun,
            bounded("replace", || NAME.to_owned(), request)
                .await
                .map(drop),
        )
    }

    fn lease(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = before
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(self.holder.as_str());
        let transitions = old.lease_transitions.unwrap_or(0);
        Lease {
            metadata: before.map_or_else(
                || ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if same {
                    old.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(if same { transitions } else { transitions + 1 }),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Another one was faster: not an error.
fn won(begun: Instant, written: Result<(), Error>) -> Result<Option<Instant>, Error> {
    match written {
        Ok(()) => Ok(Some(begun)),
        Err(Error::Api { source, .. }) if is_conflict(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_ends_by_itself() {
        let claim = Claim::default();
        assert!(!claim.is_held());
        claim.hold(Some(Instant::now() + Duration::from_mins(1)));
        assert!(claim.is_held());
        claim.hold(Some(Instant::now()));
        assert!(!claim.is_held());
    }
}
