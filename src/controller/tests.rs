//! Whole lives of a resource on a simulated cluster: what is decided and what becomes of it, without
//! a client.

use std::time::Duration;

use super::names::{self, COMPONENT, LAUNCH};
use super::notes::Notes;
use super::simulation::{Fate, SMALL, Simulation, failure, parse};
use super::world::{World, label};
use crate::api::{ActiveBackend, ConditionStatus, ConditionType, Reason};
use crate::gateway::routes::RouteTable;

fn condition(world: &Simulation, kind: ConditionType) -> Option<(ConditionStatus, Reason)> {
    let conditions = world.status.conditions.iter();
    conditions
        .filter(|one| one.kind == kind)
        .map(|one| (one.status, one.reason))
        .next()
}

fn is(world: &Simulation, kind: ConditionType) -> bool {
    condition(world, kind).is_some_and(|(status, _)| status == ConditionStatus::True)
}

fn served() -> Simulation {
    let mut world = Simulation::new(SMALL);
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
    world
}

#[test]
fn a_resource_is_answered_by_the_fallback_first_and_promoted_after_proof() {
    let mut world = Simulation::new(SMALL);
    world.settle();
    assert_eq!(world.status.active_backend, ActiveBackend::Cpu);
    assert!(is(&world, ConditionType::Available));
    assert_eq!(
        condition(&world, ConditionType::Ready),
        Some((ConditionStatus::False, Reason::Soaking))
    );
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready));
    assert_eq!(
        world.status.last_good_revision,
        world.status.desired_revision
    );
}

/// The route table as it is written.
fn table(world: &Simulation) -> RouteTable {
    let map = world.world.map("smol-routes").unwrap();
    let text = &map.data.as_ref().unwrap()["routes.json"];
    RouteTable::parse(text.as_bytes()).unwrap()
}

#[test]
fn gateways_reach_services_by_address_so_that_no_name_server_is_in_the_path() {
    let mut world = served();
    let before = table(&world);
    let primary = |table: &RouteTable| table.primary.as_ref().unwrap().url.clone();
    assert!(primary(&before).contains(".models.svc:8000"));
    for service in &mut world.world.services {
        let spec = service.spec.as_mut().unwrap();
        spec.cluster_ip = Some("fd00::7".to_owned());
    }
    world.settle();
    let after = table(&world);
    assert_eq!(primary(&after), "http://[fd00::7]:8000");
    assert_eq!(after.fallback.unwrap().url, "http://[fd00::7]:11434");
    assert_eq!(after.generation, before.generation + 1);
    assert!(is(&world, ConditionType::Ready));
}

#[test]
fn at_the_fixpoint_nothing_is_written() {
    let mut world = served();
    let before = world.writes;
    for _ in 0..300 {
        world.wait(Duration::from_secs(1));
        assert!(world.reconcile().actions.is_empty());
        world.kubelet();
    }
    assert_eq!(world.writes, before);
}

#[test]
fn a_restart_of_the_operator_writes_nothing() {
    let mut world = served();
    let before = world.writes;
    // Only what is in the cluster is left; the gateways are asked again.
    world.notes = Notes::default();
    world.kubelet();
    for _ in 0..5 {
        world.reconcile();
        world.kubelet();
    }
    assert_eq!(world.writes, before);
    assert!(is(&world, ConditionType::Ready));
}

#[test]
fn a_bad_revision_is_rolled_back_and_the_good_one_serves_on() {
    for fate in [Fate::Exits(3), Fate::Mute] {
        let mut world = served();
        let good = world.status.active_revision.clone();
        let bad = SMALL.replace("slots: 2", "slots: 3");
        world.fates.insert(parse(&bad).revision(), fate);
        world.change(&bad);
        world.live(Duration::from_secs(30));
        assert_eq!(world.status.active_revision, good, "{fate:?}");
        assert_eq!(world.status.active_backend, ActiveBackend::LastGood);
        assert!(!is(&world, ConditionType::Ready));
        assert!(is(&world, ConditionType::Available));
        assert_eq!(world.status.failed_revisions.len(), 1);
        assert_eq!(
            world.status.failed_revisions[0].node.as_deref(),
            Some("orin")
        );
        let before = world.engines();
        world.live(Duration::from_secs(10));
        assert_eq!(world.engines(), before, "no flapping within the backoff");
    }
}

#[test]
fn the_fallback_is_left_alone_while_a_new_revision_is_tried() {
    let mut world = served();
    let pods = |world: &Simulation| {
        let ollama = world.world.deployment("smol-ollama").unwrap();
        ollama.spec.clone().unwrap().template
    };
    let before = pods(&world);
    let bad = SMALL.replace("slots: 2", "slots: 3");
    world.fates.insert(parse(&bad).revision(), Fate::Mute);
    world.change(&bad);
    world.live(Duration::from_secs(30));
    assert_eq!(world.status.active_backend, ActiveBackend::LastGood);
    assert_eq!(pods(&world), before, "its restart would be a gap");
}

