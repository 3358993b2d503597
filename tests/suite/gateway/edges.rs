//! Overload, absence, breakers, clients that go away, keys, management, metadata, shutting down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use enginewright::gateway::listener::Limits;
use enginewright::gateway::service::Access;
use enginewright::server::auth::ApiKeys;
use enginewright::server::body::Reception;
use futures::StreamExt;
use serde_json::{Value, json};

use super::upstream::{
    Act, Scripted, chunk, events, head, json as answer, json_with, ollama, whole_stream,
};
use super::{ANSWER, EVERY_WAY, Via, eventually, nobody, reading, start, start_with, table};

#[tokio::test]
async fn overload_is_passed_on_and_not_sent_to_the_fallback() {
    for via in EVERY_WAY {
        let engine = Scripted::start(|_| {
            json_with(
                429,
                "retry-after: 7\r\n",
                &json!({ "error": { "message": "full" } }),
            )
        })
        .await;
        let fallback = Scripted::start(ollama).await;
        let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
        for stream in [true, false] {
            for _ in 0..4 {
                let response = running
                    .post(via.path(stream), &via.body(stream))
                    .send()
                    .await
                    .unwrap();
                assert_eq!(response.status(), 429);
                assert_eq!(response.headers()["retry-after"], "7");
                assert_eq!(response.headers()["x-enginewright-backend"], "Cpu");
                let body: Value = response.json().await.unwrap();
                assert_eq!(body["error"]["message"], "full");
            }
        }
        assert!(fallback.asked().is_empty());
    }
}

#[tokio::test]
async fn a_full_queue_of_the_fallback_is_429_in_the_clients_api() {
    let fallback = Scripted::start(|_| {
        answer(503, &json!({ "error": "server busy, please try again.  maximum pending requests exceeded" }))
    })
    .await;
    let running = start(table(Some(&nobody()), Some(&fallback.url))).await;
    let response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["type"], "rate_limit_error");
}

