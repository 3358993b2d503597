//! The working paper of one plan: what was observed, what will be persisted, and what has been
//! decided so far. Holds no rule of its own, but for one: every comparison with the time goes
//! through [`Context::reached`], so that `wake_at` cannot be forgotten.

use super::types::{
    Action, Durable, Instance, InstanceId, Ledger, Memory, Observed, Phase, Policy, Revision,
    RevisionId, Timestamp,
};

/// See the module.
pub(super) struct Context<'a> {
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) durable: Durable,
    pub(super) memory: Memory,
    pub(super) actions: Vec<Action>,
    wake_at: Option<Timestamp>,
}

impl<'a> Context<'a> {
    pub(super) fn new(observed: &'a Observed, now: Timestamp) -> Self {
        Self {
            observed,
            now,
            durable: observed.durable.clone(),
            memory: observed.memory.clone(),
            actions: Vec::new(),
            wake_at: None,
        }
    }

    /// Whether `at` has come; if not, the plan is made again then.
    pub(super) fn reached(&mut self, at: Timestamp) -> bool {
        if self.now >= at {
            return true;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        false
    }

    pub(super) const fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) const fn policy(&self) -> &'a Policy {
        &self.observed.desired.policy
    }

    pub(super) const fn desired(&self) -> &'a RevisionId {
        &self.observed.desired.revision
    }

    pub(super) fn revision(&self, id: &RevisionId) -> Option<&'a Revision> {
        self.observed.revisions.iter().find(|one| one.id == *id)
    }

    pub(super) fn instance(&self, id: InstanceId) -> Option<&'a Instance> {
        self.observed.engines.iter().find(|one| one.id == id)
    }

    pub(super) fn is_settled(&self, id: InstanceId) -> bool {
        self.durable.settled.contains(&id)
    }

    /// Whether an instance runs, has not been told to end, and has nothing against it.
    pub(super) fn is_live(&self, instance: &Instance) -> bool {
        matches!(instance.phase, Phase::Starting { .. } | Phase::Ready)
            && !self.is_settled(instance.id)
    }

    /// The live instance of a revision: the one that serves, else the newest.
    pub(super) fn live(&self, revision: &RevisionId) -> Option<&'a Instance> {
        let primary = self.primary();
        self.observed
            .engines
            .iter()
            .filter(|one| one.revision == *revision && self.is_live(one))
            .max_by_key(|one| (Some(one.id) == primary, one.id))
    }

    /// The engine the gateway sends requests to first, as far as is known.
    pub(super) fn primary(&self) -> Option<InstanceId> {
        self.observed.routed.and_then(|route| route.primary)
    }

    /// The engine that serves and may go on serving until a better one is proven. While the route
    /// table is unknown: a proven one of the revision that served when it was last known.
    pub(super) fn incumbent(&self) -> Option<&'a Instance> {
        let ready = |one: &&'a Instance| one.phase == Phase::Ready && self.is_live(one);
        match self.observed.routed {
            Some(route) => route
                .primary
                .and_then(|id| self.instance(id))
                .filter(|one| ready(one)),
            None => self
                .observed
                .engines
                .iter()
                .filter(ready)
                .filter(|one| Some(&one.revision) == self.durable.active.as_ref())
                .filter(|one| one.is_proven())
                .max_by_key(|one| one.id),
        }
    }

    /// What a revision has on its account under the present generation and retry token.
    pub(super) fn page(&self, revision: &RevisionId) -> Option<&Ledger> {
        let desired = &self.observed.desired;
        self.durable.entry(revision).filter(|entry| {
            entry.generation == desired.generation && entry.retry_token == desired.retry_token
        })
    }

    /// The same to write on: a clean page where none is in force.
    pub(super) fn page_mut(&mut self, revision: &RevisionId) -> &mut Ledger {
        let desired = &self.observed.desired;
        let position = self
            .durable
            .ledger
            .iter()
            .position(|entry| entry.revision == *revision);
        let mut entry = match position {
            Some(position) => self.durable.ledger.remove(position),
            None => Ledger::new(revision.clone()),
        };
        if entry.generation != desired.generation || entry.retry_token != desired.retry_token {
            entry = Ledger {
                generation: desired.generation,
                retry_token: desired.retry_token.clone(),
                failure: entry.failure,
                ..Ledger::new(revision.clone())
            };
        }
        // Where it stood, so that writing nothing changes nothing.
        let position = position.unwrap_or(self.durable.ledger.len());
        self.durable.ledger.insert(position, entry);
        &mut self.durable.ledger[position]
    }

    /// Consecutive retries of something named, so far.
    pub(super) fn retries(&self, name: &str) -> u32 {
        self.memory.retries.get(name).copied().unwrap_or(0)
    }
}
