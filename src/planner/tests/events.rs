//! What can happen to a world: the generators of random histories, and how each event plays.

use std::time::Duration;

use proptest::prelude::*;

use super::laws::Laws;
use super::world::{MIB, Nature, Shell, World, failure, policy, rev};
use crate::planner::*;

/// Something that happens to the world.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Things in progress come to an end, one kind of them or all.
    Happen(u8),
    /// All that can happen at this moment happens.
    Settle,
    /// Faults stop for a while, and the world goes on for so many rounds.
    Calm(u8),
    /// Time passes.
    Pass(u32),
    /// Time passes until the planner wants to be asked.
    Wake,
    /// Probes are made; this many of them in a row with this outcome.
    Probe {
        good: bool,
        count: u8,
        slow: bool,
    },
    /// An engine ends by itself.
    Exit(u8),
    /// An engine vanishes: power, or somebody deleted the pod.
    Vanish(u8),
    /// A running proof ends so.
    Proof {
        smoke: u8,
        objectives: u8,
    },
    /// The prober is lost: running proofs never end.
    ProofHangs,
    /// Running work fails.
    WorkFails {
        transient: bool,
    },
    /// Running work moves on.
    WorkMoves,
    GatewayFails,
    FallbackFails,
    FallbackBreaks(bool),
    /// The user writes another revision.
    Edit(u8),
    /// The user changes how, not what.
    Tune(u8),
    Token(u8),
    Suspend(bool),
    /// The shell is killed, before or after this many actions of its next plan.
    ShellDies(u8),
    /// Power is cut so many times, each time after all has come up that can.
    PowerCuts(u8),
    Memory(u16),
    NodeGone(bool),
    /// A plan is made from a spec that is no longer the newest.
    StaleRead,
    GarbageFails,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => any::<u8>().prop_map(Event::Happen),
        10 => Just(Event::Settle),
        8 => (0..80_u8).prop_map(Event::Calm),
        6 => (0..400_000_u32).prop_map(Event::Pass),
        8 => Just(Event::Wake),
        6 => (any::<bool>(), 1..5_u8, any::<bool>())
            .prop_map(|(good, count, slow)| Event::Probe { good, count, slow }),
        4 => any::<u8>().prop_map(Event::Exit),
        1 => any::<u8>().prop_map(Event::Vanish),
        3 => (0..3_u8, 0..3_u8).prop_map(|(smoke, objectives)| Event::Proof { smoke, objectives }),
        1 => Just(Event::ProofHangs),
        2 => any::<bool>().prop_map(|transient| Event::WorkFails { transient }),
        1 => Just(Event::WorkMoves),
        1 => Just(Event::GatewayFails),
        2 => Just(Event::FallbackFails),
        1 => any::<bool>().prop_map(Event::FallbackBreaks),
        4 => any::<u8>().prop_map(Event::Edit),
        1 => any::<u8>().prop_map(Event::Tune),
        1 => any::<u8>().prop_map(Event::Token),
        1 => any::<bool>().prop_map(Event::Suspend),
        2 => (0..6_u8).prop_map(Event::ShellDies),
        1 => (1..5_u8).prop_map(Event::PowerCuts),
        1 => (0..20_000_u16).prop_map(Event::Memory),
        1 => any::<bool>().prop_map(Event::NodeGone),
        1 => Just(Event::StaleRead),
        1 => Just(Event::GarbageFails),
    ]
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        12 => Just(Nature::Good),
        1 => Just(Nature::Missing),
        1 => Just(Nature::Forged),
        1 => Just(Nature::CrashesAtStart),
        1 => Just(Nature::CrashesServing),
        1 => Just(Nature::HangsAtStart),
        1 => Just(Nature::Mute),
        1 => Just(Nature::DiesServing),
        1 => Just(Nature::Slow),
        1 => Just(Nature::Unmeasurable),
        1 => Just(Nature::Unfit),
    ]
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Memory of the node in MiB: too little for an engine (5,000), enough for it alone, beside the
/// fallback (3,000), for two engines, for all, for plenty.
fn memory() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(4_500_u64),
        2 => Just(6_000),
        3 => Just(8_500),
        2 => Just(11_000),
        3 => Just(13_500),
        3 => Just(24_000),
    ]
}

