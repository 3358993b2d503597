//! A simulated node with a fake shell: it shows the planner what is there, persists and does what
//! it is told, and lets things happen in between. It knows the truth (how each revision really is,
//! what really runs), which the laws compare the planner with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::planner::*;

pub(super) const MIB: u64 = 1024 * 1024;

/// How a revision really is, once faults stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// Its model cannot be fetched, ever.
    Missing,
    /// The bytes are wrong.
    Forged,
    /// Ends while loading.
    CrashesAtStart,
    /// Ends after promotion.
    CrashesServing,
    /// Never becomes ready.
    HangsAtStart,
    /// Generates nothing.
    Mute,
    /// Proven, then stops generating.
    DiesServing,
    /// Misses the objectives.
    Slow,
    /// Its objectives can never be measured.
    Unmeasurable,
    /// Does not fit the hardware.
    Unfit,
}

/// Who keeps processes when the shell dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    /// `run`: children die with it.
    Processes,
    /// The operator: pods go on.
    Pods,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) shell: Shell,
    pub(super) now: u64,
    pub(super) desired: Desired,
    pub(super) disk: Durable,
    pub(super) memory: Memory,
    pub(super) node: Option<Node>,
    pub(super) natures: BTreeMap<RevisionId, Nature>,
    pub(super) revisions: Vec<Revision>,
    pub(super) engines: Vec<Instance>,
    pub(super) gateway: Service,
    pub(super) fallback: Service,
    /// How a stopping fallback ends.
    pub(super) fallback_ends_as: Service,
    /// Whether the fallback can come up.
    pub(super) fallback_works: bool,
    pub(super) routed: Option<Route>,
    pub(super) next_route: Option<Route>,
    pub(super) garbage: Garbage,
    /// Memory a build takes; `None` where none is needed.
    pub(super) build: Option<u64>,
    /// Whether engines want the GPU alone.
    pub(super) exclusive: bool,
    /// Engines whose proof never ends by itself.
    pub(super) stuck: BTreeSet<InstanceId>,
    /// Memory of the node when nobody else takes any.
    pub(super) whole: u64,
    hidden_node: Option<Node>,
    /// Last plan's report.
    pub(super) last: Option<Plan>,
}

pub(super) fn rev(name: &str) -> RevisionId {
    RevisionId::new(name)
}

pub(super) fn failure(reason: Reason, transient: bool) -> Failure {
    Failure {
        reason,
        message: format!("It went wrong ({reason})."),
        exit_code: Some(3),
        transient,
    }
}

/// A policy with short times, so that long histories stay readable.
pub(super) fn policy() -> Policy {
    let seconds = Duration::from_secs;
    Policy {
        retry_limit: 2,
        backoff: Backoff {
            initial: seconds(60),
            max: seconds(300),
        },
        probe_interval: seconds(10),
        soak: seconds(60),
        startup_deadline: seconds(120),
        progress_deadline: seconds(120),
        has_objectives: true,
        fallback: Some(Fallback {
            managed: true,
            memory_bytes: 3000 * MIB,
            residency: Residency::Standby,
        }),
        ..Policy::default()
    }
}

impl World {
    pub(super) fn new(shell: Shell, policy: Policy) -> Self {
        let mut world = Self {
            shell,
            now: 1_000,
            desired: Desired {
                generation: 1,
                spec_digest: String::new(),
                revision: rev("a"),
                retry_token: None,
                lifecycle: Lifecycle::Run,
                policy,
            },
            disk: Durable::default(),
            memory: Memory::default(),
            node: Some(Node {
                name: "node".to_owned(),
                memory_bytes: 16_000 * MIB,
            }),
            natures: BTreeMap::new(),
            revisions: Vec::new(),
            engines: Vec::new(),
            gateway: Service::Absent,
            fallback: Service::Absent,
            fallback_ends_as: Service::Absent,
            fallback_works: true,
            routed: None,
            next_route: None,
            garbage: Garbage::Idle,
            build: None,
            exclusive: false,
            stuck: BTreeSet::new(),
            whole: 16_000 * MIB,
            hidden_node: None,
            last: None,
        };
        world.know(&rev("a"));
        world
    }

