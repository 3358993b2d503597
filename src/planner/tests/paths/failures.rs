//! What fails, what it costs, and that it ends.

use super::*;
use crate::planner::tests::world::{Nature, failure};

fn story_of(nature: Nature) -> Story {
    let mut story = Story::new();
    story.world.natures.insert(rev("a"), nature);
    story
}

#[test]
fn every_bad_revision_ends_stalled_behind_the_fallback_with_its_reason() {
    for (nature, reason) in [
        (Nature::Missing, Reason::ModelNotFound),
        (Nature::Forged, Reason::ModelDigestMismatch),
        (Nature::CrashesAtStart, Reason::EngineCrashed),
        (Nature::CrashesServing, Reason::EngineCrashed),
        (Nature::HangsAtStart, Reason::StartTimedOut),
        (Nature::Mute, Reason::GenerationFailed),
        (Nature::DiesServing, Reason::GenerationFailed),
        (Nature::Slow, Reason::ObjectiveMissed),
    ] {
        let mut story = story_of(nature);
        story.run_on();
        assert!(
            story.is(ConditionType::Stalled),
            "{nature:?}: {:#?}",
            story.status()
        );
        assert_eq!(story.ready_reason(), Reason::RetryLimitReached);
        assert_eq!(story.backend(), ActiveBackend::Ollama);
        assert_eq!(story.attempts("a"), 3, "{nature:?}");
        let failed = &story.status().failed[0];
        assert_eq!(
            (failed.reason, failed.quarantined),
            (reason, true),
            "{nature:?}"
        );
        story.settle();
        assert!(story.running().is_empty(), "{nature:?}");
        let message = &story.condition(ConditionType::Ready).message;
        assert!(message.contains("rollout.retryToken"), "{message}");
    }
}

#[test]
fn an_engine_that_ends_before_it_is_proven_is_not_started_again_before_its_backoff() {
    let mut story = story_of(Nature::CrashesAtStart);
    story.settle();
    assert_eq!(story.attempts("a"), 1);
    assert_eq!(story.ready_reason(), Reason::WaitingForRetry);
    assert_eq!(
        story.plan().wake_at,
        Some(Timestamp(story.world.now + 60_000))
    );
    story.world.now += 59_999;
    assert_eq!(story.turn(), []);
    story.world.now += 1;
    assert_eq!(starts(&story.turn()), 1);
}

#[test]
fn a_promoted_engine_whose_process_ends_is_started_and_proven_again() {
    let mut story = Story::serving();
    story.kill_engine();
    let actions = story.turn();
    let fallback = Action::Route(Route {
        primary: None,
        fallback: true,
    });
    assert_eq!(actions[0], fallback, "{actions:?}");
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Ollama);
    assert_eq!(story.ready_reason(), Reason::EngineCrashed);
    story.pass(1);
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    assert!(
        story.is(ConditionType::Ready),
        "a good revision needs no second soak"
    );
    assert_eq!(story.attempts("a"), 0);
}

#[test]
fn the_third_crash_is_a_crash_loop() {
    let mut story = Story::serving();
    for crash in 1..=3 {
        story.kill_engine();
        story.settle();
        assert_eq!(story.attempts("a"), u32::from(crash == 3));
        story.pass(4);
    }
    assert_eq!(story.ready_reason(), Reason::WaitingForRetry);
    assert_eq!(story.backend(), ActiveBackend::Ollama);
    assert_eq!(
        story.status().last_good,
        Some(rev("a")),
        "it is not forgotten"
    );
}

