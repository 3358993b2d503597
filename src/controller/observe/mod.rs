//! From what exists to what the planner sees. Pure: what exists, what was noted before and the time
//! come in; decisions are the planner's.

mod engines;
mod pods;
mod services;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::notes::Notes;
use super::view::View;
use super::workloads::Server;
use crate::api::{EnginePolicy, Reason, RuntimeServer};
use crate::planner::{
    Artefact, BuildNeed, Desired, EngineKind, Fit, Node, Observed, Policy, Revision, RevisionId,
    Step, Timestamp, failure,
};

pub(crate) use engines::launch;
pub use services::routes_wanted;
pub(crate) use services::was_told;
pub(crate) use work::{newest, outcome, present, wrote_here};

/// The observation.
pub fn observe(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Observed {
    let routed = services::routed(view, notes);
    let primary = routed.and_then(|route| route.primary);
    let engines = engines::engines(view, notes, primary, now);
    let present: BTreeSet<_> = engines.iter().map(|one| one.id).collect();
    let observed = Observed {
        desired: desired(view),
        durable: view.saved.durable.clone(),
        memory: notes.memory.clone(),
        node: node(view),
        revisions: revisions(view, notes, now),
        engines,
        gateway: services::gateway(view, notes, now),
        fallback: services::fallback(view, notes, now),
        routed,
        garbage: notes.garbage,
    };
    notes.settle(&present);
    observed
}

fn desired(view: &View<'_>) -> Desired {
    let engine = view.engine;
    let generation = engine.generation.unwrap_or(0);
    Desired {
        generation: u64::try_from(generation).unwrap_or(0),
        spec_digest: String::new(),
        revision: engine.revision(),
        retry_token: engine.rollout.retry_token.clone(),
        lifecycle: view.lifecycle(),
        policy: Policy::of(engine, view.fallback_bytes()),
    }
}

fn node(view: &View<'_>) -> Option<Node> {
    let chosen = view.node?;
    Some(Node {
        name: chosen.name.clone(),
        memory_bytes: {
            let on_gpu = view.on_gpu(&view.engine.revision());
            crate::engine::budget(&chosen.hardware, on_gpu).left.0
        },
    })
}

fn revisions(view: &View<'_>, notes: &mut Notes, now: Timestamp) -> Vec<Revision> {
    let desired = view.engine.revision();
    let mut ids: BTreeSet<RevisionId> = view.all_stored().map(|(id, _)| id.clone()).collect();
    ids.insert(desired.clone());
    ids.into_iter()
        .map(|id| Revision {
            kind: kind(view, &id),
            fit: fit(view, &id, id == desired),
            build: build_need(view, &id),
            artefact: Artefact {
                model: work::model(view, &id, notes, now),
                bundle: bundle(view, &id, now),
                build: work::build(view, &id, notes, now),
                // The fetch has checked the digest, and each engine's pod checks the very bytes it
                // loads before it starts.
                verify: if view.stored(&id).is_some() {
                    Step::Done
                } else {
                    Step::Todo
                },
            },
            id,
        })
        .collect()
}

/// What runs a revision: as it was fetched, and until then as the spec says.
fn kind(view: &View<'_>, id: &RevisionId) -> EngineKind {
    let server = view.stored(id).map(|stored| &stored.server);
    let image = server.map_or_else(
        || matches!(view.engine.runtime.server, RuntimeServer::Image(_)),
        |server| matches!(server, Server::Image { .. }),
    );
    if image {
        EngineKind::Image
    } else if view.on_gpu(id) {
        EngineKind::TensorRt
    } else {
        EngineKind::Cpu
    }
}

/// What it takes to build the engine; nothing where the processor serves.
fn build_need(view: &View<'_>, id: &RevisionId) -> BuildNeed {
    if !view.on_gpu(id) {
        return BuildNeed::None;
    }
    let fit = view.stored(id).and_then(|stored| view.fit(id, stored));
    let need = fit.and_then(|fit| fit.build);
    BuildNeed::Bundle {
        memory_bytes: need.map_or(0, |build| build.need.bytes.0),
    }
}

/// Engines are not fetched yet, so that none is there.
fn bundle(view: &View<'_>, id: &RevisionId, now: Timestamp) -> Step {
    if !view.on_gpu(id) {
        return Step::Todo;
    }
    Step::Failed {
        at: now,
        failure: failure(Reason::EngineNotFound, "Engines are not fetched yet."),
    }
}

fn fit(view: &View<'_>, id: &RevisionId, desired: bool) -> Fit {
    if desired && let Err((reason, message)) = view.server() {
        return Fit::Refused { reason, message };
    }
    let Some((stored, fit)) = view
        .stored(id)
        .and_then(|stored| Some((stored, view.fit(id, stored)?)))
    else {
        return Fit::Unknown;
    };
    // Only now: the fallback needs the model, too.
    if desired && view.on_gpu(id) && view.engine.engine.policy == EnginePolicy::FetchOnly {
        let message = "engine.policy: FetchOnly wants an engine from a registry, and this version \
                       fetches none. Write engine.policy: Auto to have it built on the node.";
        return Fit::Refused {
            reason: Reason::EngineNotFound,
            message: message.to_owned(),
        };
    }
    if let Some(memory_bytes) = fit.engine_bytes() {
        return Fit::Fits {
            memory_bytes,
            exclusive: false,
        };
    }
    let reason = if stored.served.context_tokens() > stored.facts.context {
        Reason::SpecInvalid
    } else {
        Reason::InsufficientMemory
    };
    Fit::Refused {
        reason,
        message: sentence(&fit.refusals.join("; ")),
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
