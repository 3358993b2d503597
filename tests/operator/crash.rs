//! The operator killed at every write of a full life: create, promote, a bad revision, rollback, a
//! better one, delete. Whatever it had done, the next one comes to the same end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enginewright::controller::names::{INSTANCE, REVISION};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::mortal;
use crate::kubelet::Fate;
use crate::support::{Operator, World, holds, revision_of, spec};

/// Writes of one operator's life.
const EVERY: u64 = 7;

/// What was seen of engines: the UID behind each number, and numbers with more than one.
#[derive(Default)]
struct Seen {
    uids: BTreeMap<(String, String), String>,
    reused: Vec<String>,
    most: usize,
}

/// Looks at the engines of the world again and again.
fn witness(world: &World, seen: &Arc<Mutex<Seen>>) -> AbortOnDropHandle<()> {
    let api: Api<Deployment> = Api::namespaced(world.client.clone(), &world.namespace);
    let seen = Arc::clone(seen);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let engines = ListParams::default().labels("app.kubernetes.io/component=engine");
        loop {
            let all = api.list(&engines).await.unwrap().items;
            {
                let mut seen = seen.lock().unwrap();
                seen.most = seen.most.max(all.len());
                for one in &all {
                    let number = one.labels()[INSTANCE].clone();
                    let owner = one.owner_references()[0].uid.clone();
                    let uid = one.uid().unwrap();
                    let old = seen.uids.insert((owner, number.clone()), uid.clone());
                    if old.is_some_and(|old| old != uid) {
                        seen.reused
                            .push(format!("{number} of {}", one.labels()[REVISION]));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }))
}

/// What became of the operators of one life.
#[derive(Clone, Copy, Debug, Default)]
struct Reign {
    writes: u64,
    kills: u64,
}

/// One operator after the other until `done`: the first is killed after `first` writes, each other one
/// after [`EVERY`].
async fn reign(client: Client, first: u64, done: CancellationToken) -> Reign {
    let mut reign = Reign::default();
    loop {
        let every = if reign.kills == 0 { first } else { EVERY };
        let (mortal, life) = mortal(client.clone(), every);
        let operator = Operator::start(mortal);
        while !life.has_ended() && !done.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        reign.writes += life.writes().min(every);
        if !life.has_ended() {
            operator.stop().await;
            return reign;
        }
        // Killed, not stopped: what it was about to do is never done.
        drop(operator);
        reign.kills += 1;
    }
}

/// One life under operators that are killed again and again.
async fn life(world: &World, first: u64) -> Reign {
    let done = CancellationToken::new();
    let reign = tokio::spawn(reign(world.operator.clone(), first, done.clone()));
    world.apply("smol", spec()).await;
    world
        .until("smol", "Ready", |one| holds(one, "Ready"))
        .await;
    let mut bad = spec();
    bad["engine"]["slots"] = json!(3);
    let failed = revision_of(&bad);
    world.kubelet.decide(&failed, Fate::Mute);
    world.apply("smol", bad).await;
    let good = revision_of(&spec());
    world
        .until("smol", "the rollback", |one| {
            one.status.as_ref().is_some_and(|status| {
                status.active_revision.as_ref() == Some(&good)
                    && status.failed_revisions.iter().any(|one| {
                        // I6: attempts are bounded, also over restarts.
                        assert!(one.attempts <= 2, "{one:?}");
                        one.revision == failed
                    })
            })
        })
        .await;
    let mut better = spec();
    better["engine"]["slots"] = json!(4);
    let wanted = revision_of(&better);
    world.apply("smol", better).await;
    world
        .until("smol", "the better revision", |one| {
            let status = one.status.as_ref();
            holds(one, "Ready")
                && status.is_some_and(|it| it.active_revision.as_ref() == Some(&wanted))
        })
        .await;
    world.delete("smol").await;
    done.cancel();
    reign.await.unwrap()
}

/// Each write of a life is the last one of some operator: killed after every seventh, beginning with
/// the first, the second, … the seventh. More often is no life: a start takes three writes, and the
/// planner gives up what never gets beyond its first (`StartInterrupted`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_write_of_a_life_the_next_operator_comes_to_the_same_end() {
    let world = World::new().await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let witness = witness(&world, &seen);
    for first in 1..=EVERY {
        let begun = Instant::now();
        let reign = life(&world, first).await;
        println!("first after {first}: {reign:?} in {:?}", begun.elapsed());
        assert!(reign.kills >= 6 && reign.writes > 40, "{reign:?}");
    }
    drop(witness);
    let seen = seen.lock().unwrap();
    assert!(
        seen.reused.is_empty(),
        "numbers given twice: {:?}",
        seen.reused
    );
    assert!(seen.most <= 3, "engines at the same time: {}", seen.most);
}
