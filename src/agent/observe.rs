//! Observing: the machine through the probe, the node's objects through the API server.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Client;
use kube::api::{Api, ObjectMeta};
use serde_json::Value;

use super::decide::{Host, MANAGER, NodeSeen, RUNTIME_CLASS, Seen};
use super::publish::within;
use super::{AgentError, Config};
use crate::api::EdgeNode;
use crate::hardware::{Bytes, probe};

/// Looks at the node and at its objects.
pub(super) struct Observer {
    client: Client,
    config: Config,
}

impl Observer {
    pub(super) const fn new(client: Client, config: Config) -> Self {
        Self { client, config }
    }

    /// One look.
    ///
    /// # Errors
    /// [`AgentError`] when the objects cannot be read. The machine can always be looked at: what
    /// cannot be read of it is absent.
    pub(super) async fn look(&self) -> Result<Seen, AgentError> {
        let name = self.config.node.as_str();
        let config = self.config.clone();
        let host = tokio::task::spawn_blocking(move || host(&config)).await?;
        let nodes = Api::<Node>::all(self.client.clone());
        let node = within("read the Node", nodes.get_metadata_opt(name))
            .await?
            .ok_or_else(|| AgentError::NoSuchNode(name.to_owned()))?;
        let edge_nodes = Api::<EdgeNode>::all(self.client.clone());
        let edge_node = within("read the EdgeNode", edge_nodes.get_opt(name)).await?;
        let classes = Api::<RuntimeClass>::all(self.client.clone());
        let class = within(
            "read the RuntimeClass",
            classes.get_metadata_opt(RUNTIME_CLASS),
        )
        .await?;
        Ok(Seen {
            host,
            node: node_seen(node.metadata),
            edge_node,
            runtime_class: class.is_some(),
            now: k8s_openapi::jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
        })
    }
}

fn host(config: &Config) -> Host {
    let hardware = if config.host_root == Path::new("/") {
        probe::probe()
    } else {
        probe::probe_files(&config.host_root)
    };
    let cache = config.cache.strip_prefix("/").unwrap_or(&config.cache);
    Host {
        hardware,
        free_disk: free_disk(&config.host_root.join(cache)),
    }
}

/// Free space for this user on the file system of `folder`; where it is not there yet, of the next
/// folder above it.
fn free_disk(folder: &Path) -> Option<Bytes> {
    folder.ancestors().find_map(|folder| {
        let found = rustix::fs::statvfs(folder).ok()?;
        Some(Bytes(found.f_bavail.saturating_mul(found.f_frsize)))
    })
}

fn node_seen(metadata: ObjectMeta) -> NodeSeen {
    NodeSeen {
        ours: our_labels(metadata.managed_fields.as_deref().unwrap_or_default()),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
    }
}

/// Keys of the labels that our field manager applied.
fn our_labels(entries: &[ManagedFieldsEntry]) -> BTreeSet<String> {
    let ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    entries
        .iter()
        .filter(ours)
        .filter_map(|entry| {
            let Value::Object(labels) = entry
                .fields_v1
                .as_ref()?
                .0
                .get("f:metadata")?
                .get("f:labels")?
            else {
                return None;
            };
            Some(labels.keys().filter_map(|key| key.strip_prefix("f:")))
        })
        .flatten()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_of_other_managers_are_not_ours() {
        let entry = |manager: &str, label: &str| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some("Apply".to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:metadata": {"f:labels": {label: {}}}}))),
            ..ManagedFieldsEntry::default()
        };
        let found = our_labels(&[
            entry("kubectl", "f:a"),
            entry(MANAGER, "f:enginewright.dev/sm"),
        ]);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["enginewright.dev/sm"]
        );
    }

    #[test]
    fn free_space_of_a_folder_to_come_is_that_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let here = free_disk(folder.path()).unwrap();
        let below = free_disk(&folder.path().join("not/yet")).unwrap();
        // Other processes write meanwhile.
        assert!(here.0.abs_diff(below.0) < 1 << 30, "{here} {below}");
    }
}
