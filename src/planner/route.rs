//! The route table: whom the gateway sends requests to. Only a proven engine is ever its primary.

use super::context::Context;
use super::services::Role;
use super::types::{Action, InstanceId, Route, Service};

pub(super) fn route(ctx: &mut Context<'_>, primary: Option<InstanceId>, role: Role) {
    // Without a gateway nobody can take a table over; the engine is promoted when there is one.
    if !matches!(ctx.observed.gateway, Service::Ready { .. }) {
        return;
    }
    let wanted = Route {
        primary,
        fallback: role == Role::Up,
    };
    if let Some(one) = primary.and_then(|id| ctx.instance(id))
        && ctx.durable.active.as_ref() != Some(&one.revision)
    {
        ctx.durable.active = Some(one.revision.clone());
    }
    if ctx.observed.routed != Some(wanted) {
        ctx.act(Action::Route(wanted));
    }
}
