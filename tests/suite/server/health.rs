//! Health, readiness and metrics.

use std::sync::Arc;

use enginewright::backend::LoadError;
use enginewright::backend::scripted::reply;
use enginewright::server::{Phase, bring_up, router};

use super::support::{END, chat, get, post, saying, send, service, tokens};

#[tokio::test]
async fn a_server_is_ready_only_after_a_real_generation() {
    let state = saying("x").empty();
    let router = router(Arc::clone(&state));
    let ready = send(&router, get("/readyz")).await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["status"]),
        (503, &"loading".into())
    );
    assert_eq!(send(&router, get("/healthz")).await.status, 200);
    let early = send(
        &router,
        post("/v1/chat/completions", chat("hi").to_string()),
    )
    .await;
    assert_eq!(
        (early.status.as_u16(), early.header("retry-after")),
        (503, "2")
    );

    let (loaded, control) = service(&state, reply(tokens("hello"), END), 1, 1);
    control.close();
    let up = tokio::spawn(bring_up(Arc::clone(&state), move || Ok(loaded)));
    state.reached(|phase| *phase == Phase::Warming).await;
    let ready = send(&router, get("/readyz")).await;
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["status"]),
        (503, &"warming".into())
    );
    control.open();
    up.await.unwrap();
    assert_eq!(send(&router, get("/readyz")).await.status, 200);
    assert!(control.done() >= 4, "tokens were generated");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_or_generates_rubbish_never_gets_ready() {
    let state = saying("x").empty();
    bring_up(Arc::clone(&state), || {
        Err(LoadError::Model("m.gguf: truncated".into()))
    })
    .await;
    assert_eq!(state.phase(), Phase::Failed("m.gguf: truncated".into()));

    let state = saying("x").empty();
    let (loaded, control) = service(&state, reply(tokens("hello"), END), 1, 1);
    control.fault(enginewright::backend::scripted::Fault::NotANumber);
    bring_up(Arc::clone(&state), move || Ok(loaded)).await;
    assert!(matches!(state.phase(), Phase::Failed(reason) if reason.contains("first generation")));
    let router = router(Arc::clone(&state));
    assert_eq!(send(&router, get("/readyz")).await.status, 503);
    assert_eq!(send(&router, get("/healthz")).await.status, 500);
}

#[tokio::test]
async fn metrics_count_requests_answers_and_tokens() {
    let server = saying("hello").start();
    server.post("/v1/chat/completions", &chat("hi")).await;
    server.get("/v1/../../x").await;
    let parts = [
        "enginewright_http_requests_total{backend=\"Scripted\",route=\"/v1/chat/completions\",code=\"200\"} 1",
        "enginewright_http_requests_total{backend=\"Scripted\",route=\"other\",code=\"404\"} 1",
        "enginewright_answers_total{backend=\"Scripted\",outcome=\"Stop\"} 1",
        "enginewright_time_to_first_token_seconds_count{backend=\"Scripted\"} 1",
        "enginewright_queue_seconds_count{backend=\"Scripted\"} 1",
        "enginewright_slots{backend=\"Scripted\"} 2",
        "enginewright_slots_busy{backend=\"Scripted\"} 0",
        "enginewright_ready{backend=\"Scripted\"} 1",
        "# EOF",
    ];
    // The engine thread counts an answer just after the client has read its end.
    let begun = std::time::Instant::now();
    loop {
        let text = server.get("/metrics").await.text();
        match parts.iter().find(|part| !text.contains(**part)) {
            None => return,
            Some(part) => assert!(begun.elapsed().as_secs() < 10, "{part} is not in\n{text}"),
        }
        tokio::task::yield_now().await;
    }
}