    pub(super) const fn time(&self) -> Timestamp {
        Timestamp(self.now)
    }

    pub(super) fn nature(&self, id: &RevisionId) -> Nature {
        self.natures.get(id).copied().unwrap_or(Nature::Good)
    }

    /// Makes the shell report a revision.
    pub(super) fn know(&mut self, id: &RevisionId) {
        if self.revisions.iter().any(|one| one.id == *id) {
            return;
        }
        let fit = if self.nature(id) == Nature::Unfit {
            Fit::Refused {
                reason: Reason::PrecisionUnsupported,
                message: "SM 8.7 has no FP8. Write engine.precision: Auto.".to_owned(),
            }
        } else {
            Fit::Fits {
                memory_bytes: 5000 * MIB,
                exclusive: self.exclusive,
            }
        };
        self.revisions.push(Revision {
            id: id.clone(),
            kind: EngineKind::Cpu,
            fit,
            build: self
                .build
                .map_or(BuildNeed::None, |memory_bytes| BuildNeed::Bundle {
                    memory_bytes,
                }),
            artefact: Artefact::default(),
        });
    }

    pub(super) fn revision_mut(&mut self, id: &RevisionId) -> Option<&mut Revision> {
        self.revisions.iter_mut().find(|one| one.id == *id)
    }

