//! The operator killed at every write of a full life: create, promote, a bad revision, rollback, a
//! better one, delete. Whatever it had done, the next one comes to the same end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enginewright::controller::names::{INSTANCE, REVISION};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::{Cut, mortal};
use crate::kubelet::Fate;
use crate::support::{Operator, World, eventually, holds, nothing_of_ours, revision_of, spec};

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

/// One life under an operator that is killed at `cut`; how many writes it had made.
async fn life(world: &World, cut: Option<Cut>) -> u64 {
    let (client, first) = mortal(world.operator.clone(), cut);
    let operator = Arc::new(Mutex::new(Some(Operator::start(client))));
    let heir = {
        let (operator, first) = (Arc::clone(&operator), Arc::clone(&first));
        let client = world.operator.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            while !first.has_ended() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Killed, not stopped: what it was about to do is never done.
            operator.lock().unwrap().take();
            *operator.lock().unwrap() = Some(Operator::start(client));
        }))
    };
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
    world
        .engines()
        .delete("smol", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the end", || async {
        world.engines().get_opt("smol").await.unwrap().is_none()
    })
    .await;
    eventually("an empty namespace", || nothing_of_ours(world)).await;
    drop(heir);
    let last = operator.lock().unwrap().take();
    if let Some(last) = last {
        last.stop().await;
    }
    first.writes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_write_of_a_life_the_next_operator_comes_to_the_same_end() {
    let world = World::new().await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let witness = witness(&world, &seen);
    let writes = life(&world, None).await;
    assert!(writes > 20, "{writes}");
    let mut cuts: BTreeSet<u64> = (1..=writes).collect();
    // Both sides of each write are covered by two runs of this test's halves; a life has one cut.
    let mut done = 0;
    while let Some(number) = cuts.pop_first() {
        let cut = if number % 2 == 0 {
            Cut::Before(number)
        } else {
            Cut::After(number)
        };
        life(&world, Some(cut)).await;
        done += 1;
    }
    drop(witness);
    let seen = seen.lock().unwrap();
    assert!(
        seen.reused.is_empty(),
        "numbers given twice: {:?}",
        seen.reused
    );
    assert!(seen.most <= 3, "engines at the same time: {}", seen.most);
    assert_eq!(done, writes);
}
