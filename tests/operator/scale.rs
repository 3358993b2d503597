//! Many resources under one operator process: it comes to rest, writes nothing at rest, hardly reads,
//! and its successor writes nothing. `ENGINEWRIGHT_RESOURCES` says how many, `ENGINEWRIGHT_REST` for how
//! many seconds it is watched at rest.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use enginewright::api::InferenceEngine;
use enginewright::controller::names::FINALIZER;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::ControlPlane;
use crate::support::{HOME, eventually, word};
use crate::tools;

/// The namespace of the resources.
const PLACE: &str = "many";
/// Without a reconciliation for so long, it rests.
const QUIET: Duration = Duration::from_secs(3);

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The program itself, as it is installed.
struct Operator {
    process: tools::Process,
    metrics: String,
}

impl Operator {
    fn start(kubeconfig: &Path) -> Self {
        let address = tools::free_address();
        let mut command = tools::enginewright(["operator", "--image=registry.example/it:1"]);
        command
            .arg(format!("--listen={address}"))
            .arg("--identity=test")
            .env("KUBECONFIG", kubeconfig);
        let process = tools::Process::start(command);
        Self {
            process,
            metrics: format!("http://{address}/metrics"),
        }
    }

    /// Sum of its metrics that begin so.
    async fn count(&self, begins: &str) -> u64 {
        let Ok(response) = reqwest::get(&self.metrics).await else {
            return 0;
        };
        let text = response.text().await.unwrap();
        sum(&text, |line| line.starts_with(begins))
    }

    async fn writes(&self) -> u64 {
        self.count("enginewright_operator_writes_total").await
    }

    async fn reconciliations(&self) -> u64 {
        self.count("enginewright_operator_reconciliations_total")
            .await
    }

    /// Ends it in order: its Lease is free then.
    fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_for_exit(Duration::from_secs(30));
    }

    /// Resident memory in KiB: all, and of that its own.
    fn resident(&self) -> (u64, u64) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.unwrap().parse().unwrap()
        };
        (field("VmRSS:"), field("RssAnon:"))
    }
}

fn sum(text: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    text.lines()
        .filter(|line| wanted(line))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Requests with one of these verbs for what the operator works with, by anybody: nobody else is there.
/// Leases and events are not counted.
async fn requests(client: &Client, verbs: &[&str]) -> u64 {
    const KINDS: [&str; 10] = [
        "inferenceengines",
        "edgenodes",
        "deployments",
        "jobs",
        "configmaps",
        "services",
        "pods",
        "persistentvolumeclaims",
        "networkpolicies",
        "poddisruptionbudgets",
    ];
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let names = |line: &str, label: &str, values: &[&str]| {
        let is = |value: &&str| line.contains(&format!("{label}=\"{value}\""));
        values.iter().any(is)
    };
    sum(&text, |line| {
        line.starts_with("apiserver_request_total{")
            && names(line, "verb", verbs)
            && names(line, "resource", &KINDS)
    })
}

/// Writes and reads that the API server has counted.
async fn traffic(client: &Client) -> (u64, u64) {
    let writes = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
    (
        requests(client, &writes).await,
        requests(client, &["GET", "LIST"]).await,
    )
}

/// Waits until nothing has been looked at for a while: what was written last comes back as a change.
async fn rest(operator: &Operator) {
    let quiet = Mutex::new((0, Instant::now()));
    eventually("rest", || async {
        let now = operator.reconciliations().await;
        let mut quiet = quiet.lock().unwrap();
        if quiet.0 != now {
            *quiet = (now, Instant::now());
        }
        quiet.1.elapsed() > QUIET
    })
    .await;
}

/// Whether the operator has said of all that they are suspended.
async fn all_are_settled(engines: &Api<InferenceEngine>) -> bool {
    // Reading them all costs the API server as much as the operator costs it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let all = engines.list(&ListParams::default()).await.unwrap();
    all.iter().all(|one| {
        let observed = one.status.as_ref().and_then(|it| it.observed_generation);
        observed == one.metadata.generation
            && one.finalizers().contains(&FINALIZER.to_owned())
            && word(one, "Ready").is_some_and(|(_, reason)| reason == "Suspended")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_resources_come_to_rest_and_cost_nothing_there() {
    let resources = number("ENGINEWRIGHT_RESOURCES", 50);
    let watched = Duration::from_secs(number("ENGINEWRIGHT_REST", 10).into());
    let cluster = tokio::task::spawn_blocking(ControlPlane::start)
        .await
        .unwrap();
    let client = cluster.client();
    for name in [HOME, PLACE] {
        let one: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &one)
            .await
            .unwrap();
    }
    let engines: Api<InferenceEngine> = Api::namespaced(client.clone(), PLACE);
    let operator = Operator::start(cluster.kubeconfig());
    let begun = Instant::now();
    futures::stream::iter(0..resources)
        .for_each_concurrent(8, async |number| {
            let one = serde_json::from_value(json!({
                "apiVersion": "enginewright.dev/v1alpha1", "kind": "InferenceEngine",
                "metadata": {"name": format!("model-{number}")},
                "spec": {"model": {"source": "pvc://models/m.gguf"}, "suspend": true},
            }))
            .unwrap();
            engines.create(&PostParams::default(), &one).await.unwrap();
        })
        .await;
    let written = begun.elapsed();
    eventually("rest", || all_are_settled(&engines)).await;
    let settled = begun.elapsed();
    println!(
        "{resources} resources: written in {written:?}, settled after {:?}, {} writes, {} \
         reconciliations, resident {:?} KiB",
        settled,
        operator.writes().await,
        operator.reconciliations().await,
        operator.resident()
    );
    rest(&operator).await;

    let before = traffic(&client).await;
    tokio::time::sleep(watched).await;
    let after = traffic(&client).await;
    let (writes, reads) = (after.0 - before.0, after.1 - before.1);
    println!("{watched:?} at rest: {writes} writes, {reads} reads");
    assert_eq!(writes, 0, "nothing is written at rest");
    assert!(reads <= watched.as_secs(), "{reads} reads");
    operator.stop();
    let before = traffic(&client).await;

    let begun = Instant::now();
    let successor = Operator::start(cluster.kubeconfig());
    eventually("the successor to look at all", || async {
        successor.reconciliations().await >= u64::from(resources)
    })
    .await;
    let looked = begun.elapsed();
    rest(&successor).await;
    let writes = traffic(&client).await.0 - before.0;
    println!(
        "the successor looked at all after {looked:?}: {writes} writes, resident {:?} KiB",
        successor.resident()
    );
    assert_eq!(writes, 0, "the successor writes nothing");
    engines
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    eventually("all to go", || async {
        let left = engines.list(&ListParams::default()).await.unwrap();
        left.items.is_empty()
    })
    .await;
}