    /// The user writes a new spec.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Desired)) {
        change(&mut self.desired);
        self.desired.generation += 1;
        let id = self.desired.revision.clone();
        self.know(&id);
    }

    pub(super) fn observe(&self) -> Observed {
        Observed {
            desired: self.desired.clone(),
            durable: self.disk.clone(),
            memory: self.memory.clone(),
            node: self.node.clone(),
            revisions: self.revisions.clone(),
            engines: self.engines.clone(),
            gateway: self.gateway.clone(),
            fallback: self.fallback.clone(),
            routed: self.routed,
            garbage: self.garbage,
        }
    }

    /// Observes, plans, persists and acts: all of it, or only the first actions before the shell dies.
    pub(super) fn turn(&mut self, acts: Option<usize>) -> (Observed, Plan) {
        let observed = self.observe();
        let plan = plan(&observed, self.time());
        self.disk = plan.durable.clone();
        self.memory = plan.memory.clone();
        let count = acts.unwrap_or(plan.actions.len());
        for action in plan.actions.iter().take(count) {
            self.apply(action);
        }
        self.last = Some(plan.clone());
        if acts.is_some() {
            self.shell_dies();
        }
        (observed, plan)
    }

    pub(super) fn order(&mut self, action: &Action) {
        self.apply(action);
    }

    fn apply(&mut self, action: &Action) {
        let since = self.time();
        match action {
            Action::EnsureGateway => self.gateway = Service::Starting { since },
            Action::EnsureFallback => self.fallback = Service::Starting { since },
            Action::StopGateway => self.gateway = Service::Stopping,
            Action::StopFallback => self.end_fallback(Service::Absent),
            Action::ParkFallback => self.end_fallback(Service::Parked),
            Action::Begin { revision, work } => {
                let progress_at = since;
                self.set_step(revision, *work, Step::Running { progress_at });
            }
            Action::Cancel {
                revision,
                work,
                stalled,
            } => {
                let transient = matches!(work, Work::FetchModel | Work::FetchBundle);
                let failed = Step::Failed {
                    at: since,
                    failure: failure(Reason::BuildStalled, transient),
                };
                let step = if *stalled { failed } else { Step::Todo };
                self.set_step(revision, *work, step);
            }
            Action::StartEngine {
                instance,
                revision,
                memory_bytes,
                exclusive,
                ..
            } => self.engines.push(Instance {
                id: *instance,
                revision: revision.clone(),
                phase: Phase::Starting { since },
                memory_bytes: *memory_bytes,
                exclusive: *exclusive,
                proof: Proof::None,
                serving_since: None,
                health: None,
            }),
            Action::Prove { instance } => {
                self.stuck.remove(instance);
                self.with(*instance, |one| one.proof = Proof::Running { since });
            }
            Action::Watch { instance, interval } => self.with(*instance, |one| {
                let health = one.health.get_or_insert_with(Health::default);
                health.interval = *interval;
            }),
            Action::StopEngine { instance, .. } => {
                let ended = |one: &Instance| matches!(one.phase, Phase::Exited { .. });
                self.engines
                    .retain(|one| one.id != *instance || !ended(one));
                self.with(*instance, |one| one.phase = Phase::Stopping);
            }
            Action::Route(route) => self.next_route = Some(*route),
            Action::CollectGarbage { keep } => {
                self.garbage = Garbage::Running;
                self.revisions.retain(|one| keep.contains(&one.id));
            }
        }
    }

    fn end_fallback(&mut self, end: Service) {
        self.fallback_ends_as = end;
        self.fallback = Service::Stopping;
    }

    pub(super) fn with(&mut self, id: InstanceId, change: impl FnOnce(&mut Instance)) {
        if let Some(one) = self.engines.iter_mut().find(|one| one.id == id) {
            change(one);
        }
    }

    pub(super) fn set_step(&mut self, id: &RevisionId, work: Work, step: Step) {
        let Some(revision) = self.revision_mut(id) else {
            return;
        };
        let artefact = &mut revision.artefact;
        match work {
            Work::FetchModel => artefact.model = step,
            Work::FetchBundle => artefact.bundle = step,
            Work::BuildBundle => artefact.build = step,
            Work::Verify => artefact.verify = step,
        }
    }

    /// The first running work, if any.
    pub(super) fn running_work(&self) -> Option<(RevisionId, Work)> {
        self.revisions.iter().find_map(|one| {
            let a = &one.artefact;
            let all = [
                (Work::FetchModel, &a.model),
                (Work::FetchBundle, &a.bundle),
                (Work::BuildBundle, &a.build),
                (Work::Verify, &a.verify),
            ];
            let mut running = all
                .into_iter()
                .filter(|(_, s)| matches!(s, Step::Running { .. }));
            running.next().map(|(work, _)| (one.id.clone(), work))
        })
    }

    /// The gateway takes the last written table over.
    pub(super) fn route_taken_over(&mut self) {
        if !matches!(self.gateway, Service::Ready { .. }) {
            return;
        }
        if let Some(route) = self.next_route.take() {
            self.routed = Some(route);
        }
        let now = self.time();
        let primary = self.routed.and_then(|route| route.primary);
        for one in &mut self.engines {
            let serves = Some(one.id) == primary;
            one.serving_since = serves.then(|| one.serving_since.unwrap_or(now));
        }
    }

    /// The gateway is gone: nobody serves.
    pub(super) fn gateway_gone(&mut self, state: Service) {
        self.gateway = state;
        self.routed = None;
        for one in &mut self.engines {
            one.serving_since = None;
        }
    }

    /// No node matches any more, or one does again.
    pub(super) fn node_gone(&mut self, gone: bool) {
        if gone {
            self.hidden_node = self.node.take().or_else(|| self.hidden_node.take());
        } else if self.node.is_none() {
            self.node = self.hidden_node.take();
        }
    }

    /// The shell is killed; a new one starts and looks at what is there.
    pub(super) fn shell_dies(&mut self) {
        self.memory = Memory::default();
        self.garbage = Garbage::Idle;
        for revision in &mut self.revisions {
            let a = &mut revision.artefact;
            a.verify = Step::Todo;
            for step in [&mut a.model, &mut a.bundle, &mut a.build] {
                if *step != Step::Done && self.shell == Shell::Processes {
                    *step = Step::Todo;
                }
            }
        }
        if self.shell == Shell::Processes {
            self.engines.clear();
            self.fallback = Service::Absent;
            self.gateway_gone(Service::Absent);
            return;
        }
        let now = self.time();
        for one in &mut self.engines {
            one.proof = Proof::None;
            one.health = None;
            if one.serving_since.is_some() {
                one.serving_since = Some(now);
            }
        }
    }

    pub(super) fn exit(&mut self, id: InstanceId) {
        let at = self.time();
        self.with(id, |one| {
            if one.phase != Phase::Stopping {
                one.phase = Phase::Exited {
                    at,
                    failure: failure(Reason::EngineCrashed, false),
                };
            }
        });
    }

    pub(super) fn status(&self) -> &Status {
        &self.last.as_ref().expect("no plan was made").status
    }
}
