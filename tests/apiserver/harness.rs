//! The harness itself: what it starts answers, and nothing outlives the process that started it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Resource, ResourceExt};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

use crate::cluster::{ControlPlane, kstatus};
use crate::tools;

/// Set in the process that the tests below start and then end.
const VICTIM: &str = "ENGINEWRIGHT_TEST_VICTIM";
/// The first word of the line in which the victim names its folder.
const FOLDER: &str = "cluster-folder:";
const LIMIT: Duration = Duration::from_mins(1);

/// Processes whose command line names `folder`.
fn processes_of(folder: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .map(tools::command_line)
        .filter(|line| line.contains(folder) && !line.contains("janitor.sh"))
        .collect()
}

/// Runs this test in a process of its own that has a control plane, ends it with `end`, and checks
/// that nothing is left.
fn nothing_is_left_after(test: &str, end: impl FnOnce(Pid)) {
    if std::env::var_os(VICTIM).is_some() {
        let cluster = ControlPlane::start();
        println!("{FOLDER}{}", cluster.folder().unwrap().display());
        loop {
            std::thread::park();
        }
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    // The test runner may write its own words before it.
    let folder = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .find_map(|line| Some(line.ok()?.split_once(FOLDER)?.1.to_owned()))
        .expect("the victim starts a control plane");
    assert!(
        processes_of(&folder).len() >= 2,
        "etcd and kube-apiserver run: {:?}",
        processes_of(&folder)
    );
    end(Pid::from_child(&victim));
    victim.wait().unwrap();
    tools::wait_for("the folder and the processes to go", LIMIT, || {
        (!Path::new(&folder).exists() && processes_of(&folder).is_empty()).then_some(())
    });
}

#[test]
fn a_control_plane_ends_with_a_test_process_that_is_killed() {
    nothing_is_left_after(
        "harness::a_control_plane_ends_with_a_test_process_that_is_killed",
        |pid| kill_process(pid, Signal::KILL).unwrap(),
    );
}

#[test]
fn a_control_plane_ends_on_ctrl_c() {
    nothing_is_left_after("harness::a_control_plane_ends_on_ctrl_c", |pid| {
        kill_process_group(pid, Signal::INT).unwrap();
    });
}

#[tokio::test]
async fn controllers_collect_what_is_owned_and_end_namespaces() {
    let cluster = ControlPlane::shared();
    cluster.start_controllers();
    let name = cluster.namespace("collected").await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client(), &name);
    let map = |name: &str, owner: Option<&ConfigMap>| ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: owner.map(|owner| {
                vec![OwnerReference {
                    api_version: ConfigMap::api_version(&()).into_owned(),
                    kind: ConfigMap::kind(&()).into_owned(),
                    name: owner.name_any(),
                    uid: owner.uid().unwrap(),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let create = PostParams::default();
    let owner = maps.create(&create, &map("owner", None)).await.unwrap();
    let owned = maps
        .create(&create, &map("owned", Some(&owner)))
        .await
        .unwrap();

    maps.delete("owner", &DeleteParams::default())
        .await
        .unwrap();
    let uid = owned.uid().unwrap();
    let gone = await_condition(maps, "owned", conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, gone).await.unwrap().unwrap();

    let namespaces = Api::<Namespace>::all(cluster.client());
    let uid = namespaces.get(&name).await.unwrap().uid().unwrap();
    namespaces
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let gone = await_condition(namespaces, &name, conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_by_token_has_the_rights_of_its_service_account_only() {
    let cluster = ControlPlane::shared();
    cluster.start_controllers();
    let namespace = cluster.namespace("rights").await;
    let client = cluster.client_as(&namespace, "default").await;
    let refused = Api::<ConfigMap>::namespaced(client, &namespace)
        .list(&kube::api::ListParams::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.is_forbidden()),
        "{refused:?}"
    );
}

#[test]
fn kstatus_is_the_real_librarys() {
    let object = |generation: i64, conditions: serde_json::Value| {
        json!({
            "apiVersion": "enginewright.dev/v1alpha1", "kind": "InferenceEngine",
            "metadata": {"name": "a", "namespace": "b", "generation": generation},
            "status": {"observedGeneration": 1, "conditions": conditions},
        })
    };
    let condition =
        |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R"});
    let found = kstatus(&[
        object(1, json!([condition("Ready", "True")])),
        object(2, json!([condition("Ready", "True")])),
        object(
            1,
            json!([
                condition("Ready", "False"),
                condition("Reconciling", "True")
            ]),
        ),
        object(
            1,
            json!([condition("Ready", "False"), condition("Stalled", "True")]),
        ),
    ]);
    let statuses: Vec<&str> = found.iter().map(|one| one.status.as_str()).collect();
    assert_eq!(statuses, ["Current", "InProgress", "InProgress", "Failed"]);
}
