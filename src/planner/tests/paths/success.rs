//! What goes well, and what is said meanwhile.

use std::time::Duration;

use super::*;
use crate::planner::tests::world::Nature;

#[test]
fn the_gateway_and_the_fallback_come_before_everything_else() {
    let mut story = Story::new();
    let actions = story.turn();
    assert_eq!(
        actions[..2],
        [Action::EnsureGateway, Action::EnsureFallback]
    );
    assert_eq!(starts(&actions), 0);
    assert!(!story.is(ConditionType::Ready));
    assert!(story.is(ConditionType::Reconciling));
    assert!(!story.is(ConditionType::Available));
}

#[test]
fn the_engine_waits_a_little_for_a_fallback_that_is_still_coming_up() {
    let mut story = Story::new();
    for _ in 0..5 {
        story.turn();
        story.world.work_happens();
    }
    assert_eq!(story.ready_reason(), Reason::FallbackStarting);
    let grace = story.plan().wake_at.expect("it waits");
    story.world.now = grace.0;
    assert_eq!(starts(&story.turn()), 1);
}

#[test]
fn ollama_answers_while_the_engine_loads() {
    let mut story = Story::new();
    story.world.natures.insert(rev("a"), Nature::HangsAtStart);
    story.settle();
    assert_eq!(story.running(), ["a"]);
    assert_eq!(story.backend(), ActiveBackend::Ollama);
    assert!(story.is(ConditionType::Available));
    assert!(story.is(ConditionType::FallbackActive));
    assert_eq!(story.ready_reason(), Reason::StartingEngine);
}

#[test]
fn a_proven_engine_is_promoted_and_is_ready_only_after_its_soak() {
    let mut story = Story::new();
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    assert_eq!(story.ready_reason(), Reason::Soaking);
    assert_eq!(story.status().last_good, None);
    story.pass(59);
    assert!(!story.is(ConditionType::Ready));
    story.pass(1);
    assert!(story.is(ConditionType::Ready));
    assert_eq!(story.status().last_good, Some(rev("a")));
    assert!(!story.is(ConditionType::FallbackActive));
}

#[test]
fn without_a_good_generation_after_the_soak_nothing_becomes_last_good() {
    let mut story = Story::new();
    story.settle();
    story.world.now += 600_000;
    story.settle();
    assert_eq!(story.status().last_good, None);
    story.pass(1);
    assert_eq!(story.status().last_good, Some(rev("a")));
}

#[test]
fn what_serves_well_is_left_alone() {
    let mut story = Story::serving();
    story.settle();
    let before = story.world.observe();
    for _ in 0..10 {
        story.world.now += 3_600_000;
        assert_eq!(story.turn(), []);
        assert_eq!(story.world.disk, before.durable);
    }
    assert_eq!(story.plan().wake_at, None);
}

#[test]
fn an_engine_is_probed_with_the_interval_of_the_newest_spec() {
    let mut story = Story::serving();
    let interval = Duration::from_secs(3);
    story
        .world
        .edit(|desired| desired.policy.probe_interval = interval);
    let id = story.primary().id;
    let watch = Action::Watch {
        instance: id,
        interval,
    };
    assert_eq!(story.turn(), [watch]);
    assert!(story.is(ConditionType::Ready), "how, not what, has changed");
}

#[test]
fn an_objective_that_cannot_be_measured_is_no_failure_and_no_success() {
    let mut story = Story::new();
    story.world.natures.insert(rev("a"), Nature::Unmeasurable);
    story.settle();
    story.pass(600);
    assert_eq!(story.backend(), ActiveBackend::Cpu, "it serves");
    assert_eq!(story.ready_reason(), Reason::ProofInconclusive);
    assert_eq!(story.status().last_good, None);
    assert_eq!(story.attempts("a"), 0);
    story.world.natures.insert(rev("a"), Nature::Good);
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn a_smoke_generation_that_could_not_be_made_is_made_again() {
    let mut story = Story::new();
    while story
        .world
        .engines
        .first()
        .is_none_or(|one| one.proof == Proof::None)
    {
        story.turn();
        story.world.happen();
    }
    let at = story.world.time();
    story.world.engines[0].proof = Proof::Done {
        at,
        smoke: Verdict::Inconclusive("The prober could not connect.".to_owned()),
        objectives: Verdict::Inconclusive("Not reached.".to_owned()),
        measured: None,
    };
    assert_eq!(story.turn(), []);
    assert_eq!(story.ready_reason(), Reason::ProofInconclusive);
    assert_eq!(story.backend(), ActiveBackend::Ollama, "it is not promoted");
    story.world.now = story.plan().wake_at.expect("it is tried again").0;
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
}

#[test]
fn failures_are_forgotten_after_a_day_of_good_service() {
    let mut story = Story::serving();
    story.kill_engine();
    story.settle();
    story.run_on();
    assert_eq!(story.world.disk.ledger[0].crashes, 1);
    story.pass(24 * 3600 + 60);
    assert_eq!(story.world.disk.ledger[0].crashes, 0);
}

#[test]
fn a_tensorrt_engine_is_fetched_where_the_registry_has_it_and_built_where_not() {
    for (fetched, work) in [(true, Work::FetchBundle), (false, Work::BuildBundle)] {
        let mut world = World::new(Shell::Pods, policy());
        world.build = Some(0);
        world.revisions.clear();
        world.know(&rev("a"));
        world.revisions[0].kind = EngineKind::TensorRt;
        let mut story = Story::of(world);
        let mut begun = Vec::new();
        for _ in 0..20 {
            for action in story.turn() {
                if let Action::Begin { work, .. } = action {
                    begun.push(work);
                }
            }
            if fetched && begun.last() == Some(&Work::FetchBundle) {
                story
                    .world
                    .set_step(&rev("a"), Work::FetchBundle, Step::Done);
            }
            story.world.happen();
        }
        assert!(begun.contains(&work), "{begun:?}");
        assert_eq!(begun.contains(&Work::BuildBundle), !fetched);
        assert_eq!(begun.last(), Some(&Work::Verify));
        assert_eq!(story.backend(), ActiveBackend::TensorRT);
    }
}

#[test]
fn a_proof_that_never_ends_is_begun_anew() {
    let mut story = Story::new();
    while !story
        .world
        .engines
        .iter()
        .any(|one| one.proof != Proof::None)
    {
        story.turn();
        story.world.services_happen();
        story.world.work_happens();
        story.world.route_taken_over();
        story
            .world
            .with(InstanceId(1), |one| one.phase = Phase::Ready);
    }
    story.world.stuck.insert(InstanceId(1));
    story.settle();
    assert_eq!(story.ready_reason(), Reason::Proving);
    story.world.now = story.plan().wake_at.expect("it does not wait for ever").0;
    let prove = Action::Prove {
        instance: InstanceId(1),
    };
    assert_eq!(story.turn(), [prove]);
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
}
