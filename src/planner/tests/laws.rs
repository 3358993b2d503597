//! The planner's invariants (numbers as in the design), checked on every single plan against the
//! truth that only the simulated world knows.
//!
//! - **I2** The last good revision is never given up, nor anything it needs; the fallback is ended
//!   only when everything is, and parked only where memory or the user wants it; a healthy engine
//!   that serves is stopped only when its requests go to a proven engine or a ready fallback.
//! - **I5** Nothing is started (or fetched) for a revision whose backoff is not over or whose
//!   attempts are used up. The world keeps its own time of each failure, also across restarts.
//! - **I6** Attempts, crashes and starts on a page only grow, within their limits; every failure is
//!   counted, once.
//! - **I7** The last good revision changes only to the desired one, proven by measurement, that has
//!   served for its soak time and generated after it.
//! - **I8** `Ready=True` only when the gateway really sends requests to a live engine of the desired
//!   revision and generation, and its trial is over.
//! - **I9** The observed generation never goes back; conditions follow kstatus and Flux.
//! - **I10** Engines, builds and fallback together fit the node whenever something is added, never two
//!   processes that want the GPU alone, never two of one revision; instance ids are never reused.
//! - **I13** A plan that was applied is not ordered again; without change nothing changes before
//!   `wake_at`.
//!
//! Besides: only an engine that is proven is ever made the gateway's primary.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::planner::*;

/// What the laws remember between plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Laws {
    ids: BTreeSet<InstanceId>,
    failed_at: BTreeMap<RevisionId, u64>,
    generation: u64,
    /// The primary in force and since when, with breaks only where it really was interrupted.
    serving: Option<(InstanceId, u64)>,
    /// Engines whose smoke generation was really good.
    proven: BTreeSet<InstanceId>,
    /// Engines that were really measured to reach their objectives.
    measured: BTreeSet<InstanceId>,
    pub(super) promotions: Vec<RevisionId>,
}

impl Laws {
    pub(super) fn check(&mut self, world: &World, observed: &Observed, plan: &Plan) {
        self.learn(world, observed);
        if stale(observed) {
            assert!(plan.actions.is_empty(), "I15: a stale order acted");
            assert_eq!(
                plan.durable, observed.durable,
                "I15: a stale order was persisted"
            );
        }
        i2_last_good_and_fallback(world, observed, plan);
        self.i5_quarantine(observed, plan, world.now);
        i6_counting(observed, plan, world.now);
        self.i7_last_good(observed, plan, world.now);
        i8_ready(world, observed, plan);
        self.i9_report(world, plan);
        self.i10_room(world, observed, plan);
        i13_fixpoint(world, observed, plan);
        self.only_proven_engines_serve(observed, plan);
        self.note_failures(observed, plan, world.now);
    }

    fn learn(&mut self, world: &World, observed: &Observed) {
        for one in &observed.engines {
            self.ids.insert(one.id);
            if let Proof::Done {
                smoke, objectives, ..
            } = &one.proof
                && *smoke == Verdict::Good
            {
                self.proven.insert(one.id);
                if *objectives == Verdict::Good {
                    self.measured.insert(one.id);
                }
            }
        }
        let primary = observed.routed.and_then(|route| route.primary);
        let live = |one: &&Instance| Some(one.id) == primary && one.phase == Phase::Ready;
        let serving = observed.engines.iter().find(live).map(|one| one.id);
        match (self.serving, serving) {
            (Some((before, _)), Some(now)) if before == now => {}
            (_, now) => self.serving = now.map(|id| (id, world.now)),
        }
    }

    fn i5_quarantine(&self, observed: &Observed, plan: &Plan, now: u64) {
        for action in &plan.actions {
            let (Action::StartEngine { revision, .. } | Action::Begin { revision, .. }) = action
            else {
                continue;
            };
            let Some(page) = page(observed, &plan.durable, revision) else {
                continue;
            };
            if page.attempts == 0 {
                continue;
            }
            let policy = &observed.desired.policy;
            assert!(
                page.attempts <= policy.retry_limit,
                "I5: {revision} is exhausted: {action:?}"
            );
            let failed_at = self.failed_at.get(revision).copied().unwrap_or(0);
            let until = Timestamp(failed_at) + policy.backoff.after(page.attempts);
            assert!(
                Timestamp(now) >= until,
                "I5: {revision} backs off: {action:?}"
            );
        }
    }

