//! From the planner's actions to objects: everything of ours as it shall be, what goes, and which
//! pods have to be told something. Pure.
//!
//! What exists and is not being ended is part of it, whether or not there is an action for it: so
//! what somebody edits is put back, and where nothing was edited nothing is written
//! ([`super::diff`]).

mod engines;
mod gateway;
mod ollama;
mod work;

pub(crate) use gateway::endpoint;
pub(crate) use work::collections;

use super::notes::Notes;
use super::view::View;
use super::workloads::{Kind, Object};
use super::world::Live;
use crate::planner::{Action, Plan};

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Objects as they shall be, in the order in which they are needed.
    pub objects: Vec<Object>,
    /// Objects that go.
    pub doomed: Vec<Live>,
    /// Annotations that pods shall have.
    pub told: Vec<Told>,
}

/// An annotation that a pod shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Name of the pod.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// The annotation.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Everything as it shall be after `plan`.
pub fn desired(view: &View<'_>, notes: &Notes, plan: &Plan) -> Desired {
    let mut desired = Desired::default();
    gateway::gateway(view, notes, plan, &mut desired);
    work::work(view, notes, plan, &mut desired);
    ollama::ollama(view, notes, plan, &mut desired);
    engines::engines(view, plan, &mut desired);
    desired
}

impl Desired {
    /// Has an object go, if it is there and not going already.
    fn doom(&mut self, view: &View<'_>, kind: Kind, name: &str) {
        if let Some(live) = view.world.live(kind, name)
            && !live.deleting
        {
            self.doomed.push(live);
        }
    }

    /// Has a pod carry an annotation, unless it does.
    fn tell(&mut self, pod: &k8s_openapi::api::core::v1::Pod, key: &'static str, value: &str) {
        let meta = &pod.metadata;
        if super::world::annotation(meta, key) == Some(value) || meta.deletion_timestamp.is_some() {
            return;
        }
        if let (Some(name), Some(uid)) = (&meta.name, &meta.uid) {
            self.told.push(Told {
                pod: name.clone(),
                uid: uid.clone(),
                key,
                value: value.to_owned(),
            });
        }
    }
}

fn orders(plan: &Plan, wanted: impl Fn(&Action) -> bool) -> bool {
    plan.actions.iter().any(wanted)
}
