//! Where memory is short: what makes room for what, and who answers meanwhile.

use super::*;
use crate::planner::tests::world::{MIB, Nature};

fn with_residency(residency: Residency, node_mib: u64) -> Story {
    let mut policy = policy();
    policy.fallback.as_mut().expect("there").residency = residency;
    let mut story = Story::with(policy);
    story.world.node.as_mut().expect("there").memory_bytes = node_mib * MIB;
    story
}

#[test]
fn a_fallback_that_does_not_fit_beside_the_engine_makes_room_before_the_engine_starts() {
    let mut story = with_residency(Residency::Standby, 6_000);
    let mut order = Vec::new();
    for _ in 0..30 {
        for action in story.turn() {
            match action {
                Action::ParkFallback => order.push("park"),
                Action::StartEngine { .. } => order.push("start"),
                _ => {}
            }
        }
        story.world.happen();
    }
    assert_eq!(order, ["park", "start"]);
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    assert_eq!(story.world.fallback, Service::Parked);
}

#[test]
fn a_parked_fallback_comes_back_when_the_engine_has_failed() {
    let mut story = with_residency(Residency::Standby, 6_000);
    story.run_on();
    assert!(story.is(ConditionType::Ready));
    story.world.natures.insert(rev("a"), Nature::CrashesAtStart);
    for _ in 0..3 {
        if !story.world.engines.is_empty() {
            story.kill_engine();
        }
        story.settle();
        story.pass(4);
    }
    assert_eq!(story.attempts("a"), 1);
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn a_cold_fallback_gives_its_memory_back_once_the_engine_serves() {
    let mut story = with_residency(Residency::Cold, 16_000);
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    assert_eq!(story.world.fallback, Service::Parked);
    assert_eq!(story.world.routed.map(|route| route.fallback), Some(false));
    story.kill_engine();
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn an_engine_that_does_not_fit_the_node_is_refused_with_the_numbers() {
    let mut story = with_residency(Residency::Standby, 4_000);
    story.settle();
    assert!(story.is(ConditionType::Stalled));
    assert_eq!(story.ready_reason(), Reason::InsufficientMemory);
    let message = &story.condition(ConditionType::Ready).message;
    assert!(
        message.contains("5000 MiB") && message.contains("4000 MiB"),
        "{message}"
    );
    assert_eq!(story.backend(), ActiveBackend::Ollama);
    story.world.node.as_mut().expect("there").memory_bytes = 16_000 * MIB;
    story.run_on();
    assert!(story.is(ConditionType::Ready), "the memory is back");
}

#[test]
fn memory_that_others_take_is_no_reason_to_stop_what_serves() {
    let mut story = Story::serving();
    story.world.node.as_mut().expect("there").memory_bytes = 100 * MIB;
    assert_eq!(story.turn(), []);
    assert!(story.is(ConditionType::Ready));
}

fn with_build(node_mib: u64) -> Story {
    let mut world = World::new(Shell::Pods, policy());
    world.revisions.clear();
    world.build = Some(6_000 * MIB);
    world.know(&rev("a"));
    world.node.as_mut().expect("there").memory_bytes = node_mib * MIB;
    Story::of(world)
}

#[test]
fn an_engine_makes_room_for_a_build_only_behind_a_fallback_that_answers() {
    let mut story = with_build(10_000);
    story.run_on();
    assert!(story.is(ConditionType::Ready));
    story.edit("b");
    let mut dark = false;
    for _ in 0..40 {
        story.turn();
        dark |= !story.is(ConditionType::Available);
        story.world.happen();
    }
    assert!(!dark);
    assert_eq!(story.status().active, Some(rev("b")));

    let mut story = with_build(10_000);
    story.run_on();
    story.world.fallback_works = false;
    story.world.fallback = Service::Absent;
    story.edit("b");
    story.settle();
    story.pass(600);
    assert_eq!(story.backend(), ActiveBackend::LastGood);
    assert_eq!(story.ready_reason(), Reason::FallbackUnavailable);
}

#[test]
fn while_a_build_waits_for_its_next_try_the_engine_that_made_room_serves_again() {
    let mut story = with_build(10_000);
    story.run_on();
    story.edit("b");
    let building = Some((rev("b"), Work::BuildBundle));
    for _ in 0..40 {
        story.turn();
        if story.world.running_work() == building {
            break;
        }
        story.world.happen();
    }
    assert_eq!(story.world.running_work(), building);
    assert!(story.running().is_empty());

    let (at, failure) = (
        story.world.time(),
        transient(Reason::ModelUnreachable, "No link."),
    );
    let failed = Step::Failed { at, failure };
    story.world.set_step(&rev("b"), Work::BuildBundle, failed);
    let (mut starts, mut stops) = (0, 0);
    for _ in 0..40 {
        for action in story.turn() {
            starts += u32::from(matches!(action, Action::StartEngine { .. }));
            stops += u32::from(matches!(action, Action::StopEngine { .. }));
        }
        story.world.happen();
    }
    assert_eq!((starts, stops), (1, 0), "no time has passed");
    assert_eq!(story.backend(), ActiveBackend::LastGood);

    story.run_on();
    assert_eq!(story.status().active, Some(rev("b")));
}

#[test]
fn an_engine_that_we_end_while_it_starts_is_not_blamed_for_it() {
    let mut story = with_build(10_000);
    story.run_on();
    story.edit("b");
    for wait in [60, 120, 240, 300, 300] {
        for _ in 0..40 {
            story.turn();
            if story
                .world
                .running_work()
                .is_some_and(|(_, work)| work == Work::BuildBundle)
            {
                break;
            }
            story.world.happen();
        }
        let failure = transient(Reason::ModelUnreachable, "No link.");
        let failed = Step::Failed {
            at: story.world.time(),
            failure,
        };
        story.world.set_step(&rev("b"), Work::BuildBundle, failed);
        // The last good one starts, and has to make room again before it was proven.
        story.world.now += (wait - 10) * 1_000;
        story.turn();
        story.turn();
        assert_eq!(story.running(), ["a"]);
        story.world.now += 10_000;
        story.turn();
    }
    story.run_on();
    assert_eq!(story.status().active, Some(rev("b")));
    let failed = &story.status().failed;
    assert!(
        failed.iter().all(|one| one.revision != rev("a")),
        "{failed:?}"
    );
}

#[test]
fn a_build_that_would_take_the_fallbacks_memory_is_refused() {
    let mut story = with_build(8_000);
    story.settle();
    assert!(story.is(ConditionType::Stalled));
    assert_eq!(story.ready_reason(), Reason::InsufficientMemory);
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn two_engines_that_want_the_gpu_alone_never_run_together() {
    let mut world = World::new(Shell::Pods, policy());
    world.revisions.clear();
    world.exclusive = true;
    world.node.as_mut().expect("there").memory_bytes = 64_000 * MIB;
    world.know(&rev("a"));
    let mut story = Story::of(world);
    story.run_on();
    story.edit("b");
    for _ in 0..20 {
        story.turn();
        assert!(story.running().len() <= 1);
        story.world.happen();
    }
    assert_eq!(story.running(), ["b"]);
}
