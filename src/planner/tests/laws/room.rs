//! I10: memory and the GPU.

use super::super::world::World;
use super::{Laws, room_of};
use crate::planner::*;

impl Laws {
    pub(super) fn i10_room(&mut self, world: &World, observed: &Observed, plan: &Plan) {
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
