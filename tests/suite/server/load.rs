//! More than there is room for, and clients that go away.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{and, chat, next_frame, saying};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_place_is_refused_at_once_with_retry_after_and_the_others_finish() {
    let server = std::sync::Arc::new(saying("answer").places(2, 3).start());
    server.control.close();
    let accepted: Vec<_> = (0..5)
        .map(|i| {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move { server.post(CHAT, &chat(&format!("q{i}"))).await })
        })
        .collect();
    server
        .until("full", |stats| stats.slots_busy + stats.waiting == 5)
        .await;
    for path in [CHAT, "/api/generate"] {
        for _ in 0..20 {
            let began = Instant::now();
            let body = and(chat("late"), &json!({ "prompt": "late" }));
            let answer = server.post(path, &body).await;
            assert_eq!(answer.status, 429, "{}", answer.text());
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            assert!(began.elapsed() < Duration::from_secs(1));
        }
    }
    server.control.open();
    for task in accepted {
        let answer = task.await.unwrap();
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_slot_whether_streaming_waiting_or_not_begun() {
    let server = saying(&"very long ".repeat(100)).places(1, 4).start();
    server.control.delay(Duration::from_millis(2));
    let stream = and(chat("hi"), &json!({ "stream": true }));
    let mut body = server.open(CHAT, &stream).await.into_body();
    next_frame(&mut body).await;
    // One more, not streaming, waits for the slot.
    let waiting = {
        let router = server.router.clone();
        tokio::spawn(async move {
            super::support::send(&router, super::support::post(CHAT, chat("x").to_string())).await
        })
    };
    server
        .until("one runs, one waits", |stats| {
            stats.slots_busy == 1 && stats.waiting == 1
        })
        .await;
    waiting.abort();
    server
        .until("nobody waits", |stats| stats.waiting == 0)
        .await;
    drop(body);
    server
        .until("nobody runs", |stats| stats.slots_busy == 0)
        .await;
    let cancelled = server.get("/metrics").await.text();
    assert!(cancelled.contains("outcome=\"Cancelled\""), "{cancelled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_many_clients_do_not_mix() {
    let server = std::sync::Arc::new(saying("the one answer").places(4, 64).start());
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move {
                let more = json!({ "stream": i % 2 == 0, "max_tokens": 1 + i % 14 });
                let answer = server
                    .post(CHAT, &and(chat(&format!("question {i}")), &more))
                    .await;
                let text: String = if i % 2 == 0 {
                    answer
                        .events()
                        .iter()
                        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
                        .filter_map(|event| {
                            event["choices"][0]["delta"]["content"]
                                .as_str()
                                .map(str::to_owned)
                        })
                        .collect()
                } else {
                    answer.json()["choices"][0]["message"]["content"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                };
                assert_eq!(text, "the one answer"[..=(i % 14)], "{i}");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
