//! One operator on one control plane, and what its tests ask for.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use enginewright::api::InferenceEngine;
use enginewright::controller::workloads::Site;
use enginewright::controller::{Options, run};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::ControlPlane;
use crate::kubelet::{self, Kubelet};

/// For anything that is awaited: a busy machine is no failure.
const LIMIT: Duration = Duration::from_mins(4);
/// Namespace of the operator.
pub const HOME: &str = "enginewright-system";

/// An operator that runs.
pub struct Operator {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
    metrics: String,
}

impl Operator {
    /// In this process, with `client`, and always by the same name, so that the lease of one that was
    /// killed need not run out first.
    pub fn start(client: Client) -> Self {
        Self::start_as(client, "test")
    }

    /// By a name of its own.
    pub fn start_as(client: Client, identity: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = format!("http://{}/metrics", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let options = Options {
            client,
            site: Site {
                image: "registry.example/enginewright:1".to_owned(),
                tensorrt_image: None,
                ollama_image: "registry.example/ollama:1".to_owned(),
                pull_policy: None,
                allowed_images: Vec::new(),
                namespace: HOME.to_owned(),
                priority_prefix: None,
                gateways: 2,
            },
            listener,
            identity: identity.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            run(options, ended).await.unwrap();
        });
        Self {
            stop,
            task: AbortOnDropHandle::new(task),
            metrics,
        }
    }

