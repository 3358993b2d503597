//! New revisions: beside the old one or in its place, back when they are bad.

use super::*;
use crate::planner::tests::world::{MIB, Nature, failure};

#[test]
fn a_new_revision_is_proven_beside_the_old_one_which_serves_all_the_while() {
    let mut story = Story::serving();
    story.edit("b");
    let mut seen = Vec::new();
    for _ in 0..20 {
        story.turn();
        seen.push(story.backend());
        story.world.happen();
    }
    assert!(!seen.contains(&ActiveBackend::None), "{seen:?}");
    assert!(!seen.contains(&ActiveBackend::Ollama), "{seen:?}");
    assert_eq!(seen[0], ActiveBackend::LastGood);
    assert_eq!(story.running(), ["b"], "the old one ends");
    assert_eq!(story.ready_reason(), Reason::Soaking);
    story.run_on();
    assert_eq!(story.status().last_good, Some(rev("b")));
}

#[test]
fn a_bad_new_revision_leaves_the_last_good_one_serving() {
    for nature in [
        Nature::Missing,
        Nature::CrashesAtStart,
        Nature::Mute,
        Nature::Slow,
    ] {
        let mut story = Story::serving();
        story.world.natures.insert(rev("b"), nature);
        story.edit("b");
        story.run_on();
        assert!(story.is(ConditionType::Stalled), "{nature:?}");
        assert_eq!(story.backend(), ActiveBackend::LastGood);
        assert!(story.is(ConditionType::Available));
        assert!(story.is(ConditionType::FallbackActive));
        assert_eq!(story.status().active, Some(rev("a")));
        assert_eq!(
            story.laws.promotions,
            [rev("a")],
            "{nature:?}: it never left"
        );
    }
}

#[test]
fn a_revision_that_fails_in_its_soak_is_rolled_back_to_the_last_good_one() {
    let mut story = Story::serving();
    story.edit("b");
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    let mut health = story.primary().health.expect("it is watched");
    health.consecutive_failures = 3;
    story.primary().health = Some(health);
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::LastGood);
    assert_eq!(story.attempts("b"), 1);
    assert_eq!(story.laws.promotions, [rev("a"), rev("b"), rev("a")]);
}

#[test]
fn attempts_are_bounded_and_nothing_flaps() {
    let mut story = Story::serving();
    story.world.natures.insert(rev("b"), Nature::DiesServing);
    story.edit("b");
    story.run_on();
    story
        .world
        .idle(&mut story.laws, std::time::Duration::from_hours(2));
    let of_b = story.laws.promotions.iter().filter(|one| **one == rev("b"));
    assert_eq!(of_b.count(), 3, "{:?}", story.laws.promotions);
    assert_eq!(story.backend(), ActiveBackend::LastGood);
}

#[test]
fn going_back_to_the_old_spec_in_the_middle_of_a_trial_ends_the_trial() {
    let mut story = Story::serving();
    story.world.natures.insert(rev("b"), Nature::HangsAtStart);
    story.edit("b");
    story.settle();
    assert_eq!(story.running(), ["a", "b"]);
    story.edit("a");
    story.settle();
    assert_eq!(story.running(), ["a"]);
    assert!(story.is(ConditionType::Ready));
    assert_eq!(story.status().observed_generation, 3);
    assert_eq!(
        story.attempts("b"),
        0,
        "an end that we wanted is no failure"
    );
}

#[test]
fn a_third_revision_in_the_middle_of_a_trial_takes_its_place() {
    let mut story = Story::serving();
    story.edit("b");
    story.settle();
    assert_eq!(story.status().active, Some(rev("b")), "on trial");
    story.edit("c");
    story.turn();
    assert_eq!(
        story.condition(ConditionType::Available).reason,
        Reason::PreviousServing
    );
    story.run_on();
    assert!(story.is(ConditionType::Ready));
    assert_eq!(story.status().last_good, Some(rev("c")));
    assert!(!story.laws.promotions[2..].contains(&rev("b")));
}

#[test]
fn without_memory_for_both_the_old_engine_ends_only_when_the_fallback_answers() {
    let mut story = Story::serving();
    story.world.node.as_mut().expect("there").memory_bytes = 9_000 * MIB;
    story.edit("b");
    let mut seen = Vec::new();
    for _ in 0..20 {
        story.turn();
        seen.push(story.backend());
        assert!(story.running().len() <= 1);
        story.world.happen();
    }
    seen.dedup();
    let path = [
        ActiveBackend::LastGood,
        ActiveBackend::Ollama,
        ActiveBackend::Cpu,
    ];
    assert_eq!(seen, path);
}

#[test]
fn stop_start_is_kept_even_where_memory_would_hold_both() {
    let mut story = Story::serving();
    story.world.edit(|desired| {
        desired.revision = rev("b");
        desired.policy.strategy = RolloutStrategy::StopStart;
    });
    for _ in 0..20 {
        story.turn();
        assert!(story.running().len() <= 1);
        story.world.happen();
    }
    assert_eq!(story.running(), ["b"]);
}

#[test]
fn with_a_broken_fallback_the_old_engine_is_not_stopped_for_the_new_one() {
    let mut story = Story::serving();
    story.world.node.as_mut().expect("there").memory_bytes = 9_000 * MIB;
    story.world.fallback_works = false;
    let at = story.world.time();
    story.world.fallback = Service::Failed {
        at,
        failure: failure(Reason::FallbackUnavailable, false),
    };
    story.edit("b");
    story.settle();
    story.pass(600);
    assert_eq!(story.backend(), ActiveBackend::LastGood);
    assert_eq!(story.ready_reason(), Reason::FallbackUnavailable);
    story.world.fallback_works = true;
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn the_order_of_the_fallback_is_the_users() {
    for (last_good, backend) in [
        (LastGoodUse::First, ActiveBackend::LastGood),
        (LastGoodUse::AfterFallback, ActiveBackend::Ollama),
        (LastGoodUse::Never, ActiveBackend::Ollama),
    ] {
        let mut story = Story::serving();
        story.world.natures.insert(rev("b"), Nature::CrashesServing);
        story.world.edit(|desired| {
            desired.revision = rev("b");
            desired.policy.last_good = last_good;
        });
        story.run_on();
        assert!(story.is(ConditionType::Stalled));
        story.settle();
        assert_eq!(story.backend(), backend, "{last_good:?}");
    }
}

#[test]
fn when_the_last_good_one_fails_too_ollama_answers_and_a_person_is_called() {
    let mut story = Story::serving();
    for name in ["a", "b"] {
        story
            .world
            .natures
            .insert(rev(name), Nature::CrashesServing);
    }
    story.edit("b");
    story.run_on();
    story
        .world
        .idle(&mut story.laws, std::time::Duration::from_hours(1));
    assert!(story.is(ConditionType::Stalled));
    assert_eq!(story.backend(), ActiveBackend::Ollama);
    assert_eq!((story.attempts("a"), story.attempts("b")), (3, 3));
    assert!(story.running().is_empty());
}

#[test]
fn what_nothing_refers_to_any_more_is_deleted_and_the_last_good_one_is_not() {
    let mut story = Story::serving();
    story.edit("b");
    story.settle();
    let stored = |story: &Story| -> Vec<String> {
        let revisions = story.world.revisions.iter();
        revisions.map(|one| one.id.to_string()).collect()
    };
    assert_eq!(stored(&story), ["a", "b"]);
    story.run_on();
    story.settle();
    assert_eq!(stored(&story), ["b"]);
}
