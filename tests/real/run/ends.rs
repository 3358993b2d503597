//! However `run` ends, nothing of it is left.

use std::time::Duration;

use rustix::process::Signal;

use super::support::{ALONE, LIMIT, Setup, WITH_OLLAMA, wait_until_gone};
use crate::tools::{command_line, ollama, signal_pid};

#[tokio::test]
async fn killed_in_the_middle_of_everything_it_leaves_nothing_not_even_ollamas_runners() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = ollama();
    let mut run = setup.start();
    run.wait_for_backend("Cpu").await;
    let processes = run.processes();
    let lines: Vec<String> = processes.iter().map(|pid| command_line(*pid)).collect();
    assert!(
        lines.iter().any(|line| line.contains("runner")),
        "Ollama's runner is there: {lines:?}"
    );
    run.process.signal(Signal::KILL);
    wait_until_gone(&processes);
}

#[tokio::test]
async fn a_killed_guard_takes_its_ollama_with_it_and_run_starts_another() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = ollama();
    let mut run = setup.start();
    run.wait_for_backend("Cpu").await;
    let guard = run.pid_of("ollama").unwrap();
    let tree = crate::tools::descendants(guard);
    assert!(!tree.is_empty());
    signal_pid(guard, Signal::KILL);
    wait_until_gone(&tree);
    run.wait_for("another ollama", |report| {
        report.pointer("/processes").is_some_and(|all| {
            all.as_array().unwrap().iter().any(|one| {
                one.pointer("/role") == Some(&"ollama".into())
                    && one.pointer("/state") == Some(&"Ready".into())
                    && one.pointer("/pid") != Some(&guard.into())
            })
        })
    })
    .await;
}

#[tokio::test]
async fn a_second_interrupt_ends_at_once() {
    let setup = Setup::new(&ALONE.replace("drainTimeout: 5s", "drainTimeout: 10m"));
    let mut run = setup.start();
    run.wait_for_backend("Cpu").await;
    let processes = run.processes();
    // A long answer runs, and ten minutes would be waited for it.
    let client = run.client.clone();
    let url = run.url("/v1/chat/completions");
    let mut body = super::support::body("Tell me a story.", 250, true);
    body["ignore_eos"] = true.into();
    let mut response = client.post(url).json(&body).send().await.unwrap();
    response.chunk().await.unwrap();
    run.process.signal(Signal::INT);
    run.process
        .wait_for_output("press Ctrl-C again", Duration::from_secs(5));
    run.process.signal(Signal::INT);
    let status = run.process.wait_for_exit(Duration::from_secs(5));
    assert_eq!(status.code(), Some(130), "{}", run.process.output());
    wait_until_gone(&processes);
}

#[tokio::test]
async fn an_answer_that_runs_is_not_cut_by_an_orderly_end() {
    let mut run = Setup::new(&ALONE.replace("drainTimeout: 5s", "drainTimeout: 60s")).start();
    run.wait_for_backend("Cpu").await;
    let mut response = run
        .client
        .post(run.url("/v1/chat/completions"))
        .json(&super::support::body("Tell me a story.", 60, true))
        .timeout(LIMIT)
        .send()
        .await
        .unwrap();
    let mut all = response.chunk().await.unwrap().unwrap().to_vec();
    run.process.signal(Signal::TERM);
    while let Some(chunk) = response.chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    let all = String::from_utf8(all).unwrap();
    assert!(all.trim_end().ends_with("data: [DONE]"), "{all}");
    assert!(!all.contains("\"error\""), "{all}");
    let status = run.process.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(0), "{}", run.process.output());
}