    /// Sum of the metrics whose lines `wanted` names.
    async fn count(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let response = reqwest::get(&self.metrics).await.unwrap();
        let text = response.text().await.unwrap();
        text.lines()
            .filter(|line| wanted(line))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Writes to the API server so far.
    pub async fn writes(&self) -> u64 {
        self.count(|line| line.starts_with("enginewright_operator_writes_total"))
            .await
    }

    /// Whether it leads.
    pub async fn leads(&self) -> bool {
        let leading = "enginewright_operator_leading ";
        self.count(|line| line.starts_with(leading)).await == 1
    }

    /// Reconciliations that came to their end so far.
    pub async fn reconciliations(&self) -> u64 {
        self.count(|line| line.starts_with("enginewright_operator_reconciliations_total"))
            .await
    }

    /// Reconciliations that the API server refused something to.
    pub async fn refusals(&self) -> u64 {
        self.count(|line| line.contains("reconciliations_total{result=\"api\"}"))
            .await
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// A cluster with a namespace that enforces the restricted level, a node and a kubelet.
pub struct World {
    _cluster: ControlPlane,
    /// May do everything.
    pub client: Client,
    /// May do what the installation lets the operator do.
    pub operator: Client,
    pub namespace: String,
    pub kubelet: Kubelet,
}

impl World {
    pub async fn new() -> Self {
        let cluster = tokio::task::spawn_blocking(|| {
            let cluster = ControlPlane::start();
            cluster.start_controllers();
            cluster
        })
        .await
        .unwrap();
        let client = cluster.client();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let home: Namespace = serde_json::from_value(json!({"metadata": {"name": HOME}})).unwrap();
        namespaces
            .create(&PostParams::default(), &home)
            .await
            .unwrap();
        let namespace = cluster.namespace("models").await;
        let restricted = json!({"metadata": {"labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
        }}});
        namespaces
            .patch(
                &namespace,
                &PatchParams::default(),
                &Patch::Merge(&restricted),
            )
            .await
            .unwrap();
        kubelet::node(&client).await;
        grant(&client).await;
        let operator = cluster.client_as(HOME, "enginewright-operator").await;
        let kubelet = Kubelet::start(client.clone(), &namespace);
        Self {
            _cluster: cluster,
            client,
            operator,
            namespace,
            kubelet,
        }
    }

    pub fn engines(&self) -> Api<InferenceEngine> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Writes a resource as `kubectl apply --server-side` does.
    pub async fn apply(&self, name: &str, spec: Value) -> InferenceEngine {
        let object = json!({
            "apiVersion": "enginewright.dev/v1alpha1", "kind": "InferenceEngine",
            "metadata": {"name": name}, "spec": spec,
        });
        self.engines()
            .patch(
                name,
                &PatchParams::apply("test").force(),
                &Patch::Apply(&object),
            )
            .await
            .unwrap()
    }

    /// Deletes a resource and waits until it is gone with all that was made for it.
    pub async fn delete(&self, name: &str) {
        let engines = self.engines();
        engines
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        eventually("the end", || async {
            engines.get_opt(name).await.unwrap().is_none()
        })
        .await;
        eventually("an empty namespace", || nothing_of_ours(self)).await;
    }

    /// Waits until a resource is as `wanted` says.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&InferenceEngine) -> bool,
    ) -> InferenceEngine {
        let begun = Instant::now();
        loop {
            let found = self.engines().get(name).await.unwrap();
            if wanted(&found) {
                return found;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{what} does not come: {:#?}",
                found.status
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The objects of the installation.
pub fn installed() -> Vec<Value> {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/install/install.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// The roles of the installation, as they are installed.
async fn grant(client: &Client) {
    let roles = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    let mut granted = 0;
    for document in installed() {
        let object: DynamicObject = match serde_json::from_value(document) {
            Ok(object) => object,
            // An empty document.
            Err(_) => continue,
        };
        let types = object.types.clone().unwrap();
        if !roles.contains(&types.kind.as_str()) {
            continue;
        }
        let gvk = GroupVersionKind::try_from(&types).unwrap();
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.create(&PostParams::default(), &object).await.unwrap();
        granted += 1;
    }
    assert_eq!(granted, 7);
}

/// Whether everything of ours is gone from the world's namespace, or goes.
async fn nothing_of_ours(world: &World) -> bool {
    let all = ListParams::default().labels("app.kubernetes.io/managed-by=enginewright");
    let (client, namespace) = (|| world.client.clone(), world.namespace.as_str());
    let deployments = Api::<Deployment>::namespaced(client(), namespace);
    let services = Api::<Service>::namespaced(client(), namespace);
    let maps = Api::<ConfigMap>::namespaced(client(), namespace);
    let claims = Api::<PersistentVolumeClaim>::namespaced(client(), namespace);
    let jobs = Api::<Job>::namespaced(client(), namespace);
    let pods = Api::<Pod>::namespaced(client(), namespace);
    let policies = Api::<NetworkPolicy>::namespaced(client(), namespace);
    deployments.list(&all).await.unwrap().items.is_empty()
        && services.list(&all).await.unwrap().items.is_empty()
        && maps.list(&all).await.unwrap().items.is_empty()
        && jobs.list(&all).await.unwrap().items.is_empty()
        && pods.list(&all).await.unwrap().items.is_empty()
        && policies.list(&all).await.unwrap().items.is_empty()
        && claims.list(&all).await.unwrap().items.is_empty()
}

/// The revision of a spec.
pub fn revision_of(spec: &Value) -> String {
    let resource = json!({
        "apiVersion": "enginewright.dev/v1alpha1", "kind": "InferenceEngine",
        "metadata": {"name": "smol"}, "spec": spec,
    });
    enginewright::api::parse(&resource.to_string())
        .unwrap()
        .revision()
        .to_string()
}

/// Whether a condition is `True`.
pub fn holds(engine: &InferenceEngine, kind: &str) -> bool {
    word(engine, kind).is_some_and(|(status, _)| status == "True")
}

/// A condition's status and reason.
pub fn word(engine: &InferenceEngine, kind: &str) -> Option<(String, String)> {
    let conditions = &engine.status.as_ref()?.conditions;
    let one = conditions.iter().find(|one| one.kind.as_str() == kind)?;
    Some((one.status.to_string(), one.reason.to_string()))
}

/// Waits until `check` says yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < LIMIT, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A resource that soaks for a second.
pub fn spec() -> Value {
    json!({
        "model": {"source": "pvc://models/m.gguf"},
        "engine": {"policy": "Never", "maxInputTokens": 512, "maxOutputTokens": 128, "slots": 2},
        "health": {"soak": "1s", "probeInterval": "1s"},
        "rollout": {"backoff": {"initial": "1m", "max": "1m"}},
    })
}

/// The names of all objects of a kind.
pub fn names_of<K: kube::Resource>(all: &[K]) -> Vec<String> {
    all.iter().map(ResourceExt::name_any).collect()
}
