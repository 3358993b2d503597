//! The objects themselves: exactly what they are (golden file), and what Pod Security demands of all.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Gateway, Kind, Object, is_allowed, routes};
use crate::controller::simulation::{SMALL, Simulation, site};
use crate::gateway::routes::RouteTable;
use crate::planner::Route;

/// All objects of a resource that serves, in the order of kind and name.
fn objects() -> Vec<(String, Value)> {
    let mut world = Simulation::new(SMALL);
    world.live(Duration::from_secs(3));
    let mut all: Vec<(String, Value)> = Vec::new();
    let kinds = [
        Kind::PersistentVolumeClaim,
        Kind::Service,
        Kind::NetworkPolicy,
        Kind::PodDisruptionBudget,
        Kind::Deployment,
        Kind::Job,
    ];
    let site = site();
    let owner = world.owner.clone();
    // The fetch has been tidied away by now: the Job as it was.
    let model = &world.engine.model;
    let served = crate::engine::Served::of(&world.engine);
    let revision = world.engine.revision();
    let job = super::fetch(
        &owner,
        &site,
        &super::Fetch {
            revision: &revision,
            attempt: 1,
            model,
            served: &served,
            placement: &world.engine.placement,
            hostname: "orin",
            claim: "smol-cache",
            deadline: Duration::from_mins(10),
        },
    );
    all.push((job.name, job.value));
    let build = super::build(
        &owner,
        &site,
        &super::Build {
            revision: &revision,
            attempt: 1,
            image: "registry.example/enginewright-trt@sha256:11",
            runtime_class: "nvidia",
            sm: crate::hardware::Sm::new(8, 7),
            precision: "Int4",
            served: &served,
            memory_bytes: 6 << 30,
            placement: &world.engine.placement,
            hostname: "orin",
            claim: "smol-cache",
            deadline: Duration::from_mins(10),
        },
    );
    all.push((build.name, build.value));
    let collect = super::collect(
        &owner,
        &site,
        &super::Collect {
            keep: vec!["0123456789"],
            placement: &world.engine.placement,
            hostname: "orin",
            claim: "smol-cache",
        },
    );
    all.push((collect.name, collect.value));
    for kind in kinds {
        let mut names: Vec<String> = match kind {
            Kind::PersistentVolumeClaim => names(&world.world.claims),
            Kind::Service => names(&world.world.services),
            Kind::NetworkPolicy => names(&world.world.policies),
            Kind::PodDisruptionBudget => names(&world.world.budgets),
            Kind::Deployment => names(&world.world.deployments),
            Kind::Job | Kind::ConfigMap => Vec::new(),
        };
        names.sort();
        for name in names {
            let mut value = world.world.live(kind, &name).unwrap().value;
            for key in ["uid", "resourceVersion"] {
                value["metadata"].as_object_mut().unwrap().remove(key);
            }
            all.push((format!("{} {name}", kind.as_str()), value));
        }
    }
    all
}

fn names<K: kube::Resource>(all: &[K]) -> Vec<String> {
    all.iter()
        .filter_map(|one| one.meta().name.clone())
        .collect()
}

#[test]
fn the_objects_are_those_of_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/workloads.yaml");
    let documents: Vec<String> = objects()
        .into_iter()
        .map(|(_, value)| serde_saphyr::to_string(&value).unwrap())
        .collect();
    let text = documents.join("---\n");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "tests/fixtures/workloads.yaml is not what is made: run `make generated`, read the difference"
    );
}

/// Where a pod's spec is in an object.
fn pod_spec(value: &Value) -> Option<&Value> {
    value.pointer("/spec/template/spec")
}

#[test]
fn every_pod_passes_the_restricted_level_and_has_no_token() {
    let mut pods = 0;
    for (name, value) in objects() {
        let Some(pod) = pod_spec(&value) else {
            continue;
        };
        pods += 1;
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
            "{name}"
        );
        for volume in pod["volumes"].as_array().unwrap() {
            assert!(volume.get("hostPath").is_none(), "{name}");
        }
        let init = pod["initContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let own = pod["containers"].as_array().cloned().unwrap();
        for container in init.iter().chain(&own) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            let resources = &container["resources"];
            assert!(resources["requests"]["memory"].is_string(), "{name}");
            assert!(resources["limits"]["memory"].is_string(), "{name}");
        }
    }
    assert_eq!(pods, 6, "fetch, build, collect, gateway, fallback, engine");
}

#[test]
fn an_engine_ends_only_after_its_running_answers() {
    let (_, engine) = objects()
        .into_iter()
        .find(|(name, _)| name.starts_with("Deployment smol-") && name.ends_with("-1"))
        .unwrap();
    let pod = pod_spec(&engine).unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace > 120, "the default drain is two minutes: {grace}");
    assert_eq!(
        pod["containers"][0]["startupProbe"]["httpGet"]["path"],
        "/readyz"
    );
}

#[test]
fn images_are_allowed_by_repository_or_by_folder() {
    let allowed = ["a.example/x".to_owned(), "b.example/y/".to_owned()];
    for (image, yes) in [
        ("a.example/x@sha256:0", true),
        ("a.example/x:1@sha256:0", true),
        ("a.example/xx@sha256:0", false),
        ("b.example/y/z@sha256:0", true),
        ("b.example/yy@sha256:0", false),
        ("b.example:5000/y/z@sha256:0", false),
    ] {
        assert_eq!(is_allowed(image, &allowed), yes, "{image}");
    }
}

#[test]
fn a_gateway_without_a_model_needs_no_volume_of_any_node() {
    let world = Simulation::new(SMALL);
    let made = super::gateway(
        &world.owner,
        &site(),
        &Gateway {
            placement: &world.engine.placement,
            drain: Duration::from_secs(30),
            model: None,
        },
    );
    let text = format!("{made:?}");
    assert!(!text.contains("persistentVolumeClaim"), "{text}");
}

#[test]
fn the_route_table_is_one_that_gateways_read() {
    let world = Simulation::new(SMALL);
    let table = RouteTable::empty("m");
    let Object { value, .. } = routes(&world.owner, Route::default(), &table);
    let text = value["data"]["routes.json"].as_str().unwrap();
    assert_eq!(RouteTable::parse(text.as_bytes()).unwrap(), table);
}
