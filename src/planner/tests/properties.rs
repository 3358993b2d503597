//! Long random histories: faults, edits, restarts and the passing of time in any order, with every
//! plan checked against the laws; then the faults stop, and the world must arrive (I14).
//!
//! # Mutation check
//!
//! Each guard was broken by hand, one at a time, and this property run with 256 histories. It fails,
//! with the law named:
//!
//! | broken guard | fails |
//! |---|---|
//! | `ledger`: no wait for the backoff; the backoff counts from the first failure | I5 |
//! | `ledger`: attempts unbounded; `goal`: the last good revision is never quarantined | I5 |
//! | `ledger`: backoffs not restored after a restart; `context`: a new generation lifts nothing | I14 |
//! | `ledger`: a failed instance is not settled, forgiveness without service | I6 |
//! | `settle`: no crash limit, no start limit | I6 |
//! | `settle`: bad smoke, missed objectives or dead generation pass | I6 |
//! | `settle`: no startup deadline; `artefacts`: failed work is not held against the revision | I14 |
//! | `engines`: a crashed engine restarts at once | I5 |
//! | `engines`: an unproven engine is promoted; `context`: one stands in while routes are unknown | I7 |
//! | `good`: last good without a generation after the soak, from inconclusive, from an undesired one | I7 |
//! | `conditions`: Ready on trial, Ready with another revision | I8 |
//! | `report`: a dead engine serves, a dead gateway serves | I8 |
//! | `mod`: a stale read acts | I15 |
//! | `mod`: the generation goes back | I9 |
//! | `room`: memory of engines, builds, fallback or what is ending is not counted; GPU not exclusive | I10 |
//! | `services`: the fallback starts in the engine's memory | I10 |
//! | `engines`: started while its predecessor ends; ids used again | I10 |
//! | `engines`: the incumbent ends before the new one serves, or before its requests go elsewhere | I2 |
//! | `engines`, `goal`: the incumbent ends while the fallback cannot answer | I2 |
//! | `garbage`: the last good revision is not kept | I2, I4 |
//! | `artefacts`, `goal`: started unverified | I1 |
//! | `teardown`: engines end before the gateway; gone while engines run | I12 |
//! | `context`: `wake_at` too late | I13 |
//! | `route`: written again and again; `goal`: what cannot run here is prepared | I14 |
//! | `services`, `artefacts`: what failed is tried again without a wait | I13 |
//! | `artefacts`: work may hang | the histories' own coverage |
//!
//! The stories in `paths` fail where a new token does not lift the quarantine (an edit of the
//! token is a new generation here), and where a hanging proof is not begun anew.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::events::{Event, event, heal, play, world};
use super::laws::Laws;
use super::world::{MIB, Nature, World};
use crate::planner::*;

/// What the world must have come to when faults have stopped.
fn assert_arrived(world: &World) {
    let status = world.status();
    let ready = status
        .condition(ConditionType::Ready)
        .expect("always there");
    let nature = world.nature(&world.desired.revision);
    let text = || {
        format!(
            "{nature:?}: {} {:?} {status:?}",
            ready.reason, status.active_backend
        )
    };
    if status.is_true(ConditionType::Ready) {
        assert_ne!(nature, Nature::Unfit, "I14: {}", text());
    } else if status.is_true(ConditionType::Stalled) {
        let stated = [
            Reason::RetryLimitReached,
            Reason::InsufficientMemory,
            Reason::PrecisionUnsupported,
        ];
        assert!(stated.contains(&ready.reason), "I14: {}", text());
    } else {
        // Not there, and nobody has to act: only for a reason that is not the planner's.
        let stated = match ready.reason {
            Reason::ProofInconclusive => nature == Nature::Unmeasurable,
            Reason::FallbackUnavailable => true,
            // A good revision that dies now and then is forgiven now and then.
            Reason::WaitingForRetry | Reason::EngineCrashed => nature != Nature::Good,
            _ => false,
        };
        assert!(stated, "I14: {}", text());
    }
    let fallback = world.desired.policy.fallback;
    let managed = fallback.is_some_and(|one| one.managed);
    let on_fallback = managed && !status.is_true(ConditionType::Ready);
    if on_fallback {
        let available = status.is_true(ConditionType::Available);
        assert!(available, "I14: dark: {}", text());
    }
}

/// Where the desired revision cannot serve, the last good one does, if the user wants that and it can.
fn assert_rolled_back(world: &World) {
    let status = world.status();
    let Some(good) = world.disk.last_good.as_ref() else {
        return;
    };
    let stored = world.revisions.iter().find(|one| one.id == *good);
    let complete = stored.is_some_and(|one| {
        let artefact = &one.artefact;
        let bundle = [&artefact.bundle, &artefact.build].contains(&&Step::Done);
        artefact.model == Step::Done && (one.build == BuildNeed::None || bundle)
    });
    let marked = world
        .disk
        .entry(good)
        .is_some_and(|entry| entry.attempts > 0);
    let expected = status.is_true(ConditionType::Stalled)
        && *good != world.desired.revision
        && world.desired.policy.last_good == LastGoodUse::First
        && world.nature(good) == Nature::Good
        && world.whole >= 5_000 * MIB
        && complete
        && !marked;
    if expected {
        assert_eq!(
            status.active_backend,
            ActiveBackend::LastGood,
            "I14: {status:#?}"
        );
    }
}

