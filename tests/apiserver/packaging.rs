//! What is shipped as YAML, as a real API server takes it: the chart with every combination of values,
//! the manifests without Helm, the samples. Nothing is stored (`--dry-run=server`), unknown fields are
//! errors (`--validate=strict`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::ControlPlane;
use crate::tools;

const SYSTEM: &str = "enginewright-system";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// A server with the namespace of the operator.
fn server() -> &'static ControlPlane {
    let cluster = ControlPlane::shared();
    let namespace =
        std::fs::read_to_string(root().join("manifests/install/namespace.yaml")).unwrap();
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    run(cluster, &arguments, &namespace).unwrap();
    cluster
}

fn run(cluster: &ControlPlane, arguments: &[&str], yaml: &str) -> Result<String, String> {
    let mut child = cluster
        .kubectl()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(yaml.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{said}{problem}"))
    }
}

/// The verdict on every object of `yaml`.
fn verdict(cluster: &ControlPlane, namespace: &str, yaml: &str) -> Result<String, String> {
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--field-manager=packaging",
        "--namespace",
        namespace,
        "-f",
        "-",
    ];
    run(cluster, &arguments, yaml)
}

#[test]
fn the_server_takes_the_chart_with_every_combination_of_values() {
    let cluster = server();
    // Other tests install the agent's manifest in the operator's namespace.
    let own = "apiVersion: v1\nkind: Namespace\nmetadata: { name: packaging }\n";
    run(cluster, &["apply", "--server-side", "-f", "-"], own).unwrap();
    let helm = tools::directory().join("bin/helm");
    assert!(helm.exists(), "run `scripts/tools helm` first");
    for values in files("charts/enginewright/ci") {
        let output = Command::new(&helm)
            .args(["template", "enginewright", "charts/enginewright"])
            .args([
                "--namespace",
                "packaging",
                "--kube-version=1.34.2",
                "--values",
            ])
            .arg(&values)
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let yaml = String::from_utf8(output.stdout).unwrap();
        let said = verdict(cluster, "packaging", &yaml)
            .unwrap_or_else(|problem| panic!("{}: {problem}", values.display()));
        assert!(
            said.contains("deployment.apps/enginewright-operator"),
            "{said}"
        );
        let with_agent = yaml.contains("kind: DaemonSet");
        assert_eq!(
            said.contains("daemonset.apps/enginewright-agent"),
            with_agent,
            "{said}"
        );
    }
}

#[test]
fn the_server_takes_the_manifests_without_helm() {
    let cluster = server();
    for file in [
        "manifests/install/install.yaml",
        "manifests/agent/agent.yaml",
    ] {
        let yaml = std::fs::read_to_string(root().join(file)).unwrap();
        verdict(cluster, SYSTEM, &yaml).unwrap_or_else(|problem| panic!("{file}: {problem}"));
    }
}

#[test]
fn the_server_takes_every_sample_but_what_is_for_one_machine() {
    let cluster = server();
    let mut taken = 0;
    for file in files("manifests/samples") {
        let yaml = std::fs::read_to_string(&file).unwrap();
        let verdict = verdict(cluster, "default", &yaml);
        if yaml.contains("file://.") {
            let problem = verdict.expect_err("a relative file is not for clusters");
            assert!(problem.contains("relative file"), "{problem}");
        } else {
            verdict.unwrap_or_else(|problem| panic!("{}: {problem}", file.display()));
            taken += 1;
        }
    }
    assert!(taken >= 14, "{taken} samples");
}

#[test]
fn strict_validation_notices_a_field_that_does_not_exist() {
    let yaml = "apiVersion: enginewright.dev/v1alpha1\nkind: InferenceEngine\nmetadata: {name: x}\n\
                spec: {model: {source: \"ollama://m\", sorce: x}}\n";
    let problem = verdict(server(), "default", yaml).unwrap_err();
    assert!(problem.contains("sorce"), "{problem}");
}
