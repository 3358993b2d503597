//! Whole lives of a resource.

use std::time::Duration;

use enginewright::controller::names::{FINALIZER, ROUTES_WANTED};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::kubelet::Fate;
use crate::support::{Operator, World, eventually, holds, names_of, revision_of, spec, word};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_answered_promoted_left_alone_and_taken_down() {
    let world = World::new().await;
    let operator = Operator::start(world.operator.clone());
    world.apply("smol", spec()).await;
    let available = world
        .until("smol", "an answer", |one| holds(one, "Available"))
        .await;
    assert!(available.finalizers().contains(&FINALIZER.to_owned()));
    let ready = world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    let status = ready.status.clone().unwrap();
    assert_eq!(status.observed_generation, ready.metadata.generation);
    assert_eq!(
        status.endpoint.as_deref(),
        Some(format!("http://smol.{}.svc:8080", world.namespace).as_str())
    );
    assert_eq!(status.last_good_revision, status.desired_revision);

    // Gateways have been told of the table that is in force.
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    let gateways = ListParams::default().labels("app.kubernetes.io/component=gateway");
    for pod in pods.list(&gateways).await.unwrap() {
        assert!(pod.annotations().contains_key(ROUTES_WANTED), "{pod:?}");
    }
    let events: Api<Event> = Api::namespaced(world.client.clone(), &world.namespace);
    let told = events.list(&ListParams::default()).await.unwrap();
    let ours = |event: &&Event| event.reporting_controller.as_deref() == Some("enginewright");
    let reasons: Vec<String> = told
        .iter()
        .filter(ours)
        .filter_map(|event| event.reason.clone())
        .collect();
    assert!(reasons.contains(&"Serving".to_owned()), "{reasons:?}");

    nothing_is_written(&operator).await;
    operator.stop().await;
    // Another operator takes over what is there, and writes nothing.
    let operator = Operator::start(world.operator.clone());
    eventually("a reconciliation", || async {
        operator.reconciliations().await > 0
    })
    .await;
    nothing_is_written(&operator).await;
    assert_eq!(operator.writes().await, 0);

    world.delete("smol").await;
    assert_eq!(operator.refusals().await, 0, "its role is all it needs");
    operator.stop().await;
}

/// Comes to rest, and stays there.
pub async fn nothing_is_written(operator: &Operator) {
    let mut before = operator.writes().await;
    let mut quiet = 0;
    for _ in 0..120 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = operator.writes().await;
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        if quiet == 16 {
            return;
        }
    }
    panic!("it does not come to rest: {before} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_revision_is_rolled_back_and_edits_are_put_back() {
    let world = World::new().await;
    let operator = Operator::start(world.operator.clone());
    world.apply("smol", spec()).await;
    let good = world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    let good = good.status.unwrap().active_revision.unwrap();

    let mut changed = spec();
    changed["engine"]["slots"] = json!(3);
    let bad = revision_of(&changed);
    world.kubelet.decide(&bad, Fate::Mute);
    world.apply("smol", changed).await;
    let rolled_back = world
        .until("smol", "a rollback", |one| {
            one.status.as_ref().is_some_and(|status| {
                status
                    .failed_revisions
                    .iter()
                    .any(|one| one.revision == bad)
                    && status.active_revision.as_deref() == Some(good.as_str())
            })
        })
        .await;
    assert!(holds(&rolled_back, "Available"));
    assert!(!holds(&rolled_back, "Ready"));

    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace);
    let edit = json!({"spec": {"replicas": 5}});
    deployments
        .patch(
            "smol-gateway",
            &PatchParams::default(),
            &Patch::Merge(&edit),
        )
        .await
        .unwrap();
    eventually("the gateway as it was", || async {
        let gateway = deployments.get("smol-gateway").await.unwrap();
        gateway.spec.unwrap().replicas == Some(2)
    })
    .await;

    // The next good spec takes over from what was rolled back to.
    let mut better = spec();
    better["engine"]["slots"] = json!(4);
    world.apply("smol", better.clone()).await;
    let wanted = revision_of(&better);
    world
        .until("smol", "the better revision", |one| {
            let active = one
                .status
                .as_ref()
                .and_then(|it| it.active_revision.clone());
            holds(one, "Ready") && active.as_ref() == Some(&wanted)
        })
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_object_is_left_alone_and_named() {
    let world = World::new().await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &world.namespace);
    let foreign: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "smol-routes"}, "data": {"mine": "yes"},
    }))
    .unwrap();
    let before = maps.create(&PostParams::default(), &foreign).await.unwrap();
    let operator = Operator::start(world.operator.clone());
    world.apply("smol", spec()).await;
    let stalled = world
        .until("smol", "the conflict", |one| {
            word(one, "Stalled") == Some(("True".to_owned(), "ObjectConflict".to_owned()))
        })
        .await;
    let conditions = stalled.status.unwrap().conditions;
    assert!(
        conditions
            .iter()
            .any(|one| one.message.contains("smol-routes")),
        "{conditions:?}"
    );
    let after = maps.get("smol-routes").await.unwrap();
    assert_eq!(
        before.metadata.resource_version,
        after.metadata.resource_version
    );

    maps.delete("smol-routes", &DeleteParams::default())
        .await
        .unwrap();
    world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    let all: Vec<String> = names_of(&maps.list(&ListParams::default()).await.unwrap().items);
    assert!(all.contains(&"smol-state".to_owned()), "{all:?}");
    operator.stop().await;
}
