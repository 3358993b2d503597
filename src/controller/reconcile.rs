//! One reconciliation: read, validate, observe, plan, persist, apply, report. Reads and writes are
//! here and in [`super::read`] and [`super::write`]; what they mean is decided by pure code.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Api;
use kube::runtime::controller::Action;

use super::Context;
use super::clock::Clock;
use super::decide::{Decision, decide};
use super::desired::desired;
use super::diff::agrees;
use super::error::Error;
use super::events;
use super::names::{self, FINALIZER};
use super::node::{Chosen, choose};
use super::read::{Reader, bounded};
use super::state::Saved;
use super::status;
use super::tasks::{Asker, Known};
use super::view::View;
use super::workloads::{Kind, Owner};
use super::world::World;
use super::write::{Applied, Writer};
use crate::api::{InferenceEngine, InferenceEngineStatus, ValidatedEngine, validate};
use crate::planner::{self, Plan};

/// Most of the time between two looks at a resource of which something is expected.
const SOON: Duration = Duration::from_secs(5);
/// The planner wakes no sooner: a plan and a world that disagree must not take the API server.
const CALM: Duration = Duration::from_millis(50);

/// What is known of a resource while it is reconciled.
pub(super) struct Subject<'a> {
    pub(super) ctx: &'a Context,
    pub(super) known: &'a Arc<Known>,
    pub(super) asker: Asker,
    pub(super) resource: InferenceEngine,
    pub(super) owner: Owner,
    pub(super) engine: ValidatedEngine,
    pub(super) world: World,
    pub(super) saved: Saved,
    pub(super) node: Option<Chosen>,
}

/// Reconciles one resource.
///
/// # Errors
/// [`Error`]: it is tried again, with backoff.
pub async fn reconcile(ctx: &Context, namespace: &str, name: &str) -> Result<Action, Error> {
    if !ctx.claim.is_held() {
        return Err(Error::NotLeader);
    }
    let api: Api<InferenceEngine> = Api::namespaced(ctx.client.clone(), namespace);
    let found = bounded(
        "get",
        || format!("InferenceEngine {name}"),
        api.get_opt(name),
    )
    .await?;
    let Some(resource) = found else {
        ctx.forget(namespace, name);
        return Ok(Action::await_change());
    };
    let uid = resource.metadata.uid.clone().unwrap_or_default();
    let known = ctx.known(namespace, name, &uid);
    let writer = Writer {
        client: &ctx.client,
        claim: &ctx.claim,
        metrics: &ctx.metrics,
        namespace,
        name,
        uid: &uid,
    };
    let Some(engine) = admit(ctx, &writer, &resource).await? else {
        return Ok(Action::await_change());
    };
    let reader = Reader {
        client: &ctx.client,
        namespace,
        name,
        uid: &uid,
    };
    let mut world = Box::pin(reader.world()).await?;
    world.nodes = ctx.nodes.state();
    world.described = ctx.described.state();
    let saved = Saved::read(world.map(&names::state(&engine.name)))?;
    let node = choose(
        &engine.placement,
        &world.nodes,
        &world.described,
        saved.node.as_deref(),
    );
    let subject = Subject {
        ctx,
        asker: ctx.asker(namespace, name, &known),
        known: &known,
        owner: Owner {
            name: engine.name.clone(),
            namespace: namespace.to_owned(),
            uid: uid.clone(),
        },
        resource,
        engine,
        world,
        saved,
        node,
    };
    subject.run(&writer).await
}

/// The checked spec, where there is something to be done about it now. Holds the resource by our
/// finalizer first: what is made must be taken down again.
async fn admit(
    ctx: &Context,
    writer: &Writer<'_>,
    resource: &InferenceEngine,
) -> Result<Option<ValidatedEngine>, Error> {
    let deleting = resource.metadata.deletion_timestamp.is_some();
    let held = has_finalizer(resource);
    if deleting && !held {
        ctx.forget(writer.namespace, writer.name);
        return Ok(None);
    }
    if !held {
        // The change brings us back.
        writer.finalizer(resource, true).await?;
        return Ok(None);
    }
    match validate(resource) {
        Ok(engine) => Ok(Some(engine)),
        Err(_) if deleting => {
            // What it owns is collected with it.
            writer.finalizer(resource, false).await?;
            Ok(None)
        }
        Err(problems) => {
            let before = resource.status.clone().unwrap_or_default();
            let generation = resource.metadata.generation;
            let next = status::invalid(&problems, generation, &before, &Clock::wall());
            write_status(writer, resource, &next).await?;
            Ok(None)
        }
    }
}

fn has_finalizer(resource: &InferenceEngine) -> bool {
    let finalizers = resource.metadata.finalizers.as_ref();
    finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}

async fn write_status(
    writer: &Writer<'_>,
    resource: &InferenceEngine,
    next: &InferenceEngineStatus,
) -> Result<bool, Error> {
    let written = resource
        .status
        .as_ref()
        .and_then(|status| serde_json::to_value(status).ok());
    let Some(value) = status::to_write(next, written.as_ref()) else {
        return Ok(false);
    };
    writer.status(None, &value).await?;
    Ok(true)
}