#[test]
fn a_first_revision_that_hangs_leaves_the_fallback_answering_and_ends_in_a_stall() {
    let mut world = Simulation::new(&SMALL.replace(
        "slots: 2 }",
        "slots: 2 }, runtime: { startupDeadline: 5s }, rollout: { retryLimit: 1, backoff: { initial: 1s, max: 1s } }",
    ));
    world.fates.insert(world.engine.revision(), Fate::Hangs);
    world.live(Duration::from_mins(1));
    assert_eq!(world.status.active_backend, ActiveBackend::Ollama);
    assert_eq!(
        condition(&world, ConditionType::Stalled),
        Some((ConditionStatus::True, Reason::RetryLimitReached))
    );
    assert!(world.engines().is_empty());
    world.engine.rollout.retry_token = Some("again".to_owned());
    world.engine.generation = Some(2);
    world.fates.clear();
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
}

#[test]
fn a_promoted_engine_that_crashes_is_started_anew_under_another_number() {
    let mut world = served();
    let before = world.engines();
    world
        .fates
        .insert(world.engine.revision(), Fate::Exits(137));
    world.kubelet();
    world.reconcile();
    world.fates.clear();
    world.kubelet();
    world.live(Duration::from_secs(5));
    let after = world.engines();
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    assert_eq!(world.status.active_backend, ActiveBackend::Cpu);
}

#[test]
fn a_failed_fetch_is_tried_again_and_a_wrong_digest_is_held_against_the_revision() {
    let mut world = Simulation::new(&SMALL.replace(
        "slots: 2 }",
        "slots: 2 }, rollout: { backoff: { initial: 1s, max: 2s } }",
    ));
    world.fetches = vec![
        failure(Reason::ModelUnreachable, true),
        failure(Reason::ModelDigestMismatch, false),
    ];
    world.settle();
    assert_eq!(
        condition(&world, ConditionType::Ready).map(|(_, reason)| reason),
        Some(Reason::ModelUnreachable)
    );
    world.live(Duration::from_secs(20));
    assert_eq!(
        world.status.failed_revisions.first().map(|one| one.reason),
        Some(Reason::ModelDigestMismatch)
    );
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
}

#[test]
fn a_model_that_was_fetched_into_another_claim_is_fetched_anew() {
    let mut world = Simulation::new(SMALL);
    let plan = world.reconcile();
    assert!(!plan.actions.is_empty() && !world.world.jobs.is_empty());
    // Somebody deletes the claim while the Job works, and it ends well nevertheless.
    world.world.claims.clear();
    world.kubelet();
    world.settle();
    assert_eq!(world.world.claims.len(), 1);
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
}

#[test]
fn what_somebody_edits_is_put_back_once() {
    let mut world = served();
    let before = world.writes;
    for deployment in &mut world.world.deployments {
        let spec = deployment.spec.as_mut().unwrap();
        let pod = spec.template.spec.as_mut().unwrap();
        pod.containers[0].image = Some("somebody/else".to_owned());
    }
    let edited = world.world.deployments.len();
    world.settle();
    assert_eq!(world.writes, before + edited);
    assert!(
        world
            .world
            .deployments
            .iter()
            .all(|one| !format!("{one:?}").contains("somebody/else"))
    );
}

#[test]
fn an_engine_whose_origin_is_unreadable_is_made_anew() {
    let mut world = served();
    let old = world.engines();
    for deployment in &mut world.world.deployments {
        if let Some(annotations) = &mut deployment.metadata.annotations {
            annotations.remove(LAUNCH);
        }
    }
    world.live(Duration::from_secs(10));
    assert_ne!(world.engines(), old);
    assert_eq!(world.engines().len(), 1);
}

#[test]
fn deleting_takes_everything_down_before_the_finalizer_goes() {
    let mut world = served();
    world.deleting = true;
    for _ in 0..20 {
        let plan = world.reconcile();
        if plan.removed {
            assert!(world.world.deployments.is_empty());
            let engine_pods = world.world.pods_of(names::Component::Engine).count();
            assert_eq!(engine_pods, 0);
            return;
        }
        world.kubelet();
    }
    panic!("it never ends: {:#?}", world.status);
}

