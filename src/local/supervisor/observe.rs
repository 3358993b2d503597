//! What the planner gets to see: the present state, put into its words.

use super::super::TensorRt;
use super::super::report::Process;
use super::{Known, Supervisor};
use crate::api::{EnginePolicy, Ollama, Reason, RevisionId};
use crate::engine::fit;
use crate::planner::{
    Artefact, BuildNeed, Desired, EngineKind, Fit, Lifecycle, Node, Observed, Phase, Policy,
    Revision, Service, Step, Timestamp,
};

impl Supervisor {
    pub(super) fn observe(&mut self, now: Timestamp) -> Observed {
        self.note_who_serves(now);
        Observed {
            desired: self.desired(),
            durable: self.durable.clone(),
            memory: self.memory.clone(),
            node: Some(Node {
                name: "this machine".to_owned(),
                memory_bytes: self.memory_bytes,
            }),
            revisions: self
                .known
                .iter()
                .map(|(id, known)| self.revision(id, known))
                .collect(),
            engines: self
                .engines
                .values()
                .map(|engine| engine.instance.clone())
                .collect(),
            gateway: self.gateway.service.clone(),
            fallback: self.fallback.service.clone(),
            routed: self.gateway.routed,
            garbage: self.garbage,
        }
    }

    fn desired(&self) -> Desired {
        let engine = &self.wanted.engine;
        let lifecycle = match (self.stopping, engine.suspend) {
            (true, _) => Lifecycle::Remove,
            (false, true) => Lifecycle::Suspended,
            (false, false) => Lifecycle::Run,
        };
        Desired {
            generation: self.durable.generation_of(&self.wanted.spec_digest),
            spec_digest: self.wanted.spec_digest.clone(),
            revision: self.wanted.revision.clone(),
            retry_token: engine.rollout.retry_token.clone(),
            lifecycle,
            policy: Policy::of(engine, self.fallback_bytes()),
        }
    }

    fn revision(&self, id: &RevisionId, known: &Known) -> Revision {
        Revision {
            id: id.clone(),
            kind: if self.tensorrt().is_some() {
                EngineKind::TensorRt
            } else {
                EngineKind::Cpu
            },
            fit: self.fit(known),
            build: self.build_need(known),
            artefact: Artefact {
                model: known.model.clone(),
                bundle: known.bundle.clone(),
                build: known.build.clone(),
                verify: known.verify.clone(),
            },
        }
    }

    /// TensorRT, where it is there and wanted.
    pub(super) fn tensorrt(&self) -> Option<&TensorRt> {
        let wanted = self.wanted.engine.engine.policy != EnginePolicy::Never;
        self.tensorrt.as_ref().filter(|_| wanted)
    }

    fn build_need(&self, known: &Known) -> BuildNeed {
        if self.tensorrt().is_none() {
            return BuildNeed::None;
        }
        let need = known.facts.as_ref().zip(known.stored.as_ref());
        let need = need.and_then(|(facts, stored)| {
            let request = stored.served.request_for(&self.wanted.engine, true);
            fit(&self.hardware, facts, &request).build
        });
        BuildNeed::Bundle {
            memory_bytes: need.map_or(0, |build| build.need.bytes.0),
        }
    }

    fn fit(&self, known: &Known) -> Fit {
        let (Some(facts), Some(stored)) = (&known.facts, &known.stored) else {
            return Fit::Unknown;
        };
        let on_gpu = self.tensorrt().is_some();
        let request = stored.served.request_for(&self.wanted.engine, on_gpu);
        let fit = fit(&self.hardware, facts, &request);
        if let Some(memory_bytes) = fit.engine_bytes() {
            return Fit::Fits {
                memory_bytes,
                exclusive: false,
            };
        }
        let reason = if request.context_tokens() > facts.context {
            Reason::SpecInvalid
        } else {
            Reason::InsufficientMemory
        };
        Fit::Refused {
            reason,
            message: sentence(&fit.refusals.join("; ")),
        }
    }

