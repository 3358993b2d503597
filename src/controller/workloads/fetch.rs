//! The Jobs that work on a node's cache: one brings a revision's model, one deletes what is not
//! wanted any more. A Job that failed is not repeated by Kubernetes but by the planner, which knows
//! whose fault it was from the termination message.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PodSpec, PodTemplateSpec, SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::common::{
    container, meta, mount, pinned, pod, pod_labels, resources, scratch, seconds, tolerations,
};
use super::{Kind, Object, Owner, Site, cache};
use crate::api::{Model, ModelSource, Placement, RevisionId};
use crate::controller::names::{self, ATTEMPT, Component, REVISION};
use crate::engine::Served;

/// Name of the model's file in its revision's folder.
pub const MODEL_FILE: &str = "model.gguf";
const MIB: u64 = 1 << 20;

/// What a fetch needs to know.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// For which revision.
    pub revision: &'a RevisionId,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// The model.
    pub model: &'a Model,
    /// What the revision's record shall say.
    pub served: &'a Served,
    /// Where.
    pub placement: &'a Placement,
    /// The node's hostname label.
    pub hostname: &'a str,
    /// The claim of the cache.
    pub claim: &'a str,
    /// Longest time without progress.
    pub deadline: std::time::Duration,
}

/// The Job that brings a model.
pub fn fetch(owner: &Owner, site: &Site, fetch: &Fetch<'_>) -> Object {
    let revision = fetch.revision.as_str();
    let mut args = vec![
        "fetch".to_owned(),
        fetch.model.source.to_string(),
        "--cache=/cache".to_owned(),
        format!("--revision={revision}"),
        format!("--served-name={}", fetch.served.served_name),
        format!("--slots={}", fetch.served.slots),
        format!("--max-input-tokens={}", fetch.served.max_input_tokens),
        format!("--max-output-tokens={}", fetch.served.max_output_tokens),
        format!("--progress-deadline={}", seconds(fetch.deadline)),
        "--report=/dev/termination-log".to_owned(),
        "--log-format=json".to_owned(),
    ];
    if let Some(digest) = &fetch.model.sha256 {
        args.push(format!("--sha256={digest}"));
    }
    if let Some(endpoint) = &fetch.model.endpoint {
        args.push(format!("--endpoint={endpoint}"));
    }
    let mut volumes = vec![cache::volume("cache", fetch.claim, false)];
    let mut mounts = vec![mount("cache", "/cache", false)];
    let mut env = Vec::new();
    if let ModelSource::Pvc { claim, .. } = &fetch.model.source {
        volumes.push(cache::volume("source", claim, true));
        mounts.push(mount("source", "/source", true));
        args.push("--claims=/source".to_owned());
    }
    if let Some(secret) = &fetch.model.credentials {
        volumes.push(Volume {
            name: "credentials".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.name.clone()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        mounts.push(mount("credentials", "/credentials", true));
        env.push(EnvVar {
            name: "ENGINEWRIGHT_CREDENTIALS".to_owned(),
            value: Some("/credentials".to_owned()),
            value_from: None,
        });
    }
    let work = Container {
        volume_mounts: Some(mounts),
        env: (!env.is_empty()).then_some(env),
        // The page cache of what is written counts too, and is given back under pressure.
        resources: Some(resources(100, 64 * MIB, 512 * MIB)),
        ..container(site, &site.image, "fetch", args)
    };
    let part = [(REVISION, revision)];
    let name = names::fetch(&owner.name, fetch.revision, fetch.attempt);
    let mut job = job(owner, site, Component::Fetch, name, &part, work, volumes);
    numbered(&mut job, revision, fetch.attempt);
    place(&mut job, fetch.placement, fetch.hostname);
    Object::of(Kind::Job, &job)
}

/// What a collection needs to know.
#[derive(Clone, Debug)]
pub struct Collect<'a> {
    /// Revisions that stay, sorted.
    pub keep: Vec<&'a str>,
    /// Where.
    pub placement: &'a Placement,
    /// The node's hostname label.
    pub hostname: &'a str,
    /// The claim of the cache.
    pub claim: &'a str,
}

/// The Job that deletes every revision but those to keep.
pub fn collect(owner: &Owner, site: &Site, collect: &Collect<'_>) -> Object {
    let keep = collect.keep.join(",");
    let args = vec![
        "collect".to_owned(),
        "--cache=/cache".to_owned(),
        format!("--keep={keep}"),
    ];
    let work = Container {
        volume_mounts: Some(vec![mount("cache", "/cache", false)]),
        resources: Some(resources(50, 32 * MIB, 128 * MIB)),
        ..container(site, &site.image, "collect", args)
    };
    let volumes = vec![cache::volume("cache", collect.claim, false)];
    let name = names::collect(&owner.name, &keep);
    let mut job = job(owner, site, Component::Collect, name, &[], work, volumes);
    place(&mut job, collect.placement, collect.hostname);
    Object::of(Kind::Job, &job)
}

/// Which revision a Job works for, and which try it is.
pub(super) fn numbered(job: &mut Job, revision: &str, attempt: u32) {
    let labels = job.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), revision.to_owned());
    labels.insert(ATTEMPT.to_owned(), attempt.to_string());
}

pub(super) fn job(
    owner: &Owner,
    site: &Site,
    component: Component,
    name: String,
    part: &[(&str, &str)],
    mut work: Container,
    mut volumes: Vec<Volume>,
) -> Job {
    let (volume, tmp) = scratch();
    volumes.push(volume);
    work.volume_mounts.get_or_insert_default().push(tmp);
    Job {
        metadata: meta(owner, component, name),
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(owner, component, part)),
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    restart_policy: Some("Never".to_owned()),
                    containers: vec![work],
                    volumes: Some(volumes),
                    ..pod(site, "work")
                }),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

pub(super) fn place(job: &mut Job, placement: &Placement, hostname: &str) {
    if let Some(spec) = job
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut())
    {
        spec.node_selector = Some(pinned(hostname));
        spec.tolerations = Some(tolerations(&placement.tolerations));
    }
}
