//! The cache of one resource on one node: a claim that the fetch Job writes and engines only read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Volume,
    VolumeResourceRequirements,
};

use super::common::{bytes, meta};
use super::{Kind, Object, Owner};
use crate::api::Placement;
use crate::controller::names::{self, Component};

/// The claim.
pub fn cache(owner: &Owner, placement: &Placement, node: &str) -> Object {
    let claim = PersistentVolumeClaim {
        metadata: meta(owner, Component::Cache, names::cache(&owner.name, node)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: placement.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    bytes(placement.cache_bytes),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    Object::of(Kind::PersistentVolumeClaim, &claim)
}

/// A claim as a volume called `name`.
pub(super) fn volume(name: &str, claim: &str, read_only: bool) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
}