    fn i7_last_good(&mut self, observed: &Observed, plan: &Plan, now: u64) {
        if plan.durable.last_good == observed.durable.last_good {
            return;
        }
        let desired = &observed.desired;
        assert_eq!(
            plan.durable.last_good.as_ref(),
            Some(&desired.revision),
            "I7"
        );
        let (id, since) = self.serving.expect("I7: nothing serves");
        let one = observed
            .engines
            .iter()
            .find(|one| one.id == id)
            .expect("I7");
        assert_eq!(one.revision, desired.revision, "I7: something else serves");
        assert!(self.measured.contains(&id), "I7: not measured");
        let until = Timestamp(since) + desired.policy.soak;
        assert!(Timestamp(now) >= until, "I7: not soaked");
        let health = one.health.unwrap_or_default();
        assert_eq!(health.consecutive_failures, 0, "I7: failing");
        let after = health.last_success.is_some_and(|last| last >= until);
        assert!(
            after || desired.policy.soak.is_zero(),
            "I7: no good generation after the soak"
        );
    }

    fn i9_report(&mut self, world: &World, plan: &Plan) {
        let status = &plan.status;
        assert!(
            status.observed_generation >= self.generation,
            "I9: generation went back"
        );
        assert!(
            plan.durable.observed_generation == status.observed_generation,
            "I9"
        );
        self.generation = status.observed_generation;
        let current = status.observed_generation == world.desired.generation;
        let ready = status
            .condition(ConditionType::Ready)
            .expect("I9: no Ready");
        let reconciling = status.condition(ConditionType::Reconciling);
        let stalled = status.condition(ConditionType::Stalled);
        assert!(
            reconciling.is_none() || stalled.is_none(),
            "I9: Reconciling and Stalled"
        );
        if ready.status == ConditionStatus::True {
            assert!(current, "I9: Ready for an older generation");
            assert!(
                reconciling.is_none() && stalled.is_none(),
                "I9: Ready and not"
            );
            assert!(
                !status.is_true(ConditionType::FallbackActive),
                "I9: Ready on the fallback"
            );
            assert!(
                status.is_true(ConditionType::Available),
                "I9: Ready and not available"
            );
        }
        for condition in &status.conditions {
            assert_eq!(
                condition.observed_generation, status.observed_generation,
                "I9"
            );
            assert!(
                condition.message.ends_with('.'),
                "I9: {}",
                condition.message
            );
        }
        let kinds: BTreeSet<_> = status.conditions.iter().map(|one| one.kind).collect();
        assert_eq!(
            kinds.len(),
            status.conditions.len(),
            "I9: a condition twice"
        );
        assert!(
            plan.durable.ledger.len() <= Durable::LEDGER_LIMIT,
            "I9: ledger grows"
        );
    }

    fn i10_room(&mut self, world: &World, observed: &Observed, plan: &Plan) {
        let mut after = world.clone();
        let mut adds = false;
        for action in &plan.actions {
            match action {
                Action::StartEngine {
                    instance, revision, ..
                } => {
                    assert!(self.ids.insert(*instance), "I10: {instance} is used again");
                    let ended = |one: &Instance| matches!(one.phase, Phase::Exited { .. });
                    let mut same = observed.engines.iter().filter(|o| o.revision == *revision);
                    assert!(same.all(ended), "I10: {revision} runs twice");
                    adds = true;
                }
                Action::EnsureFallback => adds = true,
                Action::Begin { work, .. } if *work == Work::BuildBundle => adds = true,
                _ => continue,
            }
            after.order(action);
        }
        if !adds {
            return;
        }
        let (sum, engines, exclusive) = taken(&after);
        assert!(exclusive <= 1, "I10: {exclusive} want the GPU alone");
        assert!(
            sum <= room_of(observed) || engines == 0,
            "I10: {sum} on the node"
        );
    }

    fn only_proven_engines_serve(&mut self, observed: &Observed, plan: &Plan) {
        for action in &plan.actions {
            let Action::Route(Route {
                primary: Some(id), ..
            }) = action
            else {
                continue;
            };
            assert!(self.proven.contains(id), "{id} is not proven");
            let one = observed
                .engines
                .iter()
                .find(|one| one.id == *id)
                .expect("it is there");
            assert_eq!(one.phase, Phase::Ready, "{id} is not ready");
            self.promotions.push(one.revision.clone());
        }
    }

    fn note_failures(&mut self, observed: &Observed, plan: &Plan, now: u64) {
        for entry in &plan.durable.ledger {
            let attempts =
                |durable| page(observed, durable, &entry.revision).map_or(0, |p| p.attempts);
            if attempts(&plan.durable) > attempts(&observed.durable) {
                self.failed_at.insert(entry.revision.clone(), now);
            }
        }
    }
}