#[test]
fn dead_generation_behind_a_living_process_fails_at_the_threshold_and_not_before() {
    let mut story = Story::serving();
    let mut health = story.primary().health.expect("it is watched");
    for failures in 1..=3 {
        health.consecutive_failures = failures;
        story.primary().health = Some(health);
        let stops = story.turn();
        assert_eq!(stops.is_empty(), failures < 3, "{stops:?}");
    }
    story.settle();
    assert_eq!(story.status().failed[0].reason, Reason::GenerationFailed);
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn slow_is_a_failure_only_while_the_device_is_cool() {
    let mut story = Story::serving();
    let mut health = story.primary().health.expect("it is watched");
    health.throttled = true;
    story.primary().health = Some(health);
    assert_eq!(story.turn(), []);
    assert!(story.is(ConditionType::Ready));
    health.throttled = false;
    health.consecutive_slow = 3;
    story.primary().health = Some(health);
    story.turn();
    assert_eq!(story.status().failed[0].reason, Reason::ObjectiveMissed);
}

#[test]
fn a_bad_link_is_tried_again_for_ever_and_never_held_against_the_revision() {
    let mut story = Story::new();
    story.turn();
    for _ in 0..50 {
        let at = story.world.time();
        let failure = failure(Reason::ModelUnreachable, true);
        story
            .world
            .set_step(&rev("a"), Work::FetchModel, Step::Failed { at, failure });
        let waits = story.turn();
        assert!(
            !waits
                .iter()
                .any(|action| matches!(action, Action::Begin { .. }))
        );
        assert_eq!(story.ready_reason(), Reason::ModelUnreachable);
        story.world.services_happen();
        story.world.route_taken_over();
        let wake = story.plan().wake_at.expect("it is tried again");
        assert!(wake.since(at).as_secs() <= 300, "the backoff is bounded");
        story.world.now = wake.0;
        let begin = Action::Begin {
            revision: rev("a"),
            work: Work::FetchModel,
        };
        assert!(story.turn().contains(&begin));
    }
    assert_eq!(story.attempts("a"), 0);
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn work_that_does_not_move_is_cancelled_and_work_that_moves_is_not() {
    let mut story = Story::new();
    story.turn();
    for _ in 0..10 {
        story.world.now += 119_000;
        let progress_at = story.world.time();
        story.turn();
        story
            .world
            .set_step(&rev("a"), Work::FetchModel, Step::Running { progress_at });
    }
    story.world.now += 120_000;
    let cancel = Action::Cancel {
        revision: rev("a"),
        work: Work::FetchModel,
        stalled: true,
    };
    assert!(story.turn().contains(&cancel));
}

#[test]
fn a_new_retry_token_asks_for_another_round() {
    let mut story = story_of(Nature::CrashesAtStart);
    story.run_on();
    assert!(story.is(ConditionType::Stalled));
    story.world.natures.insert(rev("a"), Nature::Good);
    story.world.now += 1_000_000_000;
    assert_eq!(story.turn(), [], "time alone does not help");
    story.world.desired.retry_token = Some("again".to_owned());
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn a_gateway_that_fails_is_started_again_with_growing_waits() {
    let mut story = Story::serving();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let at = story.world.time();
        story.world.gateway_gone(Service::Failed {
            at,
            failure: failure(Reason::EnvironmentError, false),
        });
        assert_eq!(story.turn(), []);
        assert_eq!(story.ready_reason(), Reason::GatewayUnavailable);
        assert_eq!(story.backend(), ActiveBackend::None);
        let wake = story.plan().wake_at.expect("it is tried again");
        waits.push(wake.since(at).as_secs());
        story.world.now = wake.0;
        assert_eq!(story.turn(), [Action::EnsureGateway]);
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu, "the engine served on");
    assert_eq!(story.running(), ["a"]);
}

#[test]
fn a_fallback_that_cannot_come_up_does_not_keep_the_engine_from_serving() {
    let mut story = Story::new();
    story.world.fallback_works = false;
    story.run_on();
    assert!(story.is(ConditionType::Ready));
    let message = &story.condition(ConditionType::Ready).message;
    assert!(message.contains("the fallback is not ready"), "{message}");
    assert!(
        message.ends_with("Check that Ollama is installed and answers."),
        "{message}"
    );
}

#[test]
fn what_the_hardware_refuses_is_said_at_once_and_nothing_is_fetched() {
    let mut world = World::new(Shell::Processes, policy());
    world.revisions.clear();
    world.natures.insert(rev("a"), Nature::Unfit);
    world.know(&rev("a"));
    let mut story = Story::of(world);
    let actions = story.turn();
    assert_eq!(actions, [Action::EnsureGateway, Action::EnsureFallback]);
    assert!(story.is(ConditionType::Stalled));
    assert_eq!(story.ready_reason(), Reason::PrecisionUnsupported);
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn without_a_node_a_person_has_to_act() {
    let mut story = Story::serving();
    story.world.node_gone(true);
    story.turn();
    assert!(story.is(ConditionType::Stalled));
    assert_eq!(story.ready_reason(), Reason::NoMatchingNode);
    story.world.node_gone(false);
    story.settle();
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}
