//! The agent against a real API server: what it publishes of five modules, that it is silent
//! afterwards, and that it is refused every other node's objects.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use enginewright::api::EdgeNode;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::cluster::ControlPlane;
use crate::tools::{self, Process};

const SYSTEM: &str = "enginewright-system";
const ACCOUNT: &str = "enginewright-agent";
const LIMIT: Duration = Duration::from_mins(1);

/// The control plane with `manifests/agent` applied, once for all tests here.
async fn cluster() -> &'static ControlPlane {
    static APPLIED: OnceCell<()> = OnceCell::const_new();
    let cluster = ControlPlane::shared();
    APPLIED
        .get_or_init(async || {
            cluster.start_controllers();
            let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/agent/agent.yaml");
            cluster.kubectl_says(&["apply", "--server-side", "-f", manifest]);
            let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": {"name": "nvidia"}, "handler": "nvidia"});
            let classes = Api::<RuntimeClass>::all(cluster.client());
            let apply = PatchParams::apply("tests");
            classes
                .patch("nvidia", &apply, &Patch::Apply(class))
                .await
                .unwrap();
            refused_status_of_a_stranger(cluster).await;
        })
        .await;
    cluster
}

/// A policy works a moment after it was made: waits until the administrator is refused too.
async fn refused_status_of_a_stranger(cluster: &ControlPlane) {
    let edge_nodes = Api::<EdgeNode>::all(cluster.client());
    let object: EdgeNode = serde_json::from_value(json!({
        "apiVersion": "enginewright.dev/v1alpha1", "kind": "EdgeNode", "metadata": {"name": "stranger"},
    }))
    .unwrap();
    edge_nodes
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"status": {"memory": "1Gi"}}));
    let begin = std::time::Instant::now();
    loop {
        let answer = edge_nodes
            .patch_status("stranger", &PatchParams::default(), &patch)
            .await;
        if let Err(error) = answer {
            assert!(
                error.to_string().contains("written by the agent"),
                "{error}"
            );
            return;
        }
        assert!(
            begin.elapsed() < LIMIT,
            "the policy does not come into force"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn node(cluster: &ControlPlane, name: &str) -> Node {
    let node = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
    .unwrap();
    Api::<Node>::all(cluster.client())
        .create(&PostParams::default(), &node)
        .await
        .unwrap()
}

/// A request for a token as the kubelet makes it for the agent's pod on `node`.
async fn token_on(cluster: &ControlPlane, node: &str) -> TokenRequest {
    let pod: Pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("agent-{node}"), "namespace": SYSTEM},
        "spec": {"nodeName": node, "serviceAccountName": ACCOUNT,
            "containers": [{"name": "agent", "image": "enginewright"}]}}))
    .unwrap();
    let pods = Api::<Pod>::namespaced(cluster.client(), SYSTEM);
    let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    TokenRequest {
        spec: Some(TokenRequestSpec {
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    }
}

/// The agent's process on `node` with the files of a module.
async fn agent(cluster: &ControlPlane, node: &str, module: &str) -> Process {
    let request = token_on(cluster, node).await;
    let token = cluster.token(SYSTEM, ACCOUNT, &request).await;
    let kubeconfig = cluster.kubeconfig_with(&format!("agent-{node}"), &token);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/nodes")
        .join(module);
    let mut command: Command = tools::enginewright(["agent", "--interval", "1", "--listen"]);
    command
        .arg("127.0.0.1:0")
        .args(["--node-name", node, "--kubeconfig"])
        .arg(kubeconfig)
        .arg("--host-root")
        .arg(root);
    Process::start(command)
}

/// Where the agent listens, from its log.
fn address(agent: &mut Process) -> String {
    agent.wait_for_output("address=", LIMIT);
    let output = agent.output();
    let rest = output.split("address=").nth(1).unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

async fn published(client: Client, name: &str) -> EdgeNode {
    let labelled = await_condition(
        Api::<Node>::all(client.clone()),
        name,
        |node: Option<&Node>| {
            node.is_some_and(|node| node.labels().contains_key("enginewright.dev/sm"))
        },
    );
    tokio::time::timeout(LIMIT, labelled)
        .await
        .unwrap()
        .unwrap();
    Api::<EdgeNode>::all(client).get(name).await.unwrap()
}

async fn metric(address: &str, line: &str) -> Option<u64> {
    let text = reqwest::get(format!("http://{address}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let value = text.lines().find_map(|one| one.strip_prefix(line))?.trim();
    Some(value.parse().unwrap())
}

#[tokio::test]
async fn five_modules_are_published_and_then_nothing_is_written() {
    let cluster = cluster().await;
    for (module, name, sm, memory, l4t, tensorrt, power) in [
        (
            "orin-nano-8",
            "Jetson Orin Nano 8GB",
            "8.7",
            "7Gi",
            "36.4.3",
            "10.3.0.30",
            "25W",
        ),
        (
            "orin-nx-16",
            "Jetson Orin NX 16GB",
            "8.7",
            "15Gi",
            "36.4.3",
            "10.3.0.30",
            "MAXN_SUPER",
        ),
        (
            "agx-orin-32",
            "Jetson AGX Orin 32GB",
            "8.7",
            "29Gi",
            "36.4.4",
            "10.3.0.30",
            "30W",
        ),
        (
            "agx-orin-64",
            "Jetson AGX Orin 64GB",
            "8.7",
            "61Gi",
            "36.4.3",
            "10.3.0.30",
            "MAXN",
        ),
        (
            "thor-t5000",
            "Jetson Thor T5000 128GB",
            "11.0",
            "122Gi",
            "38.2.0",
            "10.13.3.9",
            "MAXN",
        ),
    ] {
        let owner = node(cluster, module).await;
        let mut agent = agent(cluster, module, module).await;
        let address = address(&mut agent);
        let edge_node = published(cluster.client(), module).await;
        assert_eq!(edge_node.owner_references()[0].uid, owner.uid().unwrap());
        let version = edge_node.resource_version();
        let status = edge_node.status.unwrap();
        assert_eq!(status.module.unwrap().name, name);
        assert_eq!(status.gpu.unwrap().sm, sm);
        assert_eq!(status.memory.as_deref(), Some(memory));
        assert_eq!(status.software.l4t.as_deref(), Some(l4t));
        assert_eq!(status.software.tensorrt.as_deref(), Some(tensorrt));
        assert_eq!(status.power_mode.as_deref(), Some(power));
        assert_eq!(status.runtime_class.as_deref(), Some("nvidia"));

        let rounds = "enginewright_agent_rounds_total{outcome=\"Published\"}";
        let first = loop {
            if let Some(first) = metric(&address, rounds).await {
                break first;
            }
        };
        while metric(&address, rounds).await < Some(first + 2) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for object in ["EdgeNode", "Status", "Labels"] {
            let line = format!("enginewright_agent_writes_total{{object=\"{object}\"}}");
            assert_eq!(metric(&address, &line).await, Some(1), "{module} {object}");
        }
        let again = Api::<EdgeNode>::all(cluster.client())
            .get(module)
            .await
            .unwrap();
        assert_eq!(again.resource_version(), version);
        let ready = reqwest::get(format!("http://{address}/readyz"))
            .await
            .unwrap();
        assert!(ready.status().is_success());
    }
}

#[tokio::test]
async fn an_agent_is_refused_every_other_nodes_objects() {
    let cluster = cluster().await;
    for name in ["mine", "theirs"] {
        node(cluster, name).await;
    }
    let request = token_on(cluster, "mine").await;
    let client = cluster.client_with(SYSTEM, ACCOUNT, request).await;
    let apply = PatchParams::apply("enginewright-agent").force();
    let edge_node = |name: &str, status: Value| {
        Patch::Apply(
            json!({"apiVersion": "enginewright.dev/v1alpha1", "kind": "EdgeNode",
            "metadata": {"name": name}, "status": status}),
        )
    };
    let edge_nodes = Api::<EdgeNode>::all(client.clone());
    let own = json!({"memory": "15Gi"});
    edge_nodes
        .patch("mine", &apply, &edge_node("mine", json!({})))
        .await
        .unwrap();
    edge_nodes
        .patch_status("mine", &apply, &edge_node("mine", own.clone()))
        .await
        .unwrap();

    let refusal = |error: kube::Error| {
        let text = error.to_string();
        assert!(
            text.contains("of its own node only") && text.contains("\"mine\""),
            "{text}"
        );
    };
    refusal(
        edge_nodes
            .patch("theirs", &apply, &edge_node("theirs", json!({})))
            .await
            .unwrap_err(),
    );
    let administrator = Api::<EdgeNode>::all(cluster.client());
    administrator
        .patch(
            "theirs",
            &PatchParams::apply("tests"),
            &edge_node("theirs", json!({})),
        )
        .await
        .unwrap();
    refusal(
        edge_nodes
            .patch_status("theirs", &apply, &edge_node("theirs", own))
            .await
            .unwrap_err(),
    );

    let nodes = Api::<Node>::all(client);
    let labels = |name: &str, labels: Value| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}),
        )
    };
    let sm = json!({"enginewright.dev/sm": "8.7"});
    nodes
        .patch("mine", &apply, &labels("mine", sm.clone()))
        .await
        .unwrap();
    refusal(
        nodes
            .patch("theirs", &apply, &labels("theirs", sm))
            .await
            .unwrap_err(),
    );

    let foreign = labels("mine", json!({"kubernetes.io/hostname": "other"}));
    let taint = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let annotation = Patch::Merge(json!({"metadata": {"annotations": {"a": "b"}}}));
    for error in [
        nodes.patch("mine", &apply, &foreign).await.unwrap_err(),
        nodes
            .patch("mine", &PatchParams::default(), &taint)
            .await
            .unwrap_err(),
        nodes
            .patch("mine", &PatchParams::default(), &annotation)
            .await
            .unwrap_err(),
    ] {
        assert!(
            error
                .to_string()
                .contains("only the labels below enginewright.dev/"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_no_node_writes_nothing() {
    let cluster = cluster().await;
    let client = cluster.client_as(SYSTEM, ACCOUNT).await;
    let patch = Patch::Apply(
        json!({"apiVersion": "enginewright.dev/v1alpha1", "kind": "EdgeNode",
        "metadata": {"name": "anywhere"}}),
    );
    let apply = PatchParams::apply("enginewright-agent");
    let error = Api::<EdgeNode>::all(client)
        .patch("anywhere", &apply, &patch)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("of its own node only"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_with_a_wrong_name_says_so_and_is_not_ready() {
    let cluster = cluster().await;
    node(cluster, "renamed").await;
    let request = token_on(cluster, "renamed").await;
    let token = cluster.token(SYSTEM, ACCOUNT, &request).await;
    let kubeconfig = cluster.kubeconfig_with("wrong-name", &token);
    let mut command = tools::enginewright([
        "agent",
        "--node-name",
        "old-name",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.arg("--kubeconfig").arg(kubeconfig);
    let mut agent = Process::start(command);
    let address = address(&mut agent);
    agent.wait_for_output("there is no node named \"old-name\"", LIMIT);
    let ready = reqwest::get(format!("http://{address}/readyz"))
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    let healthy = reqwest::get(format!("http://{address}/healthz"))
        .await
        .unwrap();
    assert_eq!(healthy.status(), 200);
}
