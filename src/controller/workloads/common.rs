//! What all pods of ours have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, Container, EmptyDirVolumeSource, EnvVar, HTTPGetAction, Lifecycle,
    LifecycleHandler, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext, SleepAction, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Owner, Site};
use crate::api::inference_engine::{TaintEffect, TolerationOperator};
use crate::api::{RevisionId, inference_engine};
use crate::controller::names::{Component, labels, selector};

const MIB: u64 = 1 << 20;
/// The user of the distroless images.
const USER: i64 = 65_532;

/// Name, labels and owner of an object.
pub(super) fn meta(owner: &Owner, component: Component, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(owner.namespace.clone()),
        labels: Some(labels(&owner.name, component)),
        owner_references: Some(vec![OwnerReference {
            api_version: "enginewright.dev/v1alpha1".to_owned(),
            kind: "InferenceEngine".to_owned(),
            name: owner.name.to_string(),
            uid: owner.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// A map with one entry.
pub fn state_map(
    owner: &Owner,
    component: Component,
    name: String,
    (key, text): (&str, String),
) -> ConfigMap {
    ConfigMap {
        metadata: meta(owner, component, name),
        data: Some(BTreeMap::from([(key.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// Selects the pods of a component, and of one of its parts.
pub(super) fn select(owner: &Owner, component: Component, part: &[(&str, &str)]) -> LabelSelector {
    LabelSelector {
        match_labels: Some(with(selector(&owner.name, component), part)),
        ..LabelSelector::default()
    }
}

/// Labels of a pod of a component, and of one of its parts.
pub(super) fn pod_labels(
    owner: &Owner,
    component: Component,
    part: &[(&str, &str)],
) -> BTreeMap<String, String> {
    with(labels(&owner.name, component), part)
}

fn with(mut labels: BTreeMap<String, String>, part: &[(&str, &str)]) -> BTreeMap<String, String> {
    for (key, value) in part {
        labels.insert((*key).to_owned(), (*value).to_owned());
    }
    labels
}

/// A pod that may do nothing but its work.
pub(super) fn pod(site: &Site, priority: &str) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        priority_class_name: site
            .priority_prefix
            .as_ref()
            .map(|prefix| format!("{prefix}{priority}")),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// A container of this program.
pub(super) fn container(site: &Site, image: &str, name: &str, args: Vec<String>) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: site.pull_policy.clone(),
        args: Some(args),
        security_context: Some(security(true)),
        // The last words of a process are what a person gets to read.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// What Pod Security's restricted level demands of a container.
pub(super) fn security(read_only: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        read_only_root_filesystem: Some(read_only),
        ..SecurityContext::default()
    }
}

/// Asks `path` every `period` seconds; `failures` in a row count.
pub(super) fn probe(path: &str, port: u16, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5.min(period.max(2))),
        ..Probe::default()
    }
}

/// Lets a pod serve on for a moment after it was told to end: until nobody sends it requests.
pub(super) fn linger(seconds: i64) -> Lifecycle {
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

/// Requests and the limit of memory. The processor is never limited: what nobody else wants is used.
pub(super) fn resources(millicores: u32, request: u64, limit: u64) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(format!("{millicores}m"))),
            ("memory".to_owned(), bytes(request)),
        ])),
        limits: Some(BTreeMap::from([("memory".to_owned(), bytes(limit))])),
        ..ResourceRequirements::default()
    }
}

/// Bytes, rounded up to MiB, as Kubernetes itself would write them.
pub(super) fn bytes(bytes: u64) -> Quantity {
    let mebibytes = bytes.div_ceil(MIB);
    if mebibytes > 0 && mebibytes.is_multiple_of(1024) {
        Quantity(format!("{}Gi", mebibytes / 1024))
    } else {
        Quantity(format!("{mebibytes}Mi"))
    }
}

/// What a resource tolerates, and what is always tolerated: a device that lost its link serves on.
pub(super) fn tolerations(named: &[inference_engine::Toleration]) -> Vec<Toleration> {
    let always = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ];
    let mut tolerations: Vec<Toleration> = always
        .into_iter()
        .map(|key| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        })
        .collect();
    tolerations.extend(named.iter().map(|one| {
        Toleration {
            key: one.key.clone(),
            operator: Some(
                match one.operator {
                    TolerationOperator::Equal => "Equal",
                    TolerationOperator::Exists => "Exists",
                }
                .to_owned(),
            ),
            value: one.value.clone(),
            effect: one.effect.map(|effect| {
                match effect {
                    TaintEffect::NoSchedule => "NoSchedule",
                    TaintEffect::PreferNoSchedule => "PreferNoSchedule",
                    TaintEffect::NoExecute => "NoExecute",
                }
                .to_owned()
            }),
            ..Toleration::default()
        }
    }));
    tolerations
}

/// On this node and no other.
pub(super) fn pinned(hostname: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("kubernetes.io/hostname".to_owned(), hostname.to_owned())])
}

/// A small folder for temporary files.
pub(super) fn scratch() -> (Volume, VolumeMount) {
    let volume = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("64Mi".to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    (volume, mount("tmp", "/tmp", false))
}

/// What NVIDIA's container runtime looks for where no device plugin sets it.
pub(super) fn gpu() -> Vec<EnvVar> {
    let variables = [
        ("NVIDIA_VISIBLE_DEVICES", "all"),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
    ];
    let variable = |(name, value): (&str, &str)| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    };
    variables.into_iter().map(variable).collect()
}

/// Mounts a volume.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Where the model of a revision lies in the cache.
pub(super) fn model_path(revision: &RevisionId) -> String {
    format!("/cache/revisions/{revision}/model.gguf")
}

/// Whole seconds, at least one.
pub(super) fn seconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_the_api_server_writes_them() {
        for (given, expected) in [
            (1, "1Mi"),
            (MIB, "1Mi"),
            (1024 * MIB, "1Gi"),
            (1025 * MIB, "1025Mi"),
            (0, "0Mi"),
        ] {
            assert_eq!(bytes(given).0, expected);
        }
    }

    #[test]
    fn not_ready_and_unreachable_are_tolerated_without_limit() {
        let all = tolerations(&[]);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|one| one.toleration_seconds.is_none()));
    }
}
