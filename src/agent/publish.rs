//! Writing: server-side apply with one field manager, each call within a time.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::AgentError;
use super::decide::{MANAGER, Write};
use crate::api::EdgeNode;

/// Longest wait for one answer of the API server.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Does one write to the objects of the node `name`.
///
/// # Errors
/// [`AgentError`] when the API server does not take it.
pub(super) async fn publish(client: &Client, name: &str, write: &Write) -> Result<(), AgentError> {
    let apply = PatchParams::apply(MANAGER).force();
    let edge_nodes = Api::<EdgeNode>::all(client.clone());
    match write {
        Write::Object { owner } => {
            let object = json!({
                "apiVersion": "enginewright.dev/v1alpha1",
                "kind": "EdgeNode",
                "metadata": {"name": name, "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}
                ]},
            });
            let patch = Patch::Apply(&object);
            within("write the EdgeNode", edge_nodes.patch(name, &apply, &patch)).await?;
        }
        Write::Status(status) => {
            let object = json!({
                "apiVersion": "enginewright.dev/v1alpha1",
                "kind": "EdgeNode",
                "metadata": {"name": name},
                "status": status,
            });
            let patch = Patch::Apply(&object);
            let written = edge_nodes.patch_status(name, &apply, &patch);
            within("write the EdgeNode's status", written).await?;
        }
        Write::Labels(labels) => {
            let object = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
            });
            let nodes = Api::<Node>::all(client.clone());
            let patch = Patch::Apply(&object);
            within("label the Node", nodes.patch_metadata(name, &apply, &patch)).await?;
        }
    }
    Ok(())
}

/// An answer of the API server, within [`PATIENCE`].
pub(super) async fn within<T>(
    what: &'static str,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, AgentError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Err(AgentError::Forbidden {
            what,
            message: status.message.clone(),
        }),
        Ok(Err(source)) => Err(AgentError::Api {
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(AgentError::TimedOut(what)),
    }
}