#[test]
fn suspending_keeps_the_cache_and_what_is_known() {
    let mut world = served();
    world.engine.suspend = true;
    world.engine.generation = Some(2);
    world.settle();
    assert!(world.world.deployments.is_empty());
    assert!(
        world.world.services.is_empty(),
        "{:?}",
        world.world.services
    );
    assert_eq!(world.world.claims.len(), 1);
    assert_eq!(
        condition(&world, ConditionType::Ready),
        Some((ConditionStatus::False, Reason::Suspended))
    );
    world.engine.suspend = false;
    world.engine.generation = Some(3);
    world.live(Duration::from_secs(10));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
    assert!(world.world.jobs.is_empty(), "nothing is fetched again");
}

#[test]
fn without_a_node_it_is_said_what_to_do() {
    let mut world = Simulation::new(SMALL);
    world.world.nodes.clear();
    world.settle();
    assert_eq!(
        condition(&world, ConditionType::Stalled),
        Some((ConditionStatus::True, Reason::NoMatchingNode))
    );
}

#[test]
fn an_image_that_is_not_allowed_is_refused_with_the_remedy() {
    let digest = "0a".repeat(32);
    let image = format!("evil.example/x@sha256:{digest}");
    let spec = format!(
        "{{ model: {{ source: \"pvc://models/m.gguf\" }}, runtime: {{ type: Image, image: {{ image: \
         \"{image}\" }} }} }}"
    );
    let mut world = Simulation::new(&spec);
    world.settle();
    assert_eq!(
        condition(&world, ConditionType::Stalled),
        Some((ConditionStatus::True, Reason::SpecInvalid))
    );
    assert!(world.engines().is_empty());
    let allowed = spec.replace("evil.example/x", "registry.example/engines/x");
    world.change(&allowed);
    world.settle();
    assert_eq!(world.engines().len(), 1);
    assert_eq!(world.status.active_backend, ActiveBackend::Image);
}

#[test]
fn a_killed_operator_repeats_nothing_wherever_it_was_cut() {
    // The state is written first; whatever else was not done is done by the next plan.
    for cut in 1..25 {
        let mut world = Simulation::new(SMALL);
        for step in 0.. {
            world.wait(Duration::from_secs(1));
            let before = world.world.clone();
            world.reconcile();
            if step == cut {
                // Only the state reached the API server.
                let maps = world.world.maps.clone();
                world.world = World { maps, ..before };
                world.notes = Notes::default();
            }
            world.kubelet();
            if step > cut + 1 {
                break;
            }
        }
        world.live(Duration::from_secs(15));
        assert!(
            is(&world, ConditionType::Ready),
            "cut {cut}: {:#?}",
            world.status
        );
        assert_eq!(world.engines().len(), 1, "cut {cut}");
    }
}

/// An Orin with JetPack, and an operator that has an image for it.
fn jetson(spec: &str) -> Simulation {
    let mut world = Simulation::new(spec);
    world.site.tensorrt_image = Some("registry.example/enginewright-trt@sha256:11".to_owned());
    let edge = serde_json::json!({
        "apiVersion": "enginewright.dev/v1alpha1", "kind": "EdgeNode", "metadata": {"name": "orin"},
        "status": {
            "module": {"name": "Orin NX 16GB", "partNumber": "p3767-0000"},
            "gpu": {"name": "Orin (nvgpu)", "sm": "8.7"},
            "memoryBytes": 16_u64 << 30,
            "software": {"tensorrt": "10.3.0.30"},
            "runtimeClass": "nvidia",
        },
    });
    world.world.described = vec![std::sync::Arc::new(serde_json::from_value(edge).unwrap())];
    world
}

const BUILT: &str = "{ model: { source: \"pvc://models/m.gguf\" }, engine: { maxInputTokens: 512, \
     maxOutputTokens: 128, slots: 2 }, health: { soak: 5s, probeInterval: 1s }, \
     rollout: { retryLimit: 0, backoff: { initial: 1s, max: 2s } } }";

fn pod_of(world: &Simulation, component: &str) -> Option<k8s_openapi::api::core::v1::PodSpec> {
    let jobs = world.world.jobs.iter().filter_map(|job| {
        let spec = job.spec.as_ref()?.template.spec.clone()?;
        (label(&job.metadata, COMPONENT) == Some(component)).then_some(spec)
    });
    let deployments = world.world.deployments.iter().filter_map(|one| {
        let spec = one.spec.as_ref()?.template.spec.clone()?;
        (label(&one.metadata, COMPONENT) == Some(component)).then_some(spec)
    });
    jobs.chain(deployments).next()
}

fn arguments(pod: &k8s_openapi::api::core::v1::PodSpec) -> Vec<String> {
    pod.containers[0].args.clone().unwrap()
}