/// A world: whose shell, how the node and the revisions are, what the user wants.
pub(super) fn world() -> impl Strategy<Value = World> {
    let fallback = prop_oneof![
        4 => Just(Residency::Standby),
        1 => Just(Residency::Warm),
        2 => Just(Residency::Cold),
    ];
    (
        any::<bool>(),
        prop::collection::vec(nature(), NAMES.len()),
        (
            memory(),
            prop::option::weighted(0.85, fallback),
            any::<bool>(),
        ),
        (
            0..3_u32,
            any::<bool>(),
            prop::option::of(0..5_000_u64),
            any::<bool>(),
        ),
        prop_oneof![
            Just(LastGoodUse::First),
            Just(LastGoodUse::AfterFallback),
            Just(LastGoodUse::Never)
        ],
    )
        .prop_map(
            |(pods, natures, (memory, residency, managed), how, last_good)| {
                let (retry_limit, stop_start, build, exclusive) = how;
                let mut policy = policy();
                policy.retry_limit = retry_limit;
                policy.last_good = last_good;
                if stop_start {
                    policy.strategy = RolloutStrategy::StopStart;
                }
                policy.fallback = residency.map(|residency| Fallback {
                    managed,
                    memory_bytes: if managed { 3_000 * MIB } else { 0 },
                    residency,
                });
                let shell = if pods { Shell::Pods } else { Shell::Processes };
                let mut world = World::new(shell, policy);
                world
                    .node
                    .as_mut()
                    .expect("new worlds have one")
                    .memory_bytes = memory * MIB;
                world.whole = memory * MIB;
                world.revisions.clear();
                for (name, nature) in NAMES.into_iter().zip(natures) {
                    world.natures.insert(rev(name), nature);
                }
                world.build = build.map(|mib| mib * MIB);
                world.exclusive = exclusive;
                world.know(&rev("a"));
                world
            },
        )
}

fn pick<T: Clone>(items: &[T], index: u8) -> Option<T> {
    let length = items.len().max(1);
    items.get(usize::from(index) % length).cloned()
}

fn verdict(index: u8, reason: Reason) -> Verdict {
    match index {
        0 => Verdict::Good,
        1 => Verdict::Bad(failure(reason, false)),
        _ => Verdict::Inconclusive("Too busy to measure.".to_owned()),
    }
}

/// Lets an event happen, then plans.
pub(super) fn play(world: &mut World, laws: &mut Laws, event: &Event) {
    match event {
        Event::ShellDies(acts) => {
            let acts = usize::from(*acts);
            world.checked_turn(laws, Some(acts));
            return;
        }
        Event::StaleRead => {
            stale_read(world, laws);
            return;
        }
        Event::Happen(kind) => happen(world, *kind),
        Event::Settle => settle(world, laws),
        Event::PowerCuts(times) => {
            for _ in 0..*times {
                settle(world, laws);
                world.shell_dies();
            }
        }
        Event::Calm(rounds) => {
            heal(world);
            world.run_on(laws, u32::from(*rounds));
        }
        Event::Pass(millis) => world.now += u64::from(*millis),
        Event::Wake => {
            let wake_at = world.last.as_ref().and_then(|plan| plan.wake_at);
            world.now = world.now.max(wake_at.map_or(0, |at| at.0));
        }
        Event::Probe { good, count, slow } => probe(world, *good, *count, *slow),
        Event::Edit(_) | Event::Tune(_) | Event::Token(_) | Event::Suspend(_) => user(world, event),
        _ => fault(world, event),
    }
    world.lawful_turn(laws);
}

fn settle(world: &mut World, laws: &mut Laws) {
    for _ in 0..20 {
        world.lawful_turn(laws);
        world.happen();
    }
}

fn happen(world: &mut World, kind: u8) {
    match kind % 6 {
        0 => world.services_happen(),
        1 => world.work_happens(),
        2 => world.engines_happen(),
        3 => world.route_taken_over(),
        _ => {
            world.happen();
        }
    }
}

fn probe(world: &mut World, good: bool, count: u8, slow: bool) {
    world.now += 10_000 * u64::from(count);
    let now = world.time();
    for one in &mut world.engines {
        let Some(health) = one.health.as_mut().filter(|_| one.phase == Phase::Ready) else {
            continue;
        };
        if good {
            health.consecutive_failures = 0;
            health.consecutive_slow = 0;
            health.last_success = Some(now);
        } else if slow {
            health.consecutive_slow += u32::from(count);
        } else {
            health.consecutive_failures += u32::from(count);
        }
    }
}