fn i2_last_good_and_fallback(world: &World, observed: &Observed, plan: &Plan) {
    let before = &observed.durable.last_good;
    assert!(
        before.is_none() || plan.durable.last_good.is_some(),
        "I2: last good given up"
    );
    let down = observed.desired.lifecycle != Lifecycle::Run;
    let fallback = observed.desired.policy.fallback;
    for action in &plan.actions {
        match action {
            Action::CollectGarbage { keep } => {
                let needed = [&plan.durable.last_good, &plan.durable.active];
                let needed = needed.into_iter().flatten();
                let running = observed.engines.iter().map(|one| &one.revision);
                for id in needed.chain(running).chain([&observed.desired.revision]) {
                    assert!(keep.contains(id), "I2, I4: {id} is collected");
                }
            }
            Action::StopFallback | Action::StopGateway => {
                let unwanted = *action == Action::StopFallback && fallback.is_none();
                assert!(down || unwanted, "I2: {action:?} while it is wanted");
            }
            Action::ParkFallback => {
                let fallback = fallback.expect("I2: no fallback to park");
                let tight = observed.revisions.iter().any(|one| match one.fit {
                    Fit::Fits { memory_bytes, .. } => {
                        memory_bytes + fallback.memory_bytes > room_of(observed)
                    }
                    _ => false,
                });
                let cold = fallback.residency == Residency::Cold;
                assert!(tight || cold, "I2: parked for nothing");
            }
            Action::StopEngine { instance, .. } if !down => {
                may_stop(world, observed, plan, *instance);
            }
            _ => {}
        }
    }
}

fn may_stop(world: &World, observed: &Observed, plan: &Plan, id: InstanceId) {
    let Some(route) = observed.routed.filter(|route| route.primary == Some(id)) else {
        return;
    };
    let healthy = observed
        .engines
        .iter()
        .any(|one| one.id == id && one.phase == Phase::Ready);
    if !healthy || plan.durable.settled.contains(&id) || world.node.is_none() {
        return;
    }
    panic!("I2: {id} serves ({route:?}) and is stopped");
}

fn i6_counting(observed: &Observed, plan: &Plan, now: u64) {
    let policy = &observed.desired.policy;
    for entry in &plan.durable.ledger {
        let Some(page) = page(observed, &plan.durable, &entry.revision) else {
            continue;
        };
        assert!(
            page.attempts <= policy.retry_limit + 1,
            "I6: attempts {page:?}"
        );
        assert!(page.crashes < policy.crash_limit, "I6: crashes {page:?}");
        assert!(page.starts <= policy.start_limit, "I6: starts {page:?}");
        let Some(old) = self::page(observed, &observed.durable, &entry.revision) else {
            continue;
        };
        if page.attempts < old.attempts {
            assert!(
                earned_forgiveness(observed, &entry.revision, now),
                "I6: forgiven {old:?}"
            );
        }
    }
    for one in &observed.engines {
        if observed.durable.settled.contains(&one.id) || !has_failed(observed, one) {
            continue;
        }
        if observed.desired.lifecycle != Lifecycle::Run {
            continue;
        }
        assert!(
            plan.durable.settled.contains(&one.id),
            "I6: {} is not judged",
            one.id
        );
        let old = page(observed, &observed.durable, &one.revision);
        let new = page(observed, &plan.durable, &one.revision);
        let count =
            |page: Option<&Ledger>| page.map_or((0, 0), |page| (page.attempts, page.crashes));
        let failed = observed
            .engines
            .iter()
            .filter(|o| o.revision == one.revision);
        let failed = failed.filter(|o| has_failed(observed, o)).count();
        assert!(
            failed > 1 || count(new) > count(old),
            "I6: {} is not counted",
            one.id
        );
        let stopped = plan.actions.iter().any(
            |action| matches!(action, Action::StopEngine { instance, .. } if *instance == one.id),
        );
        assert!(stopped, "I6: {} failed and is not stopped", one.id);
    }
}

/// Whether the world itself gave this engine a verdict.
fn has_failed(observed: &Observed, one: &Instance) -> bool {
    let policy = &observed.desired.policy;
    let desired = one.revision == observed.desired.revision;
    match &one.phase {
        Phase::Exited { .. } => true,
        Phase::Ready => {
            let proof = match &one.proof {
                Proof::Done {
                    smoke, objectives, ..
                } => {
                    matches!(smoke, Verdict::Bad(_))
                        || (desired && matches!(objectives, Verdict::Bad(_)))
                }
                _ => false,
            };
            let dead = |health: Health| health.consecutive_failures >= policy.failure_threshold;
            proof || one.health.is_some_and(dead)
        }
        _ => false,
    }
}

