//! `operator`: the planner driven with pods. The same planner, server and gateway as `run`.
//!
//! ```text
//!  watches --> reconcile: read -> validate -> observe -> plan -> persist -> apply -> report
//!     ^                    |        (pure)     (pure)   (pure)                |
//!     |                    +-- the API server itself, never a cache --+       |
//!     +---- tasks: proofs, probes, route tables in force <--------------------+
//! ```
//!
//! Pure parts: [`names`], [`workloads`], `node`, `state`, `view`, `world`, `observe`, `desired`,
//! `diff`, `status`. Shells: `read`, `write`, `reconcile`, `tasks`, `lease`. What runs keeps
//! running when the operator is away: it is in nobody's path.

mod ask;
mod clock;
mod decide;
pub(crate) mod desired;
mod diff;
mod error;
mod events;
mod lease;
mod metrics;
pub mod names;
mod node;
mod notes;
mod observe;
mod read;
mod reconcile;
mod state;
mod status;
mod tasks;
mod view;
pub mod workloads;
mod world;
mod write;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::{EdgeNode, InferenceEngine};
use crate::server::admin;
use clock::Clock;
use error::Error;
use lease::{Claim, Leader};
use metrics::Metrics;
use tasks::{Asker, Known};
use workloads::{Owner, Site};

/// Resources that are reconciled at the same time.
const CONCURRENCY: u16 = 8;
/// How long events of one resource are collected: what happens together is planned together.
const DEBOUNCE: Duration = Duration::from_millis(30);

/// The resource as it is watched: what it says is read when it is reconciled.
type Watched = PartialObjectMeta<InferenceEngine>;

/// What the operator is started with.
pub struct Options {
    /// The API server.
    pub client: Client,
    /// What it was told about the cluster.
    pub site: Site,
    /// Where metrics and health are served.
    pub listener: TcpListener,
    /// Name of this process, unique among operators.
    pub identity: String,
    /// One HTTP client for everything else.
    pub http: reqwest::Client,
}

/// Notes of each resource by namespace and name, with its UID.
type Everybody = HashMap<(String, String), (String, Arc<Known>)>;

/// What all reconciliations share.
pub struct Context {
    client: Client,
    site: Site,
    claim: Arc<Claim>,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    http: reqwest::Client,
    clock: Clock,
    nodes: Store<Node>,
    described: Store<EdgeNode>,
    known: Mutex<Everybody>,
    wake: UnboundedSender<ObjectRef<Watched>>,
}

impl Context {
    /// Notes of a resource; of another one under the same name none are kept.
    fn known(&self, namespace: &str, name: &str, uid: &str) -> Arc<Known> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all
            .entry((namespace.to_owned(), name.to_owned()))
            .or_insert_with(|| (uid.to_owned(), Arc::default()));
        if entry.0 != uid {
            *entry = (uid.to_owned(), Arc::default());
        }
        Arc::clone(&entry.1)
    }

    fn forget(&self, namespace: &str, name: &str) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn asker(&self, namespace: &str, name: &str, known: &Arc<Known>) -> Asker {
        let wake = self.wake.clone();
        let resource = ObjectRef::<Watched>::new(name).within(namespace);
        Asker {
            known: Arc::clone(known),
            http: self.http.clone(),
            clock: self.clock,
            wake: Arc::new(move || {
                // Nobody listens any more when everything ends.
                let _ended = wake.send(resource.clone());
            }),
        }
    }
}

/// How the operator came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// Another one leads now.
    Deposed,
}

/// Leads and reconciles until `stop`, or until leadership is lost.
///
/// # Errors
/// What the listener says.
pub async fn run(options: Options, stop: CancellationToken) -> std::io::Result<End> {
    let Options {
        client,
        site,
        listener,
        identity,
        http,
    } = options;
    let claim = Arc::new(Claim::default());
    let metrics = Arc::new(Metrics::default());
    listener.set_nonblocking(true)?;
    let _admin = AbortOnDropHandle::new(tokio::spawn(admin::run(
        tokio::net::TcpListener::from_std(listener)?,
        Arc::clone(&metrics) as _,
        stop.clone(),
    )));
    let leader = Leader::new(client.clone(), &site.namespace, identity.clone());
    tokio::select! {
        () = leader.acquire(&claim) => {}
        () = stop.cancelled() => return Ok(End::Stopped),
    }
    metrics.leading(true);
    let controller = lead(
        client,
        site,
        Arc::clone(&claim),
        Arc::clone(&metrics),
        identity,
        http,
    );
    let end = tokio::select! {
        () = leader.keep(&claim) => End::Deposed,
        () = stop.cancelled() => End::Stopped,
        () = controller => End::Stopped,
    };
    metrics.leading(false);
    if end == End::Stopped {
        leader.vacate(&claim).await;
    }
    Ok(end)
}

