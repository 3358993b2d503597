//! Writes: every one under a claim that is still valid, over the very version that was read, and
//! never over an object of somebody else's.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use serde_json::{Value, json};

use super::desired::Told;
use super::error::{Error, is_conflict, is_not_found};
use super::lease::Claim;
use super::metrics::Metrics;
use super::names::{FINALIZER, MANAGER};
use super::read::bounded;
use super::workloads::{Kind, Object};
use super::world::{Live, is_controlled_by};
use crate::api::InferenceEngine;

/// A version that no object has: with it an apply creates, and never changes what is there already.
const NEVER: &str = "1";

/// What was written: proof that a status speaks of what is there, and not of what was planned.
#[derive(Debug, Default)]
pub struct Applied {
    writes: usize,
    /// Objects of somebody else's that are in the way.
    foreign: Vec<(Kind, String)>,
}

impl Applied {
    /// How much was written.
    pub const fn writes(&self) -> usize {
        self.writes
    }

    /// What is in the way.
    pub fn foreign(&self) -> &[(Kind, String)] {
        &self.foreign
    }
}

/// Writes for one resource.
pub struct Writer<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Who may write.
    pub claim: &'a Claim,
    /// Counts.
    pub metrics: &'a Metrics,
    /// Namespace of the resource.
    pub namespace: &'a str,
    /// Name of the resource.
    pub name: &'a str,
    /// UID of the resource.
    pub uid: &'a str,
}

impl Writer<'_> {
    fn may(&self, verb: &'static str, kind: &str) -> Result<(), Error> {
        if !self.claim.is_held() {
            return Err(Error::NotLeader);
        }
        self.metrics.write(verb, kind);
        Ok(())
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace, &resource(kind))
    }

    /// Has an object be as it shall be. `live`: as it was read.
    ///
    /// # Errors
    /// [`Error`]; somebody else's object is noted, not an error.
    pub async fn apply(
        &self,
        object: &Object,
        live: Option<&Live>,
        applied: &mut Applied,
    ) -> Result<Option<DynamicObject>, Error> {
        let what = || format!("{} {}", object.kind.as_str(), object.name);
        self.may("apply", object.kind.as_str())?;
        let mut value = object.value.clone();
        let version = live.map_or(NEVER, |live| live.resource_version.as_str());
        value["metadata"]["resourceVersion"] = json!(version);
        if let Some(live) = live {
            value["metadata"]["uid"] = json!(live.uid);
        }
        let params = PatchParams::apply(MANAGER).force();
        let api = self.api(object.kind);
        let patch = Patch::Apply(&value);
        match bounded("apply", what, api.patch(&object.name, &params, &patch)).await {
            Ok(written) => {
                applied.writes += 1;
                Ok(Some(written))
            }
            Err(Error::Api { source, .. }) if is_conflict(&source) => {
                if self.is_foreign(&api, &object.name).await? {
                    applied.foreign.push((object.kind, object.name.clone()));
                    return Ok(None);
                }
                Err(Error::Conflict { what: what() })
            }
            Err(error) => Err(error),
        }
    }

    async fn is_foreign(&self, api: &Api<DynamicObject>, name: &str) -> Result<bool, Error> {
        let found = bounded("get", || name.to_owned(), api.get_opt(name)).await?;
        Ok(found.is_some_and(|found| !is_controlled_by(&found.metadata, self.uid)))
    }

    /// Has an object go, with everything that it controls. Nothing to do when it is gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, live: &Live, applied: &mut Applied) -> Result<(), Error> {
        let what = || format!("{} {}", live.kind.as_str(), live.name);
        self.may("delete", live.kind.as_str())?;
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                resource_version: Some(live.resource_version.clone()),
                uid: Some(live.uid.clone()),
            }),
            // What it controls first: what still holds memory is still to be seen.
            propagation_policy: Some(PropagationPolicy::Foreground),
            ..DeleteParams::default()
        };
        let api = self.api(live.kind);
        match bounded("delete", what, api.delete(&live.name, &params)).await {
            Ok(_) => {
                applied.writes += 1;
                Ok(())
            }
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(Error::Api { source, .. }) if is_conflict(&source) => {
                Err(Error::Conflict { what: what() })
            }
            Err(error) => Err(error),
        }
    }

    /// Has a pod carry an annotation. A pod that is gone needs to be told nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn tell(&self, told: &Told, applied: &mut Applied) -> Result<(), Error> {
        self.may("annotate", "Pod")?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let patch = Patch::Merge(json!({
            "metadata": {"uid": told.uid, "annotations": {told.key: told.value}},
        }));
        let what = || format!("Pod {}", told.pod);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match bounded("annotate", what, api.patch(&told.pod, &params, &patch)).await {
            Ok(_) => {
                applied.writes += 1;
                Ok(())
            }
            Err(Error::Api { source, .. }) if is_not_found(&source) || is_conflict(&source) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn engines(&self) -> Api<InferenceEngine> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Sets or removes our finalizer; returns the resource's new version.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Conflict`] when the resource has changed meanwhile.
    pub async fn finalizer(&self, engine: &InferenceEngine, set: bool) -> Result<(), Error> {
        self.may("finalize", "InferenceEngine")?;
        let mut finalizers = engine.metadata.finalizers.clone().unwrap_or_default();
        finalizers.retain(|one| one != FINALIZER);
        if set {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({"metadata": {
            "uid": self.uid,
            "resourceVersion": engine.metadata.resource_version,
            "finalizers": finalizers,
        }});
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let what = || format!("InferenceEngine {}", self.name);
        let api = self.engines();
        let patch = Patch::Merge(&patch);
        let request = api.patch_metadata(self.name, &params, &patch);
        match bounded("finalize", what, request).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(Error::Api { source, .. }) if is_conflict(&source) => {
                Err(Error::Conflict { what: what() })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the status: all of it, over the version that was read.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self, version: Option<&str>, status: &Value) -> Result<(), Error> {
        self.may("status", "InferenceEngine")?;
        let mut object = json!({
            "apiVersion": "enginewright.dev/v1alpha1",
            "kind": "InferenceEngine",
            "metadata": {"name": self.name, "uid": self.uid},
            "status": status,
        });
        if let Some(version) = version {
            object["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams::apply(MANAGER).force();
        let what = || format!("InferenceEngine {}", self.name);
        let api = self.engines();
        let patch = Patch::Apply(&object);
        let request = api.patch_status(self.name, &params, &patch);
        match bounded("status", what, request).await {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_not_found(&source) => Ok(()),
            Err(Error::Api { source, .. }) if is_conflict(&source) => {
                Err(Error::Conflict { what: what() })
            }
            Err(error) => Err(error),
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
        Kind::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
        Kind::Service => ApiResource::erase::<Service>(&()),
        Kind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
        Kind::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
        Kind::Deployment => ApiResource::erase::<Deployment>(&()),
        Kind::Job => ApiResource::erase::<Job>(&()),
    }
}
