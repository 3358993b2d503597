//! Broken links, busy servers, killed processes, full disks, two at once: nothing that is not whole
//! is ever seen under a model's name, and what has arrived is not fetched again.

use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;

use super::proxy::{Fault, Proxy};
use super::support::{Cache, LIMIT, digest, push_with_oras, shared};
use crate::tools::{Process, free_address, model, wait_for};

const MIB: usize = 1 << 20;

/// A proxy in front of the registry, and the source of a model behind it.
fn behind_proxy(repository: &str) -> (Proxy, String) {
    let registry = shared();
    let manifest = push_with_oras(&registry.to_string(), repository, "smol.gguf", &[]);
    let proxy = Proxy::new(registry);
    let source = format!("oci://{}/{repository}@{manifest}", proxy.address);
    (proxy, source)
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_broke() {
    let (proxy, source) = behind_proxy("faults/cut");
    proxy.will([
        Fault::Cut(40 * MIB),
        Fault::Refuse(503, None),
        Fault::Cut(10 * MIB),
    ]);
    Cache::new().fetched(&source, "r1", &[]);
    let files = proxy.files();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files[1].range.is_some(), "{files:?}");
    assert!(files[3].range > files[1].range, "{files:?}");
}

#[test]
fn a_process_that_was_killed_goes_on_where_it_was() {
    let (proxy, source) = behind_proxy("faults/killed");
    proxy.will([Fault::Hang(50 * MIB)]);
    let cache = Cache::new();
    let mut first = Process::start(cache.fetch(&source, "r1", &[]));
    wait_for("half of the model", LIMIT, || {
        (cache.partial() > 40 << 20).then_some(())
    });
    first.signal(Signal::KILL);
    first.wait_for_exit(LIMIT);
    assert!(
        !cache.revision("r1").exists(),
        "what is not whole has no name"
    );
    let arrived = cache.partial();
    cache.fetched(&source, "r1", &[]);
    let files = proxy.files();
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(files[1].range, Some(format!("bytes={arrived}-")));
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let (proxy, source) = behind_proxy("faults/busy");
    proxy.will([Fault::Refuse(429, Some(2))]);
    let begun = Instant::now();
    Cache::new().fetched(&source, "r1", &[]);
    assert!(begun.elapsed().as_secs() >= 2);
    // One that wants to be left alone for an hour is left to the planner.
    proxy.will([Fault::Refuse(429, Some(3600))]);
    let (reason, message) = Cache::new().refused(&source, "r1", &[]);
    assert_eq!(reason, "ModelUnreachable", "{message}");
    assert!(message.contains("3600 s"), "{message}");
}

#[test]
fn damaged_bytes_are_refused_and_nothing_of_them_stays() {
    let (proxy, source) = behind_proxy("faults/damaged");
    proxy.will([Fault::Damage]);
    let cache = Cache::new();
    let (reason, message) = cache.refused(&source, "r1", &[]);
    assert_eq!(reason, "ModelDigestMismatch", "{message}");
    assert!(message.contains(digest()), "{message}");
    assert_eq!(cache.left(), Vec::<String>::new());
    cache.fetched(&source, "r1", &[]);
}

#[test]
fn a_part_that_was_damaged_on_disk_costs_a_whole_transfer_and_nothing_else() {
    let (proxy, source) = behind_proxy("faults/part");
    let cache = Cache::new();
    let downloads = cache.folder.path().join("downloads");
    std::fs::create_dir_all(&downloads).unwrap();
    let part = downloads.join(format!("sha256-{}.partial", digest()));
    std::fs::write(part, vec![0; 5 * MIB]).unwrap();
    cache.fetched(&source, "r1", &[]);
    let ranges: Vec<_> = proxy.files().into_iter().map(|one| one.range).collect();
    assert_eq!(ranges, [Some(format!("bytes={}-", 5 * MIB)), None]);
}

#[test]
fn what_an_earlier_program_left_is_checked_before_it_is_taken_for_the_model() {
    let (proxy, source) = behind_proxy("faults/left");
    let cache = Cache::new();
    let downloads = cache.folder.path().join("downloads");
    std::fs::create_dir_all(&downloads).unwrap();
    let left = downloads.join(format!("sha256-{}.gguf", digest()));
    std::fs::write(&left, vec![0; 5 * MIB]).unwrap();
    cache.fetched(&source, "r1", &[]);
    assert_eq!(proxy.files().len(), 1, "{:?}", proxy.files());

    // What is whole is not fetched again.
    let cache = Cache::new();
    std::fs::create_dir_all(cache.folder.path().join("downloads")).unwrap();
    let left = cache
        .folder
        .path()
        .join("downloads")
        .join(left.file_name().unwrap());
    std::fs::copy(model(), left).unwrap();
    cache.fetched(&source, "r1", &[]);
    assert_eq!(proxy.files().len(), 1, "{:?}", proxy.files());
}

#[test]
fn two_at_once_fetch_one_model_once() {
    let (proxy, source) = behind_proxy("faults/two");
    let cache = Cache::new();
    let processes: Vec<Process> = ["r1", "r2", "r3"]
        .iter()
        .map(|revision| Process::start(cache.fetch(&source, revision, &[])))
        .collect();
    for mut process in processes {
        let status = process.wait_for_exit(LIMIT);
        assert!(status.success(), "{}", process.output());
    }
    for revision in ["r1", "r2", "r3"] {
        cache.is_the_model(revision);
    }
    assert_eq!(proxy.files().len(), 1, "{:?}", proxy.files());
}

#[test]
fn a_server_that_falls_silent_ends_after_the_deadline_of_the_resource() {
    let (proxy, source) = behind_proxy("faults/silent");
    proxy.will([Fault::Hang(MIB)]);
    let more = ["--progress-deadline", "2"];
    let (reason, message) = Cache::new().refused(&source, "r1", &more);
    assert_eq!(reason, "ModelUnreachable", "{message}");
    assert!(message.contains("progressDeadline"), "{message}");
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_refused_before_it_is_fetched() {
    let (proxy, source) = behind_proxy("faults/full");
    let cache = Cache::new();
    let fetch = cache.fetch(&source, "r1", &[]);
    // Mounted over the cache, so that the report must be elsewhere: on standard error.
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=20m tmpfs \"$1\" && shift && exec \"$@\"");
    command.arg("sh").arg(cache.folder.path());
    command.arg(fetch.get_program()).args(fetch.get_args());
    let mut process = Process::start(command);
    let status = process.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(4), "{}", process.output());
    let output = process.output();
    assert!(
        output.contains("MiB free") && output.contains("Free disk space"),
        "{output}"
    );
    assert_eq!(proxy.files().len(), 0);
}

#[test]
fn how_far_it_is_can_be_read_meanwhile() {
    let (proxy, source) = behind_proxy("faults/metrics");
    proxy.will([Fault::Hang(30 * MIB)]);
    let cache = Cache::new();
    let address = free_address();
    let more = ["--metrics", &address.to_string()];
    let _process = Process::start(cache.fetch(&source, "r1", &more));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let value = |name: &str| -> Option<u64> {
        let text = super::support::block_on(async {
            let response = client
                .get(format!("http://{address}/metrics"))
                .send()
                .await
                .ok()?;
            response.text().await.ok()
        })?;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))?
            .to_owned();
        line.rsplit(' ').next()?.parse().ok()
    };
    wait_for("half of it", LIMIT, || {
        (value("enginewright_fetch_bytes")? > 20 << 20).then_some(())
    });
    let size = value("enginewright_fetch_size_bytes");
    assert_eq!(size, Some(std::fs::metadata(model()).unwrap().len()));
}