#[test]
fn where_the_node_has_tensorrt_the_engine_is_built_behind_the_fallback_and_then_served() {
    let mut world = jetson(BUILT);
    world.builds_go_on = true;
    world.settle();
    let build = pod_of(&world, "build").expect("it is built");
    let given = arguments(&build);
    for wanted in [
        "--sm=8.7",
        "--slots=2",
        "--max-input-tokens=512",
        "--precision=Fp16",
    ] {
        assert!(given.iter().any(|one| one == wanted), "{wanted}: {given:?}");
    }
    assert_eq!(build.runtime_class_name.as_deref(), Some("nvidia"));
    let image = build.containers[0].image.as_deref().unwrap();
    assert!(image.contains("enginewright-trt"), "{image}");
    assert!(world.engines().is_empty(), "no engine before it is built");
    assert_eq!(world.status.active_backend, ActiveBackend::Ollama);
    assert_eq!(
        condition(&world, ConditionType::Ready).map(|(_, reason)| reason),
        Some(Reason::BuildingEngine)
    );

    world.builds_go_on = false;
    world.live(Duration::from_secs(15));
    assert!(is(&world, ConditionType::Ready), "{:#?}", world.status);
    assert_eq!(world.status.active_backend, ActiveBackend::TensorRT);
    assert!(
        world.world.jobs.is_empty(),
        "what was taken over is tidied away"
    );
    let engine = pod_of(&world, "engine").unwrap();
    let bundle = format!("/engine/{}", "0b".repeat(32));
    let given = arguments(&engine);
    assert!(given.iter().any(|one| one.ends_with(&bundle)), "{given:?}");
    assert!(
        !given.iter().any(|one| one.starts_with("--model")),
        "{given:?}"
    );
    assert_eq!(engine.runtime_class_name.as_deref(), Some("nvidia"));
    let check = engine.init_containers.unwrap()[0].args.clone().unwrap();
    assert_eq!(check[..2], ["engine", "verify"]);

    // Known to the next operator, and nothing to be written.
    let before = world.writes;
    world.notes = Notes::default();
    world.kubelet();
    for _ in 0..5 {
        world.reconcile();
        world.kubelet();
    }
    assert_eq!(world.writes, before);
}

#[test]
fn a_build_that_fails_leaves_the_fallback_answering_and_is_held_against_the_revision() {
    let mut world = jetson(BUILT);
    world.builds = vec![
        failure(Reason::BuildStalled, true),
        failure(Reason::BuildFailed, false),
    ];
    world.settle();
    assert_eq!(
        condition(&world, ConditionType::Ready).map(|(_, reason)| reason),
        Some(Reason::BuildStalled)
    );
    world.live(Duration::from_secs(20));
    assert_eq!(
        condition(&world, ConditionType::Stalled),
        Some((ConditionStatus::True, Reason::RetryLimitReached))
    );
    assert_eq!(world.status.active_backend, ActiveBackend::Ollama);
    assert_eq!(world.status.failed_revisions[0].reason, Reason::BuildFailed);
    world.engine.rollout.retry_token = Some("again".to_owned());
    world.engine.generation = Some(2);
    world.live(Duration::from_secs(15));
    assert_eq!(world.status.active_backend, ActiveBackend::TensorRT);
}

#[test]
fn without_an_image_for_its_tensorrt_the_processor_of_a_jetson_serves() {
    let mut world = jetson(BUILT);
    world.site.tensorrt_image = None;
    world.live(Duration::from_secs(15));
    assert_eq!(world.status.active_backend, ActiveBackend::Cpu);
    let engine = pod_of(&world, "engine").unwrap();
    assert_eq!(engine.runtime_class_name, None);
}

#[test]
fn an_engine_that_is_only_to_be_fetched_is_refused_with_the_remedy() {
    let mut world = jetson(&BUILT.replace(
        "slots: 2",
        "slots: 2, policy: FetchOnly, registry: { \
         repository: \"registry.example/engines\" }, trust: { requireSignature: false }",
    ));
    world.settle();
    assert_eq!(
        condition(&world, ConditionType::Stalled),
        Some((ConditionStatus::True, Reason::EngineNotFound))
    );
    assert_eq!(world.status.active_backend, ActiveBackend::Ollama);
}

#[test]
fn an_engine_that_was_built_is_the_last_good_one_when_the_next_build_fails() {
    let mut world = jetson(BUILT);
    world.live(Duration::from_secs(15));
    let good = world.status.active_revision.clone();
    world.builds = vec![failure(Reason::BuildFailed, false)];
    world.change(&BUILT.replace("slots: 2", "slots: 3"));
    world.live(Duration::from_secs(20));
    assert_eq!(world.status.active_revision, good);
    assert_eq!(world.status.active_backend, ActiveBackend::LastGood);
    assert!(is(&world, ConditionType::Available));
}