#[tokio::test]
async fn with_both_down_the_answer_is_503_with_reason_and_retry_after_at_once() {
    let running = start(table(Some(&nobody()), Some(&nobody()))).await;
    for round in 0..6 {
        for via in EVERY_WAY {
            for stream in [true, false] {
                let begun = Instant::now();
                let response = running
                    .post(via.path(stream), &via.body(stream))
                    .send()
                    .await
                    .unwrap();
                assert_eq!(response.status(), 503, "{round}");
                assert!(response.headers().contains_key("retry-after"));
                assert_eq!(response.headers()["x-enginewright-backend"], "None");
                let text = response.text().await.unwrap();
                assert!(text.contains("no back end can answer"), "{text}");
                assert!(begun.elapsed() < Duration::from_millis(500));
            }
        }
    }
    assert_eq!(running.get("/readyz").send().await.unwrap().status(), 503);
    assert_eq!(running.get("/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_routes_the_gateway_says_so() {
    let running = start(table(None, None)).await;
    let response = running
        .post("/generate", &json!({ "prompt": "x" }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("none is configured")
    );
}

#[tokio::test]
async fn a_failing_engine_is_left_alone_and_taken_back_when_it_lives() {
    let healthy = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let engine = Scripted::start(move |request| {
        let healthy = state.load(Ordering::SeqCst);
        match (request.path.as_str(), healthy) {
            ("/readyz", true) => answer(200, &json!({ "ready": true })),
            (_, false) => answer(503, &json!({ "error": "down" })),
            (_, true) => whole_stream(Via::Chat),
        }
    })
    .await;
    let fallback = Scripted::start(ollama).await;
    let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
    let ask = || async {
        let response = running
            .post("/v1/chat/completions", &Via::Chat.body(true))
            .send()
            .await
            .unwrap();
        let backend = response.headers()["x-enginewright-backend"]
            .to_str()
            .unwrap()
            .to_owned();
        let read = reading::stream(Via::Chat, &response.text().await.unwrap());
        assert_eq!(read.text, ANSWER.concat());
        backend
    };
    for _ in 0..10 {
        assert_eq!(ask().await, "Ollama");
    }
    assert_eq!(engine.asked().len(), 3, "three failures open the breaker");
    healthy.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    while ask().await != "Cpu" {
        assert!(begun.elapsed() < Duration::from_secs(5), "not taken back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask().await, "Cpu");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_engine_at_any_point() {
    for (stream, tokens) in [(true, 0), (true, 2), (false, 0), (false, 2)] {
        let engine = Scripted::start(move |_| {
            let all = events(Via::Chat, &ANSWER);
            let mut acts = vec![];
            if tokens > 0 {
                acts.push(head(200, "text/event-stream"));
                acts.extend(all.tokens[..tokens].iter().map(|text| chunk(text)));
            }
            acts.push(Act::Hang);
            acts
        })
        .await;
        let mut routes = table(Some(&engine.url), None);
        routes.timeouts.first_token_ms = 60_000;
        routes.timeouts.stall_ms = 60_000;
        let running = start(routes).await;
        let request = running
            .post("/v1/chat/completions", &Via::Chat.body(stream))
            .send();
        if stream && tokens > 0 {
            let mut body = request.await.unwrap().bytes_stream();
            body.next().await.unwrap().unwrap();
            drop(body);
        } else {
            let task = tokio::spawn(request);
            eventually("the request to arrive", || !engine.asked().is_empty()).await;
            task.abort();
        }
        eventually("the engine to be cancelled", || engine.clients_gone() == 1).await;
        eventually("the request to be over", || {
            running.gateway.metrics.running() == 0
        })
        .await;
        let gone = "enginewright_gateway_requests_total{api=\"chat_completions\",outcome=\"gone\"}";
        assert!((running.metric(gone).await - 1.0).abs() < f64::EPSILON);
    }
}

#[tokio::test]
async fn tokens_reach_the_client_one_by_one() {
    let engine = Scripted::start(|_| {
        let all = events(Via::Chat, &ANSWER);
        let mut acts = vec![head(200, "text/event-stream")];
        for token in &all.tokens {
            acts.extend([Act::Gate, chunk(token)]);
        }
        acts.extend(all.finish.iter().chain(&all.done).map(|text| chunk(text)));
        acts.push(Act::Send("0\r\n\r\n".into()));
        acts
    })
    .await;
    let mut routes = table(Some(&engine.url), None);
    routes.timeouts.first_token_ms = 60_000;
    routes.timeouts.stall_ms = 60_000;
    let running = start(routes).await;
    let request = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send();
    let request = tokio::spawn(request);
    engine.open_gate();
    let mut body = request.await.unwrap().unwrap().bytes_stream();
    for token in events(Via::Chat, &ANSWER).tokens {
        // The next token is only generated once this one was read.
        let mut read = String::new();
        while read != token {
            let bytes = body.next().await.unwrap().unwrap();
            read.push_str(std::str::from_utf8(&bytes).unwrap());
            assert!(token.starts_with(&read), "{read}");
        }
        engine.open_gate();
    }
}

#[tokio::test]
async fn ollamas_management_calls_are_refused_and_reach_nobody() {
    let engine = Scripted::start(|_| answer(200, &json!({}))).await;
    let fallback = Scripted::start(ollama).await;
    let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
    for path in [
        "pull",
        "push",
        "create",
        "copy",
        "delete",
        "blobs/sha256:00",
    ] {
        for method in [
            reqwest::Method::POST,
            reqwest::Method::DELETE,
            reqwest::Method::GET,
        ] {
            let url = format!("{}/api/{path}", running.url);
            let response = running.client.request(method, url).send().await.unwrap();
            assert_eq!(response.status(), 403, "{path}");
            let body: Value = response.json().await.unwrap();
            assert!(body["error"].is_string(), "{body}");
        }
    }
    let odd = running
        .client
        .get(format!("{}/api/%70ull", running.url))
        .send()
        .await
        .unwrap();
    assert_eq!(odd.status(), 404);
    assert!(engine.requests.lock().unwrap().is_empty());
    assert!(fallback.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_route_but_the_probes_wants_the_key_and_no_upstream_sees_it() {
    let engine = Scripted::start(|_| whole_stream(Via::Chat)).await;
    let access = Access {
        keys: ApiKeys::parse("secret-key").unwrap(),
        ..Access::default()
    };
    let running = start_with(table(Some(&engine.url), None), access, Limits::default()).await;
    for path in [
        "/v1/models",
        "/api/tags",
        "/metrics",
        "/nothing",
        "/api/pull",
        "/v1/models/x",
    ] {
        assert_eq!(
            running.get(path).send().await.unwrap().status(),
            401,
            "{path}"
        );
    }
    for via in EVERY_WAY {
        for stream in [true, false] {
            let response = running
                .post(via.path(stream), &via.body(stream))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 401);
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(running.get(path).send().await.unwrap().status(), 200);
    }
    assert!(engine.asked().is_empty());
    let request = running.post("/v1/chat/completions", &Via::Chat.body(true));
    let response = request.bearer_auth("secret-key").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!engine.asked()[0].head.contains("secret-key"));
}

#[tokio::test]
async fn the_models_are_told_under_one_name_whoever_answers() {
    let fallback = Scripted::start(|request| match request.path.as_str() {
        "/api/tags" => answer(
            200,
            &json!({ "models": [
            { "name": "inner:latest", "model": "inner:latest", "size": 5 },
            { "name": "private:latest", "model": "private:latest" }] }),
        ),
        "/api/show" => answer(
            200,
            &json!({ "details": { "family": request.body["model"] } }),
        ),
        _ => answer(200, &json!({ "version": "0.12.6" })),
    })
    .await;
    let running = start(table(Some(&nobody()), Some(&fallback.url))).await;
    let get = |path: &'static str| {
        let request = running.get(path).send();
        async move { request.await.unwrap().json::<Value>().await.unwrap() }
    };
    assert_eq!(get("/v1/models").await["data"][0]["id"], "served");
    assert_eq!(get("/v1/models/served").await["id"], "served");
    let tags = get("/api/tags").await;
    assert_eq!(
        tags["models"],
        json!([{ "name": "served", "model": "served", "size": 5 }])
    );
    assert_eq!(get("/api/version").await["version"], "0.12.6");
    let show = running
        .post("/api/show", &json!({ "model": "served" }))
        .send()
        .await
        .unwrap();
    assert_eq!(
        show.json::<Value>().await.unwrap()["details"]["family"],
        "inner:latest"
    );
    assert_eq!(
        running
            .get("/v1/models/other")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    let other = json!({ "model": "other", "messages": [] });
    for path in ["/v1/chat/completions", "/api/chat"] {
        assert_eq!(
            running.post(path, &other).send().await.unwrap().status(),
            404
        );
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_before_any_upstream_is_asked() {
    let engine = Scripted::start(|_| whole_stream(Via::Chat)).await;
    let access = Access {
        bodies: Reception {
            max_bytes: 4096,
            ..Access::default().bodies
        },
        ..Access::default()
    };
    let running = start_with(table(Some(&engine.url), None), access, Limits::default()).await;
    let url = format!("{}/v1/chat/completions", running.url);
    let long = "x".repeat(5000);
    let deep = "[".repeat(2000);
    for (body, status) in [
        ("{", 400),
        ("[]", 400),
        ("\u{0}", 400),
        (r#"{"stream": 1}"#, 400),
        (r#"{"model": 5}"#, 400),
        (deep.as_str(), 400),
        (long.as_str(), 413),
    ] {
        let response = running
            .client
            .post(&url)
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{body:.40}");
        let error: Value = response.json().await.unwrap();
        assert!(error["error"]["message"].is_string());
    }
    let bytes = running
        .client
        .post(&url)
        .body(vec![0xff, 0xfe])
        .send()
        .await
        .unwrap();
    assert_eq!(bytes.status(), 400);
    assert!(engine.asked().is_empty());
}

#[tokio::test]
async fn a_request_that_only_loads_the_model_is_answered_whoever_is_there() {
    let loaded = json!({ "model": "served", "created_at": "t", "response": "", "done": true,
        "done_reason": "load" });
    // As the engine's server does: one JSON object without a line feed.
    let whole = loaded.clone();
    let engine = Scripted::start(move |_| answer(200, &whole)).await;
    let fallback = Scripted::start(ollama).await;
    for primary in [engine.url.clone(), nobody()] {
        let running = start(table(Some(&primary), Some(&fallback.url))).await;
        for stream in [true, false] {
            let body = json!({ "model": "served", "stream": stream, "keep_alive": 0 });
            let response = running.post("/api/generate", &body).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let read: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(
                (&read["done_reason"], &read["model"]),
                (&json!("load"), &json!("served"))
            );
        }
    }
    assert!(fallback.asked().is_empty());
}

#[tokio::test]
async fn a_prompt_too_long_for_the_fallback_is_the_clients_mistake() {
    for reply in [
        answer(
            400,
            &json!({ "error": "the input length exceeds the context length" }),
        ),
        answer(
            500,
            &json!({ "error": "the input length exceeds the context length" }),
        ),
        vec![
            head(200, "application/x-ndjson"),
            chunk("{\"error\":\"the input length exceeds the context length\"}\n"),
            Act::Send("0\r\n\r\n".into()),
        ],
    ] {
        let fallback = Scripted::start(move |_| reply.clone()).await;
        let running = start(table(None, Some(&fallback.url))).await;
        let response = running
            .post("/v1/chat/completions", &Via::Chat.body(true))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 400);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "context_length_exceeded");
    }
}

#[tokio::test]
async fn a_stranger_host_is_refused_on_loopback_without_keys() {
    let engine = Scripted::start(|_| whole_stream(Via::Chat)).await;
    let access = Access {
        local_hosts_only: true,
        ..Access::default()
    };
    let running = start_with(table(Some(&engine.url), None), access, Limits::default()).await;
    let ask = |name: &'static str, value: &'static str| {
        running
            .post("/v1/chat/completions", &Via::Chat.body(true))
            .header(name, value)
            .send()
    };
    assert_eq!(ask("host", "evil.example").await.unwrap().status(), 403);
    assert_eq!(
        ask("origin", "https://evil.example")
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(ask("host", "localhost").await.unwrap().status(), 200);
    assert_eq!(engine.asked().len(), 1);
}
