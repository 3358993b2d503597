//! The definitions as a person and the API server see them.

use std::process::Output;

use enginewright::api::{InferenceEngine, all_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::{ControlPlane, kstatus};
use crate::specs::{servers_verdict, smallest};

/// Group of a copy of the definition that a test may change.
const COPY_GROUP: &str = "ratchet.enginewright.dev";

#[tokio::test]
async fn the_definitions_are_structural_and_established() {
    let api = Api::<CustomResourceDefinition>::all(ControlPlane::shared().client());
    for crd in all_crds() {
        let found = api.get(&crd.name_any()).await.unwrap();
        let conditions = found.status.unwrap().conditions.unwrap();
        let truth = |kind: &str| {
            let one = conditions.iter().find(|one| one.type_ == kind);
            one.map(|one| one.status.clone())
        };
        assert_eq!(truth("Established").as_deref(), Some("True"));
        assert_eq!(truth("NamesAccepted").as_deref(), Some("True"));
        assert_ne!(
            truth("NonStructuralSchema").as_deref(),
            Some("True"),
            "{conditions:?}"
        );
    }
}

#[tokio::test]
async fn the_api_servers_defaults_are_ours() {
    let client = ControlPlane::shared().client();
    let stored = servers_verdict(&client, &smallest()).await.unwrap();
    let ours: InferenceEngine = serde_json::from_value(smallest()).unwrap();
    assert_eq!(stored["spec"], serde_json::to_value(&ours.spec).unwrap());
}

#[tokio::test]
async fn a_resource_that_nobody_has_looked_at_is_not_taken_for_complete() {
    let client = ControlPlane::shared().client();
    let stored = servers_verdict(&client, &smallest()).await.unwrap();
    assert_eq!(stored["status"]["observedGeneration"], -1);
    assert_eq!(kstatus(&[stored])[0].status, "InProgress");
}

#[tokio::test]
async fn the_samples_are_accepted() {
    let client = ControlPlane::shared().client();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/samples");
    let mut accepted = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let sample: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let source = sample["spec"]["model"]["source"]
            .as_str()
            .unwrap_or_default();
        // Relative to the file it is written in: for `run` and `plan`, the server says so.
        let relative = source.starts_with("file://.");
        match servers_verdict(&client, &sample).await {
            Ok(_) => assert!(!relative, "{}", path.display()),
            Err(status) => assert!(
                relative && status.message.contains("a relative file is only for"),
                "{}: {}",
                path.display(),
                status.message
            ),
        }
        accepted += 1;
    }
    assert!(accepted >= 3);
}

#[test]
fn explain_lists_every_field_and_says_what_it_does() {
    let cluster = ControlPlane::shared();
    let tree = cluster.kubectl_says(&["explain", "ie.spec", "--recursive"]);
    let crd = serde_json::to_value(&all_crds()[0]).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut missing = Vec::new();
    unlisted(&schema["properties"]["spec"], &tree, &mut missing);
    assert!(missing.is_empty(), "{missing:?}\n{tree}");

    let slots = cluster.kubectl_says(&["explain", "ie.spec.engine.slots"]);
    assert!(slots.contains("FIELD: slots <integer>"), "{slots}");
    assert!(slots.contains("Default: 2"), "{slots}");
    let precision = cluster.kubectl_says(&["explain", "inferenceengine.spec.engine.precision"]);
    assert!(
        precision.contains("ENUM:") && precision.contains("Int4"),
        "{precision}"
    );
}

/// Fields of the schema that the text does not list.
fn unlisted(schema: &Value, text: &str, into: &mut Vec<String>) {
    let schema = schema.get("items").unwrap_or(schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if !text.contains(&format!("{name}\t<")) {
            into.push(name.clone());
        }
        unlisted(inner, text, into);
    }
}

