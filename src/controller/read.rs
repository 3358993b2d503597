//! Reads everything of one resource, at once and from the API server itself: a plan is never made
//! from a cache that is behind.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ListParams, ObjectList};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::error::Error;
use super::names::ENGINE;
use super::world::{World, is_controlled_by};

/// For one answer of the API server: a connection that died half-way must not hold a plan for ever.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Reads.
pub struct Reader<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Namespace of the resource.
    pub namespace: &'a str,
    /// Name of the resource.
    pub name: &'a str,
    /// UID of the resource.
    pub uid: &'a str,
}

impl Reader<'_> {
    /// Everything but the nodes.
    ///
    /// # Errors
    /// [`Error::Api`], [`Error::Timeout`].
    pub async fn world(&self) -> Result<World, Error> {
        let (deployments, pods, jobs, claims, maps, services, policies, budgets) = tokio::try_join!(
            self.owned(),
            self.labelled(),
            self.owned(),
            self.owned(),
            self.owned(),
            self.owned(),
            self.owned(),
            self.owned(),
        )?;
        Ok(World {
            deployments,
            pods,
            jobs,
            claims,
            maps,
            services,
            policies,
            budgets,
            ..World::default()
        })
    }

    async fn owned<K>(&self) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let mut all: Vec<K> = self.labelled().await?;
        all.retain(|one| is_controlled_by(one.meta(), self.uid));
        Ok(all)
    }

    async fn labelled<K>(&self) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let wanted = ListParams::default().labels(&format!("{ENGINE}={}", self.name));
        let what = || K::plural(&()).into_owned();
        let list: ObjectList<K> = bounded("list", what, api.list(&wanted)).await?;
        Ok(list.items)
    }
}

/// One request, bounded in time.
///
/// # Errors
/// [`Error::Api`], [`Error::Timeout`].
pub async fn bounded<T>(
    verb: &'static str,
    what: impl Fn() -> String,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api {
            verb,
            what: what(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout {
            verb,
            what: what(),
            limit: LIMIT,
        }),
    }
}
