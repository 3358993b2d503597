//! The health check for Argo CD in a real Lua (5.1, the language of Argo CD's interpreter), over every
//! combination of conditions that an `InferenceEngine` can show: the verdict of the real kstatus.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cluster::kstatus;

const HEALTH: &str = include_str!("../../manifests/gitops/argocd/health.lua");

/// A value as Lua writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("[{key:?}]={}", literal(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("{{{}}}", items.join(","))
        }
        Value::Null => "nil".to_owned(),
        other => other.to_string(),
    }
}

/// Argo CD's verdict on each object, with its message: the object as a global, what the chunk returns.
fn healths(objects: &[Value]) -> Vec<(String, String)> {
    let mut script = String::new();
    for object in objects {
        writeln!(script, "obj = {}", literal(object)).unwrap();
        writeln!(script, "do local found = (function()\n{HEALTH}\nend)()").unwrap();
        writeln!(script, "print(found.status .. '|' .. found.message) end").unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let output = Command::new("lua5.1").arg(file.path()).output();
    let output = output.expect("run `scripts/tools system` for lua5.1");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let verdict = |line: &str| {
        let (status, message) = line.split_once('|').unwrap();
        (status.to_owned(), message.to_owned())
    };
    let all: Vec<_> = said.lines().map(verdict).collect();
    assert_eq!(all.len(), objects.len());
    all
}

fn health(object: &Value) -> (String, String) {
    healths(std::slice::from_ref(object)).remove(0)
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": format!("{kind}Reason"), "message": "Why. Do this.",
           "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// Every shape of a status.
fn objects() -> Vec<Value> {
    let statuses = [None, Some("True"), Some("False"), Some("Unknown")];
    let mut all = Vec::new();
    for ready in statuses {
        for reconciling in [None, Some("True")] {
            for stalled in [None, Some("True")] {
                for available in statuses {
                    for observed in [None, Some(1), Some(2)] {
                        for deleted in [false, true] {
                            let conditions: Vec<Value> = [
                                ("Ready", ready),
                                ("Reconciling", reconciling),
                                ("Stalled", stalled),
                                ("Available", available),
                                // Whether the fallback serves says nothing about health by itself.
                                ("FallbackActive", available),
                            ]
                            .into_iter()
                            .filter_map(|(kind, status)| Some(condition(kind, status?)))
                            .collect();
                            let mut object = json!({
                                "apiVersion": "enginewright.dev/v1alpha1", "kind": "InferenceEngine",
                                "metadata": {"name": "a", "namespace": "b", "generation": 2},
                                "spec": {"model": {"source": "ollama://m"}},
                            });
                            if let Some(observed) = observed {
                                object["status"] = json!({"observedGeneration": observed, "conditions": conditions});
                            }
                            if deleted {
                                object["metadata"]["deletionTimestamp"] =
                                    json!("2026-01-01T00:00:00Z");
                            }
                            all.push(object);
                        }
                    }
                }
            }
        }
    }
    all
}

/// What kstatus takes an object for that no controller has touched: there is nothing to wait for. We
/// know that there is one.
fn is_untouched(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    object["metadata"].get("deletionTimestamp").is_none()
        && conditions.is_none_or(|all| all.iter().all(|one| one["type"] != "Ready"))
}

#[test]
fn argo_cd_says_what_kstatus_says() {
    let objects = objects();
    let mut seen = std::collections::BTreeSet::new();
    let verdicts = healths(&objects).into_iter().zip(kstatus(&objects));
    for (object, ((status, message), found)) in objects.iter().zip(verdicts) {
        if is_untouched(object) && found.status == "Current" {
            assert_eq!(status, "Progressing", "{object:#}");
            continue;
        }
        let expected = match found.status.as_str() {
            "Current" => "Healthy",
            "Failed" => "Degraded",
            "InProgress" | "Terminating" => "Progressing",
            other => panic!("{other}: {object:#}"),
        };
        assert_eq!(status, expected, "{}: {object:#}", found.message);
        assert!(!message.is_empty(), "{object:#}");
        seen.insert(status);
    }
    let all = ["Degraded", "Healthy", "Progressing"].map(str::to_owned);
    assert_eq!(seen, all.into());
}

#[test]
fn what_was_told_to_be_suspended_is_and_a_failure_says_why() {
    let mut object = objects().pop().unwrap();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("deletionTimestamp");
    let mut suspended = condition("Ready", "False");
    suspended["reason"] = json!("Suspended");
    object["status"] = json!({"observedGeneration": 2, "conditions": [suspended]});
    assert_eq!(health(&object).0, "Suspended");
    let conditions = json!([condition("Ready", "False"), condition("Stalled", "True")]);
    object["status"] = json!({"observedGeneration": 2, "conditions": conditions});
    let (status, message) = health(&object);
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("Degraded", "StalledReason: Why. Do this.")
    );
}

#[test]
fn the_patch_for_argo_cd_holds_the_same_check() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/gitops/argocd/health-configmap.yaml");
    let patch: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let key = "resource.customizations.health.enginewright.dev_InferenceEngine";
    assert_eq!(patch["data"][key], HEALTH);
}

#[test]
fn flux_and_argo_cd_install_this_chart_with_values_that_it_has() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/gitops");
    let read = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    };
    let flux = read("flux/enginewright.yaml");
    let release = flux
        .iter()
        .find(|one| one["kind"] == "HelmRelease")
        .unwrap();
    let argo = read("argocd/application.yaml").remove(0);
    for (path, values) in [
        (
            &release["spec"]["chart"]["spec"]["chart"],
            &release["spec"]["values"],
        ),
        (
            &argo["spec"]["source"]["path"],
            &argo["spec"]["source"]["helm"]["valuesObject"],
        ),
    ] {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join(path.as_str().unwrap());
        let schema = std::fs::read_to_string(chart.join("values.schema.json")).unwrap();
        let schema: Value = serde_json::from_str(&schema).unwrap();
        jsonschema::validate(&schema, values).unwrap();
    }
    let engines = read("flux/engines.yaml");
    let kustomization = engines
        .iter()
        .find(|one| one["kind"] == "Kustomization")
        .unwrap();
    assert_eq!(kustomization["spec"]["wait"], true);
}
