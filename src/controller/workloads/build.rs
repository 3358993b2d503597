//! The Job that builds a revision's engine, on the node that will run it: TensorRT's engines are for
//! one GPU and one TensorRT. It has the node's GPU through its runtime class; the fallback answers
//! meanwhile.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::common::{container, gpu, model_path, mount, resources, seconds};
use super::fetch::{job, numbered, place};
use super::{Kind, Object, Owner, Site, cache};
use crate::api::{Placement, RevisionId};
use crate::controller::names::{self, Component, REVISION};
use crate::engine::Served;
use crate::hardware::Sm;

const MIB: u64 = 1 << 20;

/// What a build needs to know.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// For which revision.
    pub revision: &'a RevisionId,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Image of this program with the shim for the node's TensorRT.
    pub image: &'a str,
    /// Runtime class of the GPU.
    pub runtime_class: &'a str,
    /// Compute capability of the GPU.
    pub sm: Sm,
    /// The number format that fits, in the words of `engine build --precision`.
    pub precision: &'a str,
    /// What the engine is for.
    pub served: &'a Served,
    /// Memory at the build's peak, in bytes.
    pub memory_bytes: u64,
    /// Where.
    pub placement: &'a Placement,
    /// The node's hostname label.
    pub hostname: &'a str,
    /// The claim of the cache.
    pub claim: &'a str,
    /// Longest time without progress.
    pub deadline: Duration,
}

/// Folder of a revision's bundles in the cache.
fn bundles(revision: &RevisionId) -> String {
    format!("/cache/revisions/{revision}/engine")
}

/// Where a bundle lies in the cache.
pub fn bundle_path(revision: &RevisionId, bundle: &str) -> String {
    format!("{}/{bundle}", bundles(revision))
}

/// The Job that builds.
pub fn build(owner: &Owner, site: &Site, build: &Build<'_>) -> Object {
    let revision = build.revision.as_str();
    let served = build.served;
    let args = vec![
        "engine".to_owned(),
        "build".to_owned(),
        format!("--model={}", model_path(build.revision)),
        format!("--out={}", bundles(build.revision)),
        format!("--sm={}", build.sm),
        format!("--precision={}", build.precision),
        format!("--slots={}", served.slots),
        format!("--max-input-tokens={}", served.max_input_tokens),
        format!("--max-output-tokens={}", served.max_output_tokens),
        format!("--progress-deadline={}", seconds(build.deadline)),
        "--report=/dev/termination-log".to_owned(),
        "--log-format=json".to_owned(),
    ];
    let limit = build.memory_bytes + build.memory_bytes / 4 + 256 * MIB;
    let work = Container {
        volume_mounts: Some(vec![mount("cache", "/cache", false)]),
        env: Some(gpu()),
        resources: Some(resources(250, build.memory_bytes, limit)),
        ..container(site, build.image, "build", args)
    };
    let volumes = vec![cache::volume("cache", build.claim, false)];
    let name = names::build(&owner.name, build.revision, build.attempt);
    let part = [(REVISION, revision)];
    let mut job = job(owner, site, Component::Build, name, &part, work, volumes);
    numbered(&mut job, revision, build.attempt);
    place(&mut job, build.placement, build.hostname);
    if let Some(pod) = job.spec.as_mut().and_then(|one| one.template.spec.as_mut()) {
        pod.runtime_class_name = Some(build.runtime_class.to_owned());
    }
    Object::of(Kind::Job, &job)
}
