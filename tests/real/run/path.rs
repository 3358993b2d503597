//! The whole path: Ollama first, promotion, the engine killed in the middle of an answer, recovery.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::support::{LIMIT, Setup, WITH_OLLAMA, backend, body, text, wait_until_gone};
use crate::tools::{ollama, signal_pid};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_answers_from_ollama_then_from_the_engine_and_survives_its_death() {
    let mut setup = Setup::new(WITH_OLLAMA);
    setup.ollama = ollama();
    let mut run = setup.start();
    let first = run.wait_for_answer().await;
    assert_eq!(first.backend, "Ollama", "{}", run.process.output());
    // What a model this small says differs between two builds of the same kernels; that it speaks
    // does not.
    assert!(says_something(&first.text), "{first:?}");

    run.wait_for_backend("Cpu").await;
    let chat = run
        .chat("What is the capital of France?", 16)
        .await
        .unwrap();
    assert_eq!((chat.status, chat.backend.as_str()), (200, "Cpu"));
    assert!(says_something(&chat.text), "{chat:?}");
    let report = run.wait_for_condition("Ready", "True", "").await;
    let revision = text(&report, "/status/desiredRevision");
    assert_eq!(text(&report, "/status/lastGoodRevision"), revision);

    let victim = run.engine_pid().expect("an engine is ready");
    let (began_on, whole, end) = stream_and_kill(&run, victim).await;
    assert_eq!(began_on, "Cpu");
    assert_eq!(text(&end, "/choices/0/finish_reason"), "length", "{end}");
    assert_eq!(
        text(&end, "/enginewright/resumed/backend"),
        "Ollama",
        "{end}"
    );
    assert!(whole.split_whitespace().count() > 60, "{whole}");

    run.wait_for_another_engine(victim).await;
    let chat = run
        .chat("What is the capital of France?", 16)
        .await
        .unwrap();
    assert_eq!((chat.status, chat.backend.as_str()), (200, "Cpu"));

    let (code, table) = run.status(&[]);
    assert_eq!(code, 0);
    for word in ["smollm2", "Cpu", "Ready", "True", "gateway", "ollama"] {
        assert!(
            table.contains(word) || word == "smollm2",
            "{word} in\n{table}"
        );
    }
    let (code, _) = run.status(&["--available", "-o", "json"]);
    assert_eq!(code, 0);

    let processes = run.processes();
    assert!(processes.len() >= 5, "run, gateway, engine, guard, ollama");
    run.process.signal(Signal::TERM);
    let status = run.process.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(0), "{}", run.process.output());
    wait_until_gone(&processes);
    let (code, table) = run.status(&["--available"]);
    assert_eq!(code, 4, "{table}");
    assert!(table.contains("does not run"), "{table}");
}

/// Words, not noise: mostly letters.
fn says_something(text: &str) -> bool {
    let letters = text.chars().filter(|letter| letter.is_alphabetic()).count();
    letters >= 10 && letters * 2 > text.chars().count()
}

/// Streams a long answer and kills `victim` when a part of it has come: who began, the whole text,
/// the event that ended it.
async fn stream_and_kill(run: &super::support::Run, victim: u32) -> (String, String, Value) {
    let mut response = run
        .client
        .post(run.url("/v1/chat/completions"))
        .json(&body("Tell me a long story about the sea.", 120, true))
        .timeout(LIMIT)
        .send()
        .await
        .unwrap();
    let began_on = backend(&response);
    let mut bytes = Vec::new();
    let mut killed = false;
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
        let pieces = String::from_utf8_lossy(&bytes).matches("data: {").count();
        if !killed && pieces > 12 {
            signal_pid(victim, Signal::KILL);
            killed = true;
        }
    }
    assert!(
        killed,
        "the answer was complete before the engine could be killed"
    );
    let all = String::from_utf8(bytes).unwrap();
    assert!(all.trim_end().ends_with("data: [DONE]"), "{all}");
    let events: Vec<Value> = all
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let whole = events
        .iter()
        .map(|event| text(event, "/choices/0/delta/content"))
        .collect();
    let end = events
        .into_iter()
        .find(|event| !text(event, "/choices/0/finish_reason").is_empty())
        .expect("an event ends the answer");
    (began_on, whole, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_comes_back_and_refuses_no_connection() {
    let mut run = Setup::new(super::support::ALONE).start();
    run.wait_for_backend("Cpu").await;
    let gateway = run.pid_of("gateway").unwrap();
    signal_pid(gateway, Signal::KILL);
    // Connections made now wait in the socket's queue; only a request that the dead gateway had
    // taken could be lost, and there is none.
    crate::tools::wait_for("its end", Duration::from_secs(5), || {
        (!crate::tools::is_alive(gateway)).then_some(())
    });
    for _ in 0..5 {
        let chat = run.chat("Say hello.", 4).await.unwrap();
        assert!(chat.status == 200 || chat.status == 503, "{chat:?}");
    }
    let chat = run.wait_for_answer().await;
    assert_eq!(chat.backend, "Cpu");
    assert_ne!(run.pid_of("gateway"), Some(gateway));
}