impl Subject<'_> {
    pub(super) fn view<'b>(&'b self, saved: &'b Saved) -> View<'b> {
        View {
            site: &self.ctx.site,
            owner: &self.owner,
            engine: &self.engine,
            deleting: self.resource.metadata.deletion_timestamp.is_some(),
            world: &self.world,
            saved,
            node: self.node.as_ref(),
        }
    }

    async fn run(&self, writer: &Writer<'_>) -> Result<Action, Error> {
        let now = self.ctx.clock.now();
        if !self.is_introduced() {
            return Ok(Action::requeue(CALM * 4));
        }
        let remembered = self.known.notes().memory.clone();
        let Decision { saved, plan } = {
            let view = self.view(&self.saved);
            let mut notes = self.known.notes();
            decide(&view, &mut notes, now)
        };
        for action in &plan.actions {
            tracing::info!(?action, "planned");
        }
        let mut applied = Applied::default();
        // Intent before effect: without this nothing of the plan is done.
        if !plan.removed {
            let persisted = self.persist(writer, &saved, &mut applied).await;
            if persisted.is_err() {
                self.known.notes().memory = remembered;
            }
            match persisted {
                // Said to people; what runs goes on.
                Err(Error::Foreign { .. }) => {
                    let view = self.view(&self.saved);
                    self.report(writer, &view, &plan, &applied).await?;
                    return Ok(Action::requeue(SOON * 6));
                }
                other => other?,
            }
        }
        let view = self.view(&saved);
        self.act(&view, &plan);
        self.apply(writer, &view, &plan, &mut applied).await?;
        self.ask(&view);
        self.report(writer, &view, &plan, &applied).await?;
        if plan.removed {
            writer.finalizer(&self.resource, false).await?;
            self.ctx
                .forget(&self.owner.namespace, self.owner.name.as_str());
            return Ok(Action::await_change());
        }
        Ok(self.next(&plan, &applied))
    }

    async fn persist(
        &self,
        writer: &Writer<'_>,
        saved: &Saved,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let name = names::state(&self.owner.name);
        let live = self.world.live(Kind::ConfigMap, &name);
        if *saved == self.saved && live.is_some() {
            return Ok(());
        }
        let object = saved.object(&self.owner);
        writer.apply(&object, live.as_ref(), applied).await?;
        match applied.foreign().first() {
            Some((kind, name)) => Err(Error::Foreign {
                kind: *kind,
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Actions that are no objects.
    fn act(&self, view: &View<'_>, plan: &Plan) {
        for action in &plan.actions {
            match action {
                planner::Action::Prove { instance } => {
                    if let Some(target) = self.target(view, *instance) {
                        self.asker.prove(target);
                    }
                }
                planner::Action::Watch { instance, interval } => {
                    if let Some(target) = self.target(view, *instance) {
                        self.asker.watch(target, *interval);
                    }
                }
                _ => {}
            }
        }
    }

    async fn apply(
        &self,
        writer: &Writer<'_>,
        view: &View<'_>,
        plan: &Plan,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let wanted = {
            let notes = self.known.notes();
            desired(view, &notes, plan)
        };
        for object in &wanted.objects {
            let live = self.world.live(object.kind, &object.name);
            let right = live
                .as_ref()
                .is_some_and(|live| live.deleting || agrees(&object.value, &live.value));
            if !right {
                writer.apply(object, live.as_ref(), applied).await?;
            }
        }
        for told in &wanted.told {
            writer.tell(told, applied).await?;
        }
        for live in &wanted.doomed {
            writer.delete(live, applied).await?;
        }
        Ok(())
    }

    async fn report(
        &self,
        writer: &Writer<'_>,
        view: &View<'_>,
        plan: &Plan,
        applied: &Applied,
    ) -> Result<(), Error> {
        let before = self.resource.status.clone().unwrap_or_default();
        let next = status::status(view, plan, applied, &before, &Clock::wall());
        if write_status(writer, &self.resource, &next).await? {
            let told = events::told(&before, &next);
            events::publish(&self.ctx.recorder, &self.owner, told).await;
        }
        Ok(())
    }

    fn next(&self, plan: &Plan, applied: &Applied) -> Action {
        let now = self.ctx.clock.now();
        let mut wait = plan.wake_at.map(|at| at.since(now).max(CALM));
        let mut within = |limit: Duration| wait = Some(wait.map_or(limit, |it| it.min(limit)));
        if applied.writes() > 0 || !plan.actions.is_empty() {
            // What was written shows by itself; what was only noted does not.
            within(CALM * 4);
        }
        if !applied.foreign().is_empty() {
            within(SOON * 6);
        }
        wait.map_or_else(Action::await_change, Action::requeue)
    }
}

/// After an error: soon at first, then ever later, with a jitter so that a herd spreads.
pub fn backoff(error: &Error, failures: u32, jitter: f64) -> Action {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(10));
    let base = match error {
        // Read again, that is all.
        Error::Conflict { .. } => Duration::from_millis(20),
        _ => Duration::from_millis(250),
    };
    let wait = base
        .saturating_mul(factor)
        .min(Duration::from_mins(1))
        .mul_f64(0.5 + jitter.clamp(0.0, 1.0));
    Action::requeue(wait.max(error.retry_after().unwrap_or_default()))
}