#[tokio::test]
async fn get_shows_the_columns_by_short_name_and_category() {
    let cluster = ControlPlane::shared();
    let namespace = cluster.namespace("columns").await;
    let engines = Api::<InferenceEngine>::namespaced(cluster.client(), &namespace);
    let engine = serde_json::from_value(smallest()).unwrap();
    engines
        .create(&PostParams::default(), &engine)
        .await
        .unwrap();
    let status = json!({"status": {
        "activeBackend": "Ollama",
        "conditions": [{"type": "Ready", "status": "False", "reason": "BuildingEngine", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    engines
        .patch_status("smallest", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();

    let table = cluster.kubectl_says(&["get", "ie", "-n", &namespace]);
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next().unwrap(),
        [
            "NAME",
            "BACKEND",
            "READY",
            "REASON",
            "ENGINE",
            "FIRST-TOKEN",
            "AGE"
        ]
    );
    assert_eq!(
        lines.next().unwrap()[..4],
        ["smallest", "Ollama", "False", "BuildingEngine"]
    );

    let all = cluster.kubectl_says(&["get", "enginewright", "-n", &namespace, "-o", "name"]);
    // The category holds the `EdgeNode`s of other tests, too: they are in no namespace.
    let engine = "inferenceengine.enginewright.dev/smallest";
    assert!(all.lines().any(|line| line == engine), "{all}");
    let Output { status, .. } = cluster.kubectl().args(["get", "en"]).output().unwrap();
    assert!(status.success());
}

/// A copy of the definition under another group, with or without its rules.
async fn install_copy(client: &Client, rules: bool) -> Api<DynamicObject> {
    let mut crd = serde_json::to_value(&all_crds()[0]).unwrap();
    let name = format!("inferenceengines.{COPY_GROUP}");
    crd["metadata"]["name"] = name.clone().into();
    crd["spec"]["group"] = COPY_GROUP.into();
    // The short name and the category belong to the real one.
    crd["spec"]["names"]["shortNames"] = json!([]);
    crd["spec"]["names"]["categories"] = json!([]);
    if !rules {
        remove_checks(&mut crd["spec"]["versions"][0]["schema"]);
    }
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let apply = PatchParams::apply("tests").force();
    crds.patch(&name, &apply, &Patch::Apply(&crd))
        .await
        .unwrap();
    await_condition(crds, &name, conditions::is_crd_established())
        .await
        .unwrap();
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(COPY_GROUP, "v1alpha1", "InferenceEngine"),
        "inferenceengines",
    );
    Api::namespaced_with(client.clone(), "default", &resource)
}

/// Removes what an older definition may not have had.
fn remove_checks(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            for check in [
                "x-kubernetes-validations",
                "pattern",
                "minLength",
                "maximum",
            ] {
                if fields.get(check).is_some_and(|value| !value.is_object()) {
                    fields.remove(check);
                }
            }
            fields.values_mut().for_each(remove_checks);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_checks),
        _ => {}
    }
}

#[tokio::test]
async fn a_resource_stored_under_older_rules_can_still_be_changed_elsewhere_and_finalized() {
    let client = ControlPlane::shared().client();
    let api = install_copy(&client, false).await;
    let mut old = smallest();
    old["apiVersion"] = format!("{COPY_GROUP}/v1alpha1").into();
    // Wrong today: a source of no known kind, too long a time, more slots than there may be. What no
    // stored object can break, because it was refused from the first version on, is left out: the
    // name, and a length of time that is none (a rule that cannot be evaluated is never passed over).
    let name = "smallest";
    old["metadata"]["finalizers"] = json!(["enginewright.dev/cleanup"]);
    old["spec"]["model"]["source"] = "s3://bucket/model".into();
    old["spec"]["health"] = json!({"soak": "90h"});
    old["spec"]["engine"] = json!({"slots": 100});
    let object: DynamicObject = serde_json::from_value(old.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    install_copy(&client, true).await;

    // The new rules are served a moment later: they are there when a new wrong one is refused.
    let mut another = object.clone();
    another.metadata.name = Some("another".to_owned());
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    while api.create(&dry, &another).await.is_ok() {
        tokio::task::yield_now().await;
    }

    let change = async |patch: Value| {
        let parameters = PatchParams::default();
        api.patch(name, &parameters, &Patch::Merge(patch)).await
    };
    change(json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    change(json!({"spec": {"suspend": true}})).await.unwrap();
    change(json!({"spec": {"model": {"servedName": "hermes3"}}}))
        .await
        .unwrap();
    let refused = change(json!({"spec": {"model": {"source": "s4://bucket/model"}}})).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("a source is one URL")
    );
    api.delete(name, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    change(json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
}
