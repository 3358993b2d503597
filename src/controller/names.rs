//! Names, labels and annotations of what belongs to an `InferenceEngine`. They decide what is ours,
//! so they never change: an operator of the next release must find what this one made.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::api::{Name, RevisionId};
use crate::planner::InstanceId;

/// Who writes: the field manager of every server-side apply.
pub const MANAGER: &str = "enginewright";
/// Keeps a resource until what belongs to it has ended.
pub const FINALIZER: &str = "enginewright.dev/cleanup";
/// Value of `app.kubernetes.io/managed-by`, by which everything of ours is watched.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by=enginewright";
/// Label with the name of the `InferenceEngine`.
pub const ENGINE: &str = "enginewright.dev/engine";
/// Label with the part that an object plays.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label with the revision.
pub const REVISION: &str = "enginewright.dev/revision";
/// Label with the number of an engine.
pub const INSTANCE: &str = "enginewright.dev/instance";
/// Label with the number of a piece of work.
pub const ATTEMPT: &str = "enginewright.dev/attempt";
/// Annotation of an engine's Deployment: everything it was made from.
pub const LAUNCH: &str = "enginewright.dev/launch";
/// Annotation of the route table: the planner's route behind it.
pub const ROUTE: &str = "enginewright.dev/route";
/// Annotation of a gateway's pod: the newest route table. Its change makes the kubelet look at the
/// pod's volumes at once.
pub const ROUTES_WANTED: &str = "enginewright.dev/routes";
/// Annotation of the fallback: whether its model shall be loaded.
pub const ORDER: &str = "enginewright.dev/order";

/// The part that an object plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The stable endpoint.
    Gateway,
    /// An engine.
    Engine,
    /// The managed fallback.
    Ollama,
    /// Brings models to the node.
    Fetch,
    /// Builds engines on the node.
    Build,
    /// Deletes models from the node.
    Collect,
    /// Models and engines on a node.
    Cache,
    /// What the planner must remember.
    State,
}

impl Component {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Engine => "engine",
            Self::Ollama => "ollama",
            Self::Fetch => "fetch",
            Self::Build => "build",
            Self::Collect => "collect",
            Self::Cache => "cache",
            Self::State => "state",
        }
    }
}

/// The Service of the endpoint.
pub fn endpoint(engine: &Name) -> String {
    engine.to_string()
}

/// The gateway's Deployment, disruption budget and route table.
pub fn gateway(engine: &Name) -> String {
    format!("{engine}-gateway")
}

/// The route table.
pub fn routes(engine: &Name) -> String {
    format!("{engine}-routes")
}

/// The managed fallback's Deployment, Service and policy.
pub fn ollama(engine: &Name) -> String {
    format!("{engine}-ollama")
}

/// What the planner must remember.
pub fn state(engine: &Name) -> String {
    format!("{engine}-state")
}

/// The policy of the engines' network.
pub fn engines(engine: &Name) -> String {
    format!("{engine}-engine")
}

/// One engine's Deployment and Service.
pub fn instance(engine: &Name, revision: &RevisionId, id: InstanceId) -> String {
    format!("{engine}-{revision}-{id}")
}

/// The claim of a node's cache.
pub fn cache(engine: &Name, node: &str) -> String {
    format!("{engine}-cache-{}", &short(node))
}

/// A Job that brings a model.
pub fn fetch(engine: &Name, revision: &RevisionId, attempt: u32) -> String {
    format!("{engine}-fetch-{revision}-{attempt}")
}

/// A Job that builds an engine.
pub fn build(engine: &Name, revision: &RevisionId, attempt: u32) -> String {
    format!("{engine}-build-{revision}-{attempt}")
}

/// A Job that deletes what is not in `keep`.
pub fn collect(engine: &Name, keep: &str) -> String {
    format!("{engine}-collect-{}", short(keep))
}

fn short(text: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(text));
    digest.truncate(8);
    digest
}

/// Labels of an object of ours.
pub fn labels(engine: &Name, component: Component) -> BTreeMap<String, String> {
    let mut labels = selector(engine, component);
    for (key, value) in [
        ("app.kubernetes.io/name", "enginewright"),
        ("app.kubernetes.io/managed-by", "enginewright"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The labels that select a component's pods; never changed, because a Deployment's cannot be.
pub fn selector(engine: &Name, component: Component) -> BTreeMap<String, String> {
    BTreeMap::from([
        (ENGINE.to_owned(), engine.to_string()),
        (COMPONENT.to_owned(), component.as_str().to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MAX_NAME;

    #[test]
    fn the_longest_name_leaves_room_for_every_suffix() {
        let name = Name::new(&"a".repeat(MAX_NAME)).unwrap();
        let revision = RevisionId::new("0123456789");
        for made in [
            gateway(&name),
            routes(&name),
            ollama(&name),
            state(&name),
            engines(&name),
            instance(&name, &revision, InstanceId(9_999_999_999)),
            cache(&name, &"n".repeat(253)),
            fetch(&name, &revision, 99_999),
            build(&name, &revision, 99_999),
            collect(&name, "x"),
        ] {
            assert!(made.len() <= 63, "{made}");
        }
    }
}
