//! The Helm chart and what is generated from it. `scripts/tools helm` builds Helm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../real/tools.rs"]
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn helm(arguments: &[&str]) -> String {
    let helm = tools::directory().join("bin/helm");
    assert!(
        helm.exists(),
        "{} is missing: run `scripts/tools helm` first",
        helm.display()
    );
    let output = Command::new(helm)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "helm {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn render(values: Option<&Path>) -> String {
    let mut arguments = vec![
        "template",
        "enginewright",
        "charts/enginewright",
        "--namespace=enginewright-system",
        // Helm built from source knows no Kubernetes version by itself.
        "--kube-version=1.34.2",
    ];
    let file = values.map(|path| format!("--values={}", path.display()));
    arguments.extend(file.as_deref());
    helm(&arguments)
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|one| !one.is_null()).collect()
}

fn combinations() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(root().join("charts/enginewright/ci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    assert!(all.len() >= 6);
    all
}

/// Compares a committed file with what is generated, or refreshes it.
fn check(path: &Path, generated: &str) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is stale: run `make generated` and commit the result",
        path.display()
    );
}

#[test]
fn the_charts_definitions_are_those_of_the_types() {
    for entry in std::fs::read_dir(root().join("crds")).unwrap() {
        let path = entry.unwrap().path();
        let copy = root()
            .join("charts/enginewright/crds-source")
            .join(path.file_name().unwrap());
        check(&copy, &std::fs::read_to_string(path).unwrap());
    }
}

#[test]
fn the_manifests_to_install_without_helm_are_those_of_the_chart() {
    let path = root().join("manifests/install/install.yaml");
    let head = "# Generated from charts/enginewright by `make generated`. Do not edit.\n";
    check(&path, &format!("{head}{}", render(None)));
}

#[test]
fn every_combination_of_values_is_a_set_of_complete_objects() {
    for values in combinations() {
        let values = values.as_path();
        helm(&[
            "lint",
            "--strict",
            "charts/enginewright",
            "--values",
            &values.display().to_string(),
        ]);
        let objects = documents(&render(Some(values)));
        assert!(objects.len() > 5);
        for object in &objects {
            for field in ["/apiVersion", "/kind", "/metadata/name"] {
                assert!(
                    object.pointer(field).is_some_and(Value::is_string),
                    "{}: {object}",
                    values.display()
                );
            }
        }
    }
}

#[test]
fn the_definitions_stay_when_the_release_goes() {
    let definitions: Vec<Value> = documents(&render(None))
        .into_iter()
        .filter(|one| one["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(definitions.len(), 2);
    for one in definitions {
        assert_eq!(
            one["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
    }
}

#[test]
fn values_that_are_mistakes_are_refused_by_name() {
    for (set, named) in [
        ("gatewayReplica=1", "gatewayReplica"),
        ("gatewayReplicas=0", "gatewayReplicas"),
        ("gatewayReplicas=two", "gatewayReplicas"),
        ("image.tagg=v1", "tagg"),
        ("image.digest=v1", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("allowedImages=docker.io/", "allowedImages"),
        ("crds.install=perhaps", "install"),
        ("agent.enable=true", "enable"),
        ("agent.nodeSelector.a=1", "nodeSelector"),
        ("operator.replicas=2", "replicas"),
        ("log=", "log"),
    ] {
        let output = Command::new(tools::directory().join("bin/helm"))
            .args([
                "template",
                "x",
                "charts/enginewright",
                "--kube-version=1.34.2",
            ])
            .args(["--set", set])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{set}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{set}: {said}");
    }
}

/// The agent comes from the chart or by itself; it is the same but for labels and what the chart lets
/// people choose.
#[test]
fn the_charts_agent_is_the_one_of_the_manifests() {
    let by_itself = std::fs::read_to_string(root().join("manifests/agent/agent.yaml")).unwrap();
    let values = root().join("charts/enginewright/ci/agent-default-values.yaml");
    let chart = documents(&render(Some(&values)));
    let mut compared = 0;
    for mut wanted in documents(&by_itself) {
        if wanted["kind"] == "Namespace" {
            continue;
        }
        let name = wanted["metadata"]["name"].clone();
        let same = |one: &&Value| one["kind"] == wanted["kind"] && one["metadata"]["name"] == name;
        let mut found = chart
            .iter()
            .find(same)
            .unwrap_or_else(|| panic!("{name}"))
            .clone();
        for object in [&mut wanted, &mut found] {
            object["metadata"]["labels"].take();
            for path in ["/spec/selector", "/spec/template/metadata"] {
                if object["kind"] == "DaemonSet" {
                    object.pointer_mut(path).unwrap().take();
                }
            }
        }
        assert_eq!(found, wanted);
        compared += 1;
    }
    assert_eq!(compared, 8);
}

#[test]
fn the_operator_may_not_read_secrets_nor_write_what_is_specified() {
    let roles = documents(&render(None));
    let role = roles
        .iter()
        .find(|one| {
            one["kind"] == "ClusterRole" && one["metadata"]["name"] == "enginewright-operator"
        })
        .unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let text = rule.to_string();
        assert!(!text.contains("secrets"), "{text}");
        assert!(!text.contains("\"*\""), "{text}");
        assert!(
            !text.contains("escalate") && !text.contains("impersonate"),
            "{text}"
        );
    }
}
