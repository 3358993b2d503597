//! Shells that die, come back, read old things, suspend and take everything down.

use super::*;
use crate::planner::tests::world::Nature;

#[test]
fn a_restarted_run_starts_what_it_served_and_does_not_wait_for_a_soak_again() {
    let mut story = Story::serving();
    story.world.shell_dies();
    story.settle();
    assert_eq!(story.backend(), ActiveBackend::Cpu);
    assert!(story.is(ConditionType::Ready));
    assert_eq!(story.attempts("a"), 0);
}

#[test]
fn pods_serve_on_while_the_operator_restarts() {
    let mut story = Story::of(World::new(Shell::Pods, policy()));
    story.run_on();
    story.world.shell_dies();
    let actions = story.turn();
    let begins = |one: &Action| matches!(one, Action::Watch { .. } | Action::Begin { .. });
    assert!(actions.iter().all(begins), "{actions:?}");
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn a_start_that_was_cut_off_is_no_failure_but_the_third_in_a_row_is() {
    let mut story = Story::new();
    story.world.natures.insert(rev("a"), Nature::HangsAtStart);
    for start in 1..=3 {
        story.settle();
        assert_eq!(story.running(), ["a"], "start {start}");
        assert_eq!(story.attempts("a"), 0);
        story.world.shell_dies();
    }
    story.settle();
    assert_eq!(story.attempts("a"), 1);
    assert_eq!(story.status().failed[0].reason, Reason::StartInterrupted);
    assert!(story.running().is_empty());
    assert_eq!(story.backend(), ActiveBackend::Ollama);
}

#[test]
fn power_cuts_after_promotion_but_within_the_soak_count_too() {
    let mut story = Story::new();
    for _ in 0..3 {
        story.settle();
        assert_eq!(story.backend(), ActiveBackend::Cpu);
        story.world.shell_dies();
    }
    story.settle();
    assert_eq!(story.status().failed[0].reason, Reason::StartInterrupted);
}

#[test]
fn a_crash_is_counted_once_even_when_the_shell_dies_before_it_can_act() {
    let mut story = Story::of(World::new(Shell::Pods, policy()));
    story.run_on();
    story.kill_engine();
    for _ in 0..5 {
        story.world.checked_turn(&mut story.laws, Some(0));
    }
    assert_eq!(story.world.disk.ledger[0].crashes, 1);
}

#[test]
fn a_shell_that_dies_between_persisting_and_starting_never_uses_an_id_again() {
    let mut story = Story::new();
    while starts(&story.plan_ahead()) == 0 {
        story.turn();
        story.world.happen();
    }
    story.world.checked_turn(&mut story.laws, Some(0));
    assert_eq!(story.world.disk.next_instance, 2);
    story.settle();
    assert_eq!(story.world.engines[0].id, InstanceId(2));
}

#[test]
fn the_backoff_of_a_failed_revision_survives_a_restart_of_the_shell() {
    let mut story = Story::new();
    story.world.natures.insert(rev("a"), Nature::CrashesAtStart);
    story.settle();
    assert_eq!(story.attempts("a"), 1);
    story.world.now += 59_000;
    story.world.shell_dies();
    let actions = story.turn();
    assert_eq!(starts(&actions), 0);
    assert_eq!(story.ready_reason(), Reason::WaitingForRetry);
    assert!(story.status().failed[0].quarantined);
}

#[test]
fn an_older_spec_changes_nothing() {
    let mut story = Story::serving();
    story.edit("b");
    story.settle();
    let newest = story.world.desired.clone();
    story.world.desired.generation = 1;
    story.world.desired.revision = rev("a");
    assert_eq!(story.turn(), []);
    assert_eq!(story.status().observed_generation, 2);
    assert_eq!(
        story.condition(ConditionType::Ready).status,
        ConditionStatus::Unknown
    );
    story.world.desired = newest;
    story.run_on();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn a_suspended_engine_takes_nothing_and_comes_back_when_resumed() {
    let mut story = Story::serving();
    story
        .world
        .edit(|desired| desired.lifecycle = Lifecycle::Suspended);
    story.settle();
    assert!(story.running().is_empty());
    assert_eq!(story.world.gateway, Service::Absent);
    assert_eq!(story.world.fallback, Service::Absent);
    assert_eq!(story.ready_reason(), Reason::Suspended);
    assert!(!story.is(ConditionType::Reconciling));
    assert!(!story.plan().removed, "it is not being deleted");
    assert_eq!(story.status().last_good, Some(rev("a")));
    story
        .world
        .edit(|desired| desired.lifecycle = Lifecycle::Run);
    story.settle();
    assert!(story.is(ConditionType::Ready));
}

#[test]
fn the_gateway_ends_before_the_engines_it_drains_to() {
    let mut story = Story::serving();
    story
        .world
        .edit(|desired| desired.lifecycle = Lifecycle::Remove);
    assert_eq!(story.turn(), [Action::StopGateway]);
    assert_eq!(story.turn(), [], "it drains");
    story.world.happen();
    let actions = story.turn();
    assert!(actions.contains(&Action::StopFallback), "{actions:?}");
    assert!(!story.plan().removed);
    story.settle();
    assert!(story.plan().removed);
    assert_eq!(
        story.world.disk.last_good,
        Some(rev("a")),
        "what is known stays"
    );
}

#[test]
fn generations_are_numbered_where_no_api_server_does() {
    let mut durable = Durable::default();
    assert_eq!(durable.generation_of("x"), 1);
    durable.observed_generation = 7;
    durable.spec_digest = "x".to_owned();
    assert_eq!(durable.generation_of("x"), 7);
    assert_eq!(durable.generation_of("y"), 8);
}

#[test]
fn what_must_survive_survives_as_json() {
    let mut story = Story::serving();
    story.kill_engine();
    story.settle();
    let text = serde_json::to_string(&story.world.disk).expect("it is plain data");
    let back: Durable = serde_json::from_str(&text).expect("it is the same");
    assert_eq!(back, story.world.disk);
}

impl Story {
    /// What would be ordered now.
    fn plan_ahead(&self) -> Vec<Action> {
        plan(&self.world.observe(), self.world.time()).actions
    }
}