fn earned_forgiveness(observed: &Observed, revision: &RevisionId, now: u64) -> bool {
    let primary = observed.routed.and_then(|route| route.primary);
    observed.engines.iter().any(|one| {
        let until = one
            .serving_since
            .map(|s| s + observed.desired.policy.forgive_after);
        Some(one.id) == primary
            && one.revision == *revision
            && until.is_some_and(|until| Timestamp(now) >= until)
    })
}

fn i8_ready(world: &World, observed: &Observed, plan: &Plan) {
    let serving = observed.routed.and_then(|route| route.primary);
    let serving = serving.and_then(|id| observed.engines.iter().find(|one| one.id == id));
    if plan.status.is_true(ConditionType::Ready) {
        assert!(
            matches!(world.gateway, Service::Ready { .. }),
            "I8: no gateway"
        );
        let one = serving.expect("I8: nothing serves");
        assert_eq!(one.phase, Phase::Ready, "I8: dead");
        assert_eq!(
            one.revision, observed.desired.revision,
            "I8: something else serves"
        );
        assert_eq!(
            plan.durable.last_good.as_ref(),
            Some(&one.revision),
            "I8: on trial"
        );
    }
    let answers = match plan.status.active_backend {
        ActiveBackend::None => return,
        ActiveBackend::Ollama => matches!(world.fallback, Service::Ready { .. }),
        _ => serving.is_some_and(|one| one.phase == Phase::Ready),
    };
    assert!(
        answers,
        "I8: {:?} does not answer",
        plan.status.active_backend
    );
}

/// Nothing is ordered twice, and nothing changes by itself before `wake_at`.
fn i13_fixpoint(world: &World, observed: &Observed, plan: &Plan) {
    let mut after = world.clone();
    after.turn(None);
    let again = crate::planner::plan(&after.observe(), after.time());
    for action in &plan.actions {
        let quiet = matches!(action, Action::Route(_));
        assert!(
            quiet || !again.actions.contains(action),
            "I13: again {action:?}"
        );
    }
    let mut kept = observed.clone();
    kept.durable = plan.durable.clone();
    kept.memory = plan.memory.clone();
    let now = crate::planner::plan(&kept, world.time());
    let horizon = now
        .wake_at
        .map_or(world.now + 400 * 24 * 3_600_000, |at| at.0 - 1);
    for time in [world.now + (horizon - world.now) / 2, horizon] {
        let later = crate::planner::plan(&kept, Timestamp(time));
        assert_eq!(later.actions, now.actions, "I13: acts before wake_at");
        assert_eq!(later.durable, now.durable, "I13: changes before wake_at");
        assert_eq!(later.status, now.status, "I13: reports before wake_at");
    }
}

fn stale(observed: &Observed) -> bool {
    observed.desired.generation < observed.durable.observed_generation
}

fn room_of(observed: &Observed) -> u64 {
    observed.node.as_ref().map_or(0, |node| node.memory_bytes)
}

fn page<'a>(observed: &Observed, durable: &'a Durable, id: &RevisionId) -> Option<&'a Ledger> {
    durable.entry(id).filter(|entry| {
        entry.generation == observed.desired.generation
            && entry.retry_token == observed.desired.retry_token
    })
}

/// Memory in use, engines and builds, and how many want the GPU alone.
fn taken(world: &World) -> (u64, usize, usize) {
    let engines: Vec<&Instance> = world
        .engines
        .iter()
        .filter(|one| !matches!(one.phase, Phase::Exited { .. }))
        .collect();
    let mut sum: u64 = engines.iter().map(|one| one.memory_bytes).sum();
    let mut count = engines.len();
    let mut exclusive = engines.iter().filter(|one| one.exclusive).count();
    for revision in &world.revisions {
        if let (Step::Running { .. }, BuildNeed::Bundle { memory_bytes }) =
            (&revision.artefact.build, revision.build)
        {
            sum += memory_bytes;
            count += usize::from(memory_bytes > 0);
            let alone = matches!(
                revision.fit,
                Fit::Fits {
                    exclusive: true,
                    ..
                }
            );
            exclusive += usize::from(alone && memory_bytes > 0);
        }
    }
    let holds = matches!(
        world.fallback,
        Service::Starting { .. } | Service::Ready { .. } | Service::Stopping
    );
    if let Some(fallback) = world.desired.policy.fallback
        && fallback.managed
        && holds
    {
        sum += fallback.memory_bytes;
    }
    (sum, count, exclusive)
}