fn user(world: &mut World, event: &Event) {
    world.edit(|desired| match event {
        Event::Edit(index) => desired.revision = rev(NAMES[usize::from(*index) % NAMES.len()]),
        Event::Tune(index) => {
            let policy = &mut desired.policy;
            policy.probe_interval = Duration::from_secs(5 + u64::from(index % 3) * 5);
            policy.soak = Duration::from_secs(u64::from(index % 4) * 30);
            policy.has_objectives = index % 2 == 0;
        }
        Event::Token(index) => desired.retry_token = Some(format!("token-{}", index % 3)),
        Event::Suspend(true) => desired.lifecycle = Lifecycle::Suspended,
        _ => desired.lifecycle = Lifecycle::Run,
    });
}

fn fault(world: &mut World, event: &Event) {
    let at = world.time();
    let ids: Vec<InstanceId> = world.engines.iter().map(|one| one.id).collect();
    let failed = |reason| Service::Failed {
        at,
        failure: failure(reason, false),
    };
    match event {
        Event::Exit(index) => {
            if let Some(id) = pick(&ids, *index) {
                world.exit(id);
            }
        }
        Event::Vanish(index) => {
            let id = pick(&ids, *index);
            world.engines.retain(|one| Some(one.id) != id);
        }
        Event::Proof { smoke, objectives } => {
            for one in &mut world.engines {
                if matches!(one.proof, Proof::Running { .. }) {
                    one.proof = Proof::Done {
                        at,
                        smoke: verdict(*smoke, Reason::GenerationFailed),
                        objectives: verdict(*objectives, Reason::ObjectiveMissed),
                        measured: None,
                    };
                }
            }
        }
        Event::ProofHangs => {
            let running = |one: &&Instance| matches!(one.proof, Proof::Running { .. });
            let ids: Vec<_> = world
                .engines
                .iter()
                .filter(running)
                .map(|one| one.id)
                .collect();
            world.stuck.extend(ids);
        }
        Event::WorkFails { transient } => {
            if let Some((id, work)) = world.running_work() {
                let failure = failure(Reason::ModelUnreachable, *transient);
                world.set_step(&id, work, Step::Failed { at, failure });
            }
        }
        Event::WorkMoves => {
            if let Some((id, work)) = world.running_work() {
                world.set_step(&id, work, Step::Running { progress_at: at });
            }
        }
        Event::GatewayFails if world.gateway != Service::Absent => {
            world.gateway_gone(failed(Reason::GatewayUnavailable));
        }
        Event::FallbackFails => {
            if matches!(
                world.fallback,
                Service::Starting { .. } | Service::Ready { .. }
            ) {
                world.fallback = failed(Reason::FallbackUnavailable);
            }
        }
        Event::FallbackBreaks(broken) => world.fallback_works = !broken,
        Event::Memory(mib) => {
            if let Some(node) = &mut world.node {
                node.memory_bytes = u64::from(*mib) * MIB;
            }
        }
        Event::NodeGone(gone) => world.node_gone(*gone),
        Event::GarbageFails if world.garbage == Garbage::Running => {
            world.garbage = Garbage::Failed { at };
        }
        _ => {}
    }
}

fn stale_read(world: &mut World, laws: &mut Laws) {
    if world.desired.generation < 2 {
        return;
    }
    let newest = world.desired.clone();
    world.desired.generation -= 1;
    world.desired.revision = rev("d");
    world.lawful_turn(laws);
    world.desired = newest;
}

/// Faults stop: the user wants it to run, the node is whole.
pub(super) fn heal(world: &mut World) {
    world.fallback_works = true;
    world.node_gone(false);
    if world
        .desired
        .policy
        .fallback
        .is_some_and(|one| !one.managed)
    {
        world.fallback = Service::Ready {
            since: world.time(),
        };
    }
    if let Some(node) = &mut world.node {
        node.memory_bytes = world.whole;
    }
    if world.desired.lifecycle != Lifecycle::Run {
        world.edit(|desired| desired.lifecycle = Lifecycle::Run);
    }
}
