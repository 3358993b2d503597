//! Memory arithmetic: what of the node's memory is taken, and what still fits. Counts everything
//! that exists, also what is ending, and what this plan has ordered so far.

use super::context::Context;
use super::types::{Action, BuildNeed, Fit, Phase, Revision, RevisionId, Service, Step, Work};

/// Something that wants memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) memory_bytes: u64,
    pub(super) exclusive: bool,
}

/// What a revision needs to run, where that is known.
pub(super) const fn need_of(revision: &Revision) -> Option<Need> {
    match revision.fit {
        Fit::Fits {
            memory_bytes,
            exclusive,
        } => Some(Need {
            memory_bytes,
            exclusive,
        }),
        Fit::Unknown | Fit::Refused { .. } => None,
    }
}

/// What a revision needs to be built here.
pub(super) const fn build_need(revision: &Revision) -> Need {
    let memory_bytes = match revision.build {
        BuildNeed::Bundle { memory_bytes } => memory_bytes,
        BuildNeed::None => 0,
    };
    let exclusive = matches!(
        revision.fit,
        Fit::Fits {
            exclusive: true,
            ..
        }
    );
    Need {
        memory_bytes,
        // Built elsewhere, it does not touch this GPU.
        exclusive: exclusive && memory_bytes > 0,
    }
}

pub(super) fn node_bytes(ctx: &Context<'_>) -> u64 {
    ctx.observed
        .node
        .as_ref()
        .map_or(0, |node| node.memory_bytes)
}

/// Memory of the managed fallback while loaded.
pub(super) fn fallback_bytes(ctx: &Context<'_>) -> u64 {
    let fallback = ctx.policy().fallback;
    fallback
        .filter(|one| one.managed)
        .map_or(0, |one| one.memory_bytes)
}

/// Whether the fallback holds its memory now, or may at any moment.
pub(super) fn fallback_present(ctx: &Context<'_>) -> bool {
    let managed = ctx.policy().fallback.is_some_and(|one| one.managed);
    let ordered = ctx.actions.contains(&Action::EnsureFallback);
    managed
        && (ordered
            || !matches!(
                ctx.observed.fallback,
                Service::Absent | Service::Parked | Service::Failed { .. }
            ))
}

/// Engines and builds that exist or were ordered: their memory, and whether one wants the GPU alone.
pub(super) fn engines_and_builds(ctx: &Context<'_>) -> Need {
    let mut taken = Need {
        memory_bytes: 0,
        exclusive: false,
    };
    let mut take = |memory_bytes: u64, exclusive: bool| {
        taken.memory_bytes = taken.memory_bytes.saturating_add(memory_bytes);
        taken.exclusive |= exclusive;
    };
    for one in &ctx.observed.engines {
        if !matches!(one.phase, Phase::Exited { .. }) {
            take(one.memory_bytes, one.exclusive);
        }
    }
    for revision in &ctx.observed.revisions {
        if is_building(ctx, revision) {
            let need = build_need(revision);
            take(need.memory_bytes, need.exclusive);
        }
    }
    for action in &ctx.actions {
        if let Action::StartEngine {
            memory_bytes,
            exclusive,
            ..
        } = action
        {
            take(*memory_bytes, *exclusive);
        }
    }
    taken
}

fn is_building(ctx: &Context<'_>, revision: &Revision) -> bool {
    let ordered = |id: &RevisionId| {
        ctx.actions.iter().any(|action| {
            matches!(action, Action::Begin { revision, work: Work::BuildBundle } if revision == id)
        })
    };
    matches!(revision.artefact.build, Step::Running { .. }) || ordered(&revision.id)
}

/// Whether `need` fits beside everything that is there. `reserve_fallback`: also beside a fallback
/// that is not there yet but will be wanted while this runs.
pub(super) fn fits_now(ctx: &Context<'_>, need: Need, reserve_fallback: bool) -> bool {
    let taken = engines_and_builds(ctx);
    if need.exclusive && taken.exclusive {
        return false;
    }
    let fallback = if reserve_fallback || fallback_present(ctx) {
        fallback_bytes(ctx)
    } else {
        0
    };
    let sum = need.memory_bytes.checked_add(taken.memory_bytes);
    let sum = sum.and_then(|sum| sum.checked_add(fallback));
    sum.is_some_and(|sum| sum <= node_bytes(ctx))
}

/// Whether engine and fallback fit together when nothing else runs.
pub(super) fn fits_with_fallback(ctx: &Context<'_>, need: Need) -> bool {
    let sum = need.memory_bytes.checked_add(fallback_bytes(ctx));
    sum.is_some_and(|sum| sum <= node_bytes(ctx))
}