async fn lead(
    client: Client,
    site: Site,
    claim: Arc<Claim>,
    metrics: Arc<Metrics>,
    identity: String,
    http: reqwest::Client,
) {
    let (nodes, node_changes) = reflect::<Node>(&client);
    let (described, described_changes) = reflect::<EdgeNode>(&client);
    let (wake, woken) = unbounded_channel();
    let reporter = Reporter {
        controller: "enginewright".to_owned(),
        instance: Some(identity),
    };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client: client.clone(),
        site,
        claim,
        metrics,
        http,
        clock: Clock::default(),
        nodes: nodes.clone(),
        described: described.clone(),
        known: Mutex::default(),
        wake,
    });
    let _nodes = AbortOnDropHandle::new(tokio::spawn(node_changes));
    let _described = AbortOnDropHandle::new(tokio::spawn(described_changes));
    // A plan made before the nodes are known would see none.
    let _never = nodes.wait_until_ready().await;
    let _never = described.wait_until_ready().await;
    controller(&client, UnboundedReceiverStream::new(woken))
        .run(reconcile_one, after_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconciliation");
            }
        })
        .await;
}

fn controller(
    client: &Client,
    woken: impl Stream<Item = ObjectRef<Watched>> + Send + 'static,
) -> Controller<Watched> {
    let config = || watcher::Config::default().labels(names::MANAGED_BY);
    let watched: Api<Watched> = Api::all(client.clone());
    let controller = Controller::new(watched, watcher::Config::default());
    let resources = controller.store();
    let by_nodes = node_mapper(resources.clone());
    let by_described = move |_: PartialObjectMeta<EdgeNode>| refs(&resources);
    controller
        .with_config(
            Config::default()
                .concurrency(CONCURRENCY)
                .debounce(DEBOUNCE),
        )
        .owns(meta_of::<Deployment>(client), config())
        .owns(meta_of::<Job>(client), config())
        .owns(meta_of::<ConfigMap>(client), config())
        .owns(meta_of::<PersistentVolumeClaim>(client), config())
        .owns(meta_of::<Service>(client), config())
        .owns(meta_of::<NetworkPolicy>(client), config())
        .owns(meta_of::<PodDisruptionBudget>(client), config())
        .watches(meta_of::<Pod>(client), config(), |pod| of_pod(&pod))
        .watches(
            Api::<Node>::all(client.clone()),
            watcher::Config::default(),
            by_nodes,
        )
        .watches(
            Api::<PartialObjectMeta<EdgeNode>>::all(client.clone()),
            watcher::Config::default(),
            by_described,
        )
        .reconcile_on(woken)
}

fn meta_of<K>(client: &Client) -> Api<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = ()>,
{
    Api::all(client.clone())
}

/// The resource that a pod belongs to: its owner is a `ReplicaSet` or a Job, its label names us.
fn of_pod(pod: &PartialObjectMeta<Pod>) -> Option<ObjectRef<Watched>> {
    let name = world::label(&pod.metadata, names::ENGINE)?;
    let namespace = pod.metadata.namespace.as_deref()?;
    Some(ObjectRef::new(name).within(namespace))
}

fn refs(resources: &Store<Watched>) -> Vec<ObjectRef<Watched>> {
    resources
        .state()
        .iter()
        .map(|resource| ObjectRef::from_obj(resource.as_ref()))
        .collect()
}

/// Everybody, when something of a node changes that matters: heartbeats do not.
fn node_mapper(
    resources: Store<Watched>,
) -> impl Fn(Node) -> Vec<ObjectRef<Watched>> + Send + Sync + 'static {
    let seen: Mutex<HashMap<String, String>> = Mutex::default();
    move |node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        let gone = node.metadata.deletion_timestamp.is_some();
        let print = format!("{gone}{}", node::fingerprint(&node));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.insert(name, print.clone()) == Some(print) {
            return Vec::new();
        }
        refs(&resources)
    }
}

/// A store of all objects of a kind, and the future that keeps it up to date.
fn reflect<K>(client: &Client) -> (Store<K>, impl Future<Output = ()> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = store();
    let watch = watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    let stream = reflector(writer, watch.default_backoff());
    let follow = stream.for_each(|event| async move {
        if let Err(error) = event {
            tracing::warn!(%error, kind = %K::kind(&()), "the watch is begun anew");
        }
    });
    (reader, follow)
}

async fn reconcile_one(resource: Arc<Watched>, context: Arc<Context>) -> Result<Action, Error> {
    let name = resource.metadata.name.clone().unwrap_or_default();
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    let begun = Instant::now();
    let result = {
        use tracing::Instrument;
        let span = tracing::info_span!("reconcile", namespace, name);
        Box::pin(reconcile::reconcile(&context, &namespace, &name))
            .instrument(span)
            .await
    };
    let label = result.as_ref().map_or_else(Error::label, |_| "ok");
    context.metrics.reconciled(label, begun.elapsed());
    let uid = resource.metadata.uid.clone().unwrap_or_default();
    if result.is_ok() {
        let all = context.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = all.get(&(namespace, name)).filter(|(old, _)| *old == uid) {
            known.failures(false);
        }
    }
    result
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the controller asks for"
)]
fn after_error(resource: Arc<Watched>, error: &Error, context: Arc<Context>) -> Action {
    let name = resource.metadata.name.clone().unwrap_or_default();
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    let uid = resource.metadata.uid.clone().unwrap_or_default();
    let failures = context.known(&namespace, &name, &uid).failures(true);
    if matches!(error, Error::Conflict { .. }) {
        tracing::debug!(namespace, name, %error, "again");
    } else {
        tracing::warn!(namespace, name, %error, failures, "again after a while");
    }
    reconcile::backoff(error, failures, rand::random())
}
