//! Each path of the design as a story with a sentence for a name. Every plan on the way is checked
//! against the laws too.

mod failures;
mod memory;
mod rollout;
mod shell;
mod success;

use super::laws::Laws;
use super::world::{Shell, World, policy, rev};
use crate::planner::*;

/// A world with its laws.
struct Story {
    world: World,
    laws: Laws,
}

impl Story {
    fn new() -> Self {
        Self::with(policy())
    }

    fn with(policy: Policy) -> Self {
        Self::of(World::new(Shell::Processes, policy))
    }

    fn of(world: World) -> Self {
        Self {
            world,
            laws: Laws::default(),
        }
    }

    /// The desired revision serves and is good.
    fn serving() -> Self {
        let mut story = Self::new();
        story.run_on();
        assert!(story.is(ConditionType::Ready));
        story
    }

    fn turn(&mut self) -> Vec<Action> {
        self.world.lawful_turn(&mut self.laws);
        self.plan().actions.clone()
    }

    /// Everything that can happen at this moment happens.
    fn settle(&mut self) {
        for _ in 0..60 {
            let idle = self.turn().is_empty();
            if !self.world.happen() && idle {
                return;
            }
        }
        panic!("never quiet: {:?}", self.plan().actions);
    }

    /// Time passes, with whatever happens at its end.
    fn pass(&mut self, seconds: u64) {
        self.world.now += seconds * 1_000;
        self.world.probe();
        self.settle();
    }

    /// Until it has arrived.
    fn run_on(&mut self) {
        self.world.run_on(&mut self.laws, 2_000);
    }

    fn plan(&self) -> &Plan {
        self.world.last.as_ref().expect("a plan was made")
    }

    fn status(&self) -> &Status {
        &self.plan().status
    }

    fn is(&self, kind: ConditionType) -> bool {
        self.status().is_true(kind)
    }

    fn ready_reason(&self) -> Reason {
        self.condition(ConditionType::Ready).reason
    }

    fn condition(&self, kind: ConditionType) -> &Condition {
        self.status()
            .condition(kind)
            .expect("the condition is there")
    }

    fn backend(&self) -> ActiveBackend {
        self.status().active_backend
    }

    /// The engines that run now, by revision.
    fn running(&self) -> Vec<String> {
        let engines = self.world.engines.iter();
        engines.map(|one| one.revision.to_string()).collect()
    }

    fn attempts(&self, name: &str) -> u32 {
        let failed = self.status().failed.iter();
        let mut failed = failed.filter(|one| one.revision == rev(name));
        failed.next().map_or(0, |one| one.attempts)
    }

    fn edit(&mut self, name: &str) {
        self.world.edit(|desired| desired.revision = rev(name));
    }

    fn kill_engine(&mut self) {
        let id = self.world.engines[0].id;
        self.world.exit(id);
    }

    fn primary(&mut self) -> &mut Instance {
        let id = self.world.routed.and_then(|route| route.primary);
        let mut engines = self.world.engines.iter_mut();
        engines
            .find(|one| Some(one.id) == id)
            .expect("an engine serves")
    }
}

fn starts(actions: &[Action]) -> usize {
    let start = |action: &&Action| matches!(action, Action::StartEngine { .. });
    actions.iter().filter(start).count()
}