/// Whether the node is big enough for an engine, and for building it beside the fallback.
fn has_room(world: &World) -> bool {
    let fallback = world.desired.policy.fallback;
    let fallback = fallback.map_or(0, |fallback| fallback.memory_bytes);
    let build = world.build.unwrap_or(0);
    world.whole >= 5_000 * MIB && (build == 0 || build + fallback <= world.whole)
}

/// Plays a history to its end; gives back what was seen on the way.
fn history(mut world: World, events: &[Event]) -> Laws {
    let mut laws = Laws::default();
    for event in events {
        play(&mut world, &mut laws, event);
    }
    heal(&mut world);
    world.run_on(&mut laws, 2_000);
    assert_arrived(&world);
    assert_at_rest(&mut world, &mut laws);
    // It stays so.
    let (status, last_good) = (world.status().clone(), world.disk.last_good.clone());
    let promotions = laws.promotions.len();
    world.idle(&mut laws, Duration::from_mins(15));
    let arrived = status.is_true(ConditionType::Ready) || status.is_true(ConditionType::Stalled);
    if arrived && world.nature(&world.desired.revision) == Nature::Good {
        assert_eq!(
            status.active_backend,
            world.status().active_backend,
            "I14: it moved on"
        );
        assert_eq!(last_good, world.disk.last_good);
        assert_eq!(promotions, laws.promotions.len(), "I6: it flaps");
    }
    assert_rolled_back(&world);
    // A new token asks for one more round: what is good must then serve.
    world.edit(|desired| desired.retry_token = Some("again".to_owned()));
    world.run_on(&mut laws, 2_000);
    assert_arrived(&world);
    if world.nature(&world.desired.revision) == Nature::Good && has_room(&world) {
        assert!(
            world.status().is_true(ConditionType::Ready),
            "I14: {:#?}",
            world.status()
        );
    }
    // And it can be taken down from anywhere.
    world.edit(|desired| desired.lifecycle = Lifecycle::Remove);
    world.run_on(&mut laws, 100);
    assert!(
        world.last.as_ref().is_some_and(|plan| plan.removed),
        "I12: {:#?}",
        world.last
    );
    assert!(world.engines.is_empty());
    laws
}

/// At the fixpoint nothing is written: no action, nothing to persist, the same report.
fn assert_at_rest(world: &mut World, laws: &mut Laws) {
    let status = world.status();
    if !status.is_true(ConditionType::Ready) && !status.is_true(ConditionType::Stalled) {
        return;
    }
    let before = world.last.clone().expect("a plan was made");
    world.lawful_turn(laws);
    let after = world.last.clone().expect("a plan was made");
    assert_eq!(after.actions, [], "I13");
    assert_eq!(after.durable, before.durable, "I13");
    assert_eq!(after.status, before.status, "I13");
}

/// What must be seen somewhere in the histories, else the generators are too weak.
const SEEN: [&str; 28] = [
    "backend LastGood",
    "backend Ollama",
    "backend Cpu",
    "backend None",
    "failed StartInterrupted",
    "failed StartTimedOut",
    "failed EngineCrashed",
    "failed GenerationFailed",
    "failed ObjectiveMissed",
    "failed ModelNotFound",
    "failed ModelDigestMismatch",
    "ready Serving",
    "ready Soaking",
    "ready ProofInconclusive",
    "ready WaitingForRetry",
    "ready RetryLimitReached",
    "ready InsufficientMemory",
    "ready FallbackUnavailable",
    "ready GatewayUnavailable",
    "ready Suspended",
    "ready BuildingEngine",
    "does ParkFallback",
    "does StopEngine MakeRoom",
    "does Cancel stalled",
    "does CollectGarbage",
    "last good replaced",
    "rolled back",
    "spec changed on trial",
];

/// 256 histories; `PROPTEST_CASES` asks for more (a soak).
#[test]
fn every_history_keeps_the_laws_and_arrives() {
    let seen = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(ProptestConfig {
        max_shrink_iters: 5_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let histories = (world(), prop::collection::vec(event(), 0..150));
    let result = runner.run(&histories, |(world, events)| {
        let laws = history(world, &events);
        seen.borrow_mut().extend(laws.seen);
        Ok(())
    });
    if let Err(TestError::Fail(why, (world, events))) = result {
        let policy = &world.desired.policy;
        panic!(
            "{why}\n{:?} {:?} {policy:?}\n{events:?}",
            world.natures, world.revisions
        );
    }
    if ProptestConfig::default().cases < 256 {
        return;
    }
    let missing = |what: &&&str| !seen.borrow().contains(**what);
    let missing: Vec<&&str> = SEEN.iter().filter(missing).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
