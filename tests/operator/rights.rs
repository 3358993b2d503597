//! What the operator may do is what it does: a full life under the role of the chart, every request
//! recorded. A verb that is refused is missing from the role, one that is never used is too much.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::{Method, Request, StatusCode};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use crate::support::{Operator, World, eventually, holds, installed, revision_of, spec, word};

/// A verb on a resource (with its subresource) of an API group.
type Right = (String, String, String);

#[derive(Debug, Default)]
struct Record {
    used: BTreeSet<Right>,
    refused: BTreeSet<Right>,
}

/// A client whose requests are recorded.
fn recorded(client: Client) -> (Client, Arc<Mutex<Record>>) {
    let record = Arc::<Mutex<Record>>::default();
    let written = Arc::clone(&record);
    let layer = service_fn(move |request: Request<Body>| {
        let right = right(&request);
        let (client, record) = (client.clone(), Arc::clone(&written));
        async move {
            let answer = client.send(request).await?;
            let mut record = record.lock().unwrap();
            // An apply that creates needs both verbs.
            if answer.status() == StatusCode::CREATED && right.2 == "patch" {
                let create = (right.0.clone(), right.1.clone(), "create".to_owned());
                record.used.insert(create);
            }
            if answer.status() == StatusCode::FORBIDDEN {
                record.refused.insert(right.clone());
            }
            record.used.insert(right);
            drop(record);
            Ok::<_, kube::Error>(answer)
        }
    });
    (Client::new(layer, "default"), record)
}

/// What a request needs.
fn right(request: &Request<Body>) -> Right {
    let path = request.uri().path();
    let mut words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let group = if words.remove(0) == "api" {
        ""
    } else {
        words.remove(0)
    };
    words.remove(0);
    if words[0] == "namespaces" && words.len() > 2 {
        words.drain(..2);
    }
    let named = words.len() > 1;
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let verb = match *request.method() {
        Method::GET if watches => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        ref other => panic!("{other} {path}"),
    };
    let resource = match words.get(2) {
        Some(subresource) => format!("{}/{subresource}", words[0]),
        None => words[0].to_owned(),
    };
    (group.to_owned(), resource, verb.to_owned())
}

/// What the roles of the operator allow.
fn granted() -> BTreeSet<Right> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        serde_json::from_value(rule[field].clone()).unwrap()
    };
    let mut rights = BTreeSet::new();
    for role in installed() {
        let is_role = ["ClusterRole", "Role"]
            .iter()
            .any(|&kind| role["kind"] == kind);
        if !is_role || role["metadata"]["name"] != "enginewright-operator" {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    for verb in texts(rule, "verbs") {
                        rights.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    assert!(rights.len() > 20, "{rights:?}");
    rights
}

/// Objects of somebody else's under the names that the operator needs.
fn strangers() -> Vec<Value> {
    let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let mut always = pod.clone();
    always["spec"]["restartPolicy"] = json!("Always");
    let selector = json!({"matchLabels": {"a": "b"}});
    let fetch = format!("smol-fetch-{}-1", revision_of(&spec()));
    let cache = format!("smol-cache-{}", &hex_of("orin")[..8]);
    vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "smol-gateway"},
            "spec": {"replicas": 0, "selector": selector, "template": always}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "smol"},
            "spec": {"ports": [{"port": 1}]}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "smol-routes"}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": cache},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "smol-engine"}, "spec": {"podSelector": {}}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "smol-gateway"}, "spec": {"maxUnavailable": 1, "selector": selector}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": fetch},
            "spec": {"suspend": true, "template": pod}}),
    ]
}

fn hex_of(text: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(text))
}

fn api(world: &World, object: &DynamicObject) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let resource = ApiResource::from_gvk(&gvk);
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_chart_allows_what_a_life_needs_and_nothing_more() {
    let world = World::new().await;
    let mut strange = Vec::new();
    for value in strangers() {
        let object: DynamicObject = serde_json::from_value(value).unwrap();
        let api = api(&world, &object);
        strange.push((api.clone(), object.metadata.name.clone().unwrap()));
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let (client, record) = recorded(world.operator.clone());
    let operator = Operator::start(client);
    world.apply("smol", spec()).await;
    world
        .until("smol", "the conflict", |one| {
            word(one, "Stalled") == Some(("True".to_owned(), "ObjectConflict".to_owned()))
        })
        .await;
    for (api, name) in &strange {
        api.delete(name, &DeleteParams::background()).await.unwrap();
    }
    world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    // Another engine, and none at all.
    let mut other = spec();
    other["engine"]["slots"] = json!(3);
    world.apply("smol", other.clone()).await;
    world
        .until("smol", "the other revision", |one| {
            let active = one
                .status
                .as_ref()
                .and_then(|it| it.active_revision.clone());
            holds(one, "Ready") && active == Some(revision_of(&other))
        })
        .await;
    other["suspend"] = json!(true);
    world.apply("smol", other).await;
    world
        .until("smol", "the suspension", |one| {
            word(one, "Ready") == Some(("False".to_owned(), "Suspended".to_owned()))
        })
        .await;
    eventually("the gateway's end", || async {
        let found = strange[0].0.get_opt("smol-gateway").await;
        found.unwrap().is_none()
    })
    .await;
    world.delete("smol").await;
    operator.stop().await;

    let record = record.lock().unwrap();
    assert!(record.refused.is_empty(), "refused: {:#?}", record.refused);
    // Checked by the API server itself where owners that block deletion are written.
    let unseen = ("enginewright.dev", "inferenceengines/finalizers", "update");
    let unseen: Right = (unseen.0.into(), unseen.1.into(), unseen.2.into());
    let unused: Vec<Right> = granted()
        .into_iter()
        .filter(|right| !record.used.contains(right) && *right != unseen)
        .collect();
    assert!(unused.is_empty(), "never used: {unused:#?}");
}
