//! The agent as the `DaemonSet` of `manifests/agent`, with the files of an Orin NX as the node's root.

use std::time::{Duration, Instant};

use enginewright::api::EdgeNode;
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{Api, ResourceExt};

use crate::cluster::{NODE, Node, enginewright};
use crate::tools;

const LIMIT: Duration = Duration::from_mins(2);

/// The manifest with this build's image, and a recorded tree in place of the node's root.
pub fn manifest() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let manifest = std::fs::read_to_string(format!("{root}/manifests/agent/agent.yaml")).unwrap();
    let image = "ghcr.io/enginewright/enginewright:0.1.0";
    let host = "hostPath: { path: / }";
    assert!(manifest.contains(image) && manifest.contains(host));
    let tree = format!("hostPath: {{ path: {root}/tests/fixtures/nodes/orin-nx-16 }}");
    manifest
        .replace(image, "localhost/enginewright:test")
        .replace(host, &tree)
}

/// Resident memory of the agent's process, in KiB.
fn resident() -> Option<u64> {
    let process = std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = tools::command_line(pid);
        (line.contains("enginewright agent --host-root /host") && !line.contains("guard"))
            .then_some(pid)
    })?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_daemon_set_publishes_its_node() {
    let node = Node::start(&[enginewright()]);
    let begin = Instant::now();
    node.kubectl(&["apply", "--server-side", "-f", "-"], &manifest());
    let status = tools::wait_for("the EdgeNode to be published", LIMIT, || {
        node.run(async |client| Api::<EdgeNode>::all(client).get(NODE).await.ok()?.status)
    });
    println!("published after {:?}", begin.elapsed());
    assert_eq!(status.module.unwrap().name, "Jetson Orin NX 16GB");
    assert_eq!(status.runtime_class.as_deref(), Some("nvidia"));
    let label = tools::wait_for("the Node to be labelled", LIMIT, || {
        node.run(async |client| {
            let found = Api::<ApiNode>::all(client).get(NODE).await.ok()?;
            found.labels().get("enginewright.dev/module").cloned()
        })
    });
    assert_eq!(label, "orin-nx-16gb");
    let rollout = [
        "rollout",
        "status",
        "-n",
        "enginewright-system",
        "daemonset/enginewright-agent",
        "--timeout=60s",
    ];
    node.kubectl(&rollout, "");
    let table = node.kubectl(&["get", "edgenodes"], "");
    println!("{table}");
    assert!(table.contains("Jetson Orin NX 16GB"), "{table}");
    println!("agent: {:?} KiB resident (test build)", resident());
}
