//! The planner's invariants (numbers as in the design), checked on every single plan against the
//! truth that only the simulated world knows.
//!
//! - **I1** Only what is complete and verified, in this life of the shell, is started.
//! - **I2** The last good revision is never given up, nor anything it needs; the fallback is ended
//!   only when everything is, and parked only where memory or the user wants it; requests are taken
//!   from a healthy engine only for a proven one or for a fallback that answers (or where none can),
//!   and it is stopped only after that.
//! - **I5** Nothing is started (or fetched) for a revision whose backoff is not over or whose
//!   attempts are used up; a crashed one waits too. The world keeps its own time of each failure.
//! - **I6** Attempts, crashes and starts on a page stay within their limits and go back only by
//!   forgiveness; every failure is counted, once, and what failed is stopped.
//! - **I7** The last good revision changes only to the desired one, proven by measurement, that has
//!   served for its soak time and generated after it. Only a proven engine is ever the primary.
//! - **I8** `Ready=True` only when the gateway really sends requests to a live engine of the desired
//!   revision and generation, and its trial is over; who is said to answer does.
//! - **I9** The observed generation never goes back; conditions follow kstatus and Flux.
//! - **I10** Engines, builds and fallback together fit the node whenever something is added, never two
//!   processes that want the GPU alone, never two of one revision; instance ids are never reused.
//! - **I12** Taken down in order, and called gone only when all is.
//! - **I13** A plan that was applied is not ordered again; what failed is not tried again without a
//!   wait; without change nothing changes before `wake_at`.
//! - **I15** A stale order changes nothing.
//!
//! I14 (everything arrives) is checked at the end of each history, in `properties`.

mod attempts;
mod quiet;
mod room;
mod seen;
mod serving;

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::planner::*;

/// What the laws remember between plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Laws {
    ids: BTreeSet<InstanceId>,
    failed_at: BTreeMap<RevisionId, u64>,
    crashed_at: BTreeMap<RevisionId, u64>,
    generation: u64,
    /// Engines that were ordered and never told to end.
    open_starts: BTreeMap<InstanceId, RevisionId>,
    /// The primary in force and since when, with breaks only where it really was interrupted.
    serving: Option<(InstanceId, u64)>,
    /// Engines whose smoke generation was really good.
    proven: BTreeSet<InstanceId>,
    /// Engines that were really measured to reach their objectives.
    measured: BTreeSet<InstanceId>,
    /// Revisions of the engines that were made primary, one entry for each order.
    pub(super) promotions: Vec<RevisionId>,
    /// What there was to see, in words: shows that the histories reach what matters.
    pub(super) seen: BTreeSet<String>,
}

impl Laws {
    pub(super) fn check(&mut self, world: &World, observed: &Observed, plan: &Plan) {
        self.learn(world, observed);
        if stale(observed) {
            assert!(plan.actions.is_empty(), "I15: a stale order acted");
            assert_eq!(
                plan.durable, observed.durable,
                "I15: a stale order was kept"
            );
            return;
        }
        serving::i1_verified(observed, plan);
        serving::i2_last_good_and_fallback(world, observed, plan);
        serving::i2_never_dark(observed, plan);
        self.i5_quarantine(observed, plan, world.now);
        attempts::i6_counting(observed, plan, world.now);
        self.i6_interrupted(observed, plan);
        self.i7_last_good(observed, plan, world.now);
        self.i7_only_proven_engines_serve(observed, plan);
        serving::i8_ready(world, observed, plan);
        self.i9_report(world, plan);
        self.i10_room(world, observed, plan);
        quiet::i12_taken_down(observed, plan);
        quiet::i13_fixpoint(world, observed, plan);
        quiet::i13_waits(world, observed, plan);
        self.note_failures(observed, plan, world.now);
        self.see(observed, plan);
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
}

fn stale(observed: &Observed) -> bool {
    observed.desired.generation < observed.durable.observed_generation
}

fn room_of(observed: &Observed) -> u64 {
    observed.node.as_ref().map_or(0, |node| node.memory_bytes)
}

/// The page of a revision that is in force.
fn page<'a>(observed: &Observed, durable: &'a Durable, id: &RevisionId) -> Option<&'a Ledger> {
    durable.entry(id).filter(|entry| {
        entry.generation == observed.desired.generation
            && entry.retry_token == observed.desired.retry_token
    })
}