    /// Memory of the managed fallback with its model loaded; 0 while that is not known.
    fn fallback_bytes(&self) -> u64 {
        let known = self.fallback_revision().and_then(|id| self.known.get(&id));
        let Some((facts, stored)) =
            known.and_then(|known| Some((known.facts.as_ref()?, known.stored.as_ref()?)))
        else {
            return 0;
        };
        let request = stored.served.request(&self.wanted.engine);
        fit(&self.hardware, facts, &request)
            .fallback
            .map_or(0, |fallback| fallback.serving.bytes.0)
    }

    /// The revision whose model the fallback serves: one that has proven itself, if there is one.
    pub(super) fn fallback_revision(&self) -> Option<RevisionId> {
        let durable = &self.durable;
        [
            durable.last_good.as_ref(),
            durable.active.as_ref(),
            Some(&self.wanted.revision),
        ]
        .into_iter()
        .flatten()
        .find(|id| {
            self.known
                .get(id)
                .is_some_and(|known| known.stored.is_some() && known.model == Step::Done)
        })
        .cloned()
    }

    /// Keeps since when each engine has been the primary without a break.
    fn note_who_serves(&mut self, now: Timestamp) {
        let primary = self.gateway.routed.and_then(|route| route.primary);
        for (id, engine) in &mut self.engines {
            let serves = Some(*id) == primary && engine.instance.phase == Phase::Ready;
            let since = &mut engine.instance.serving_since;
            *since = serves.then(|| since.unwrap_or(now));
        }
    }

    /// The processes, for the report.
    pub(super) fn processes(&self) -> Vec<Process> {
        let mut processes = vec![Process {
            role: "gateway".to_owned(),
            state: service_word(&self.gateway.service).to_owned(),
            pid: self.gateway.pid,
            address: Some(self.gateway.endpoint()),
            revision: None,
            problem: service_problem(&self.gateway.service),
        }];
        processes.extend(self.engines.iter().map(|(id, engine)| {
            Process {
                role: format!("engine-{id}"),
                state: match engine.instance.phase {
                    Phase::Starting { .. } => "Starting",
                    Phase::Ready => "Ready",
                    Phase::Stopping => "Stopping",
                    Phase::Exited { .. } => "Exited",
                }
                .to_owned(),
                pid: engine.pid,
                address: Some(format!("http://{}", engine.address)),
                revision: Some(engine.instance.revision.to_string()),
                problem: match &engine.instance.phase {
                    Phase::Exited { failure, .. } => Some(failure.message.clone()),
                    _ => None,
                },
            }
        }));
        if let Some(ollama) = &self.wanted.engine.fallback.ollama {
            processes.push(Process {
                role: "ollama".to_owned(),
                state: service_word(&self.fallback.service).to_owned(),
                pid: self.fallback.pid,
                address: match ollama {
                    Ollama::Managed { .. } => self.fallback.origin.clone(),
                    Ollama::External { url, .. } => Some(url.clone()),
                },
                revision: None,
                problem: service_problem(&self.fallback.service),
            });
        }
        processes
    }
}

fn service_problem(service: &Service) -> Option<String> {
    match service {
        Service::Failed { failure, .. } => Some(failure.message.clone()),
        _ => None,
    }
}

fn service_word(service: &Service) -> &'static str {
    match service {
        Service::Unknown => "Unknown",
        Service::Absent => "Absent",
        Service::Starting { .. } => "Starting",
        Service::Ready { .. } => "Ready",
        Service::Parked => "Parked",
        Service::Stopping => "Stopping",
        Service::Failed { .. } => "Failed",
    }
}

/// Upper case first, a full stop last.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters
        .next()
        .map(|first| first.to_uppercase().collect())
        .unwrap_or_default();
    format!("{first}{}.", characters.as_str().trim_end_matches('.'))
}
