//! What wrong requests get: a status, a shape their client understands, the field, and a server
//! that lives on.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use enginewright::backend::scripted::Fault;
use http::Request;
use serde_json::{Value, json};

use super::support::{Server, and, chat, next_frame, post, saying};

const CHAT: &str = "/v1/chat/completions";

async fn still_answers(server: &Server) {
    let answer = server.post(CHAT, &chat("hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn error(body: &Value) -> (&str, &str, &str) {
    let text = |key: &str| body["error"][key].as_str().unwrap_or_default();
    (text("message"), text("param"), text("code"))
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_named() {
    let server = saying("ok").start();
    for (more, field) in [
        (json!({ "messages": 5 }), "messages"),
        (
            json!({ "messages": [{ "role": "user", "content": { "a": 1 } }] }),
            "messages[0].content",
        ),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "max_tokens": -1 }), "max_tokens"),
        (json!({ "max_tokens": 1.5 }), "max_tokens"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "n": 7 }), "n"),
        (json!({ "top_p": 1e308 }), "top_p"),
        (
            json!({ "logit_bias": { "999999": 1 } }),
            "logit_bias.999999",
        ),
        (
            json!({ "response_format": { "type": "json_schema" } }),
            "response_format.json_schema",
        ),
        (
            json!({ "stream_options": { "include_usage": true } }),
            "stream_options",
        ),
    ] {
        let answer = server.post(CHAT, &and(chat("hi"), &more)).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        let body = answer.json();
        let (message, param, _) = error(&body);
        assert_eq!(param, field, "{message}");
        assert!(message.starts_with(field), "{message}");
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let server = saying("ok").start();
    let deep = format!(
        "{{\"messages\": {}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let huge_number = r#"{"messages": [], "temperature": 1e999}"#;
    let twice = r#"{"messages": [], "messages": []}"#;
    for (body, expected) in [
        (Bytes::from_static(b""), "not valid JSON"),
        (Bytes::from_static(b"{\"messages\": ["), "not valid JSON"),
        (Bytes::from_static(b"[]"), ""),
        (
            Bytes::from_static(b"{\"model\": \"\xff\xfe\"}"),
            "not UTF-8",
        ),
        (Bytes::from(deep), "levels deep"),
        (
            Bytes::from_static(br#"{"messages": [{"role": "user", "content": "\ud800"}]}"#),
            "JSON",
        ),
        (Bytes::from(huge_number), "out of range"),
        (Bytes::from(twice), "duplicate field"),
        (Bytes::from_static(b"{\"messages\": NaN}"), "not valid JSON"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = server.send(post(CHAT, body)).await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        let body = answer.json();
        assert!(error(&body).0.contains(expected), "{shown}: {body}");
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_without_being_held() {
    let server = saying("ok").start();
    let piece = Bytes::from(vec![b' '; 1024 * 1024]);
    let stream =
        futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let answer = server.send(post(CHAT, Body::from_stream(stream))).await;
    assert_eq!(answer.status, 413);
    assert!(error(&answer.json()).0.contains("4194304 bytes"));
    let announced = Request::post(CHAT)
        .header("content-length", "10000000000")
        .body(Body::from("{"))
        .unwrap();
    assert_eq!(server.send(announced).await.status, 413);
    still_answers(&server).await;
}

#[tokio::test]
async fn an_unknown_model_is_404_with_the_one_that_is_served() {
    let server = saying("ok").start();
    let names = [
        "nobody",
        "../../etc/passwd",
        "%2e%2e",
        "a\u{0}b",
        "sha256:../../x",
        &"x".repeat(1_000_000),
    ];
    for name in names {
        let answer = server
            .post(CHAT, &and(chat("hi"), &json!({ "model": name })))
            .await;
        assert_eq!(answer.status, 404);
        let body = answer.json();
        let (message, param, code) = error(&body);
        assert_eq!((param, code), ("model", "model_not_found"));
        assert!(
            message.contains("test-model") && message.len() < 300,
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_the_context_is_refused_with_the_numbers() {
    let server = saying("ok").start();
    let long = chat(&"word ".repeat(1000));
    let answer = server.post(CHAT, &long).await;
    assert_eq!(answer.status, 400);
    let body = answer.json();
    let (message, _, code) = error(&body);
    assert_eq!(code, "context_length_exceeded");
    assert!(
        message.contains("2048") && message.contains("50"),
        "{message}"
    );
    let greedy = and(chat("hi"), &json!({ "max_tokens": 2047 }));
    let body = server.post(CHAT, &greedy).await.json();
    let (message, param, code) = error(&body);
    assert_eq!((param, code), ("max_tokens", "context_length_exceeded"));
    assert!(
        message.contains("2048") && message.contains("2047"),
        "{message}"
    );
    // Ollama's limit is an upper bound.
    let tolerant =
        json!({ "model": "test-model", "prompt": "x", "options": { "num_predict": 9999 } });
    assert_eq!(server.post("/api/generate", &tolerant).await.status, 200);
    still_answers(&server).await;
}

#[tokio::test]
async fn a_template_that_raises_is_the_clients_mistake() {
    let server = saying("ok").start();
    let answer = server.post(CHAT, &chat("raise")).await;
    assert_eq!(answer.status, 400);
    assert!(
        error(&answer.json()).0.contains("not this word"),
        "{}",
        answer.text()
    );
    still_answers(&server).await;
}

#[tokio::test]
async fn an_impossible_schema_is_refused_with_its_field() {
    let server = saying("ok").start();
    let format = |schema: Value| {
        and(
            chat("x"),
            &json!({ "response_format": {
            "type": "json_schema", "json_schema": { "name": "s", "schema": schema } } }),
        )
    };
    for schema in [
        json!({ "type": "nonsense" }),
        json!({ "type": "string", "pattern": "(" }),
        json!({ "$ref": "#/nowhere" }),
        json!({ "allOf": [{ "type": "string" }, { "type": "integer" }] }),
    ] {
        let answer = server.post(CHAT, &format(schema.clone())).await;
        assert_eq!(answer.status, 400, "{schema}: {}", answer.text());
        assert_eq!(
            error(&answer.json()).1,
            "response_format.json_schema.schema"
        );
    }
    still_answers(&server).await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_said_so_in_each_dialect() {
    let server = saying("ok").start();
    let answer = server.get("/v1/nothing").await;
    assert_eq!(
        (answer.status.as_u16(), error(&answer.json()).2),
        (404, "unknown_url")
    );
    let answer = server.get("/v1/chat/completions").await;
    assert_eq!(
        (answer.status.as_u16(), error(&answer.json()).2),
        (405, "method_not_allowed")
    );
    assert!(server.get("/api/nothing").await.json()["error"].is_string());
    assert_eq!(server.get("/nothing").await.json()["code"], "unknown_url");
    assert_eq!(server.post("/v1/embeddings", &json!({})).await.status, 404);
}

#[tokio::test]
async fn an_engine_that_fails_before_the_first_token_is_a_status_and_after_it_an_event() {
    let server = saying("a long answer").start();
    server.control.fault(Fault::RejectOnce);
    // The engine tries a rejected batch again, so this one is answered.
    still_answers(&server).await;
    server.control.close();
    server.control.pass(2);
    let stream = and(chat("hi"), &json!({ "stream": true }));
    let mut body = server.open(CHAT, &stream).await.into_body();
    assert!(next_frame(&mut body).await.unwrap().contains("assistant"));
    server.control.fault(Fault::Fatal);
    server.control.open();
    let mut rest = String::new();
    while let Some(frame) = next_frame(&mut body).await {
        rest.push_str(&frame);
    }
    let last = rest.trim_end().rsplit("data: ").next().unwrap();
    let event: Value = serde_json::from_str(last).unwrap();
    assert_eq!(event["error"]["type"], "server_error", "{rest}");
    assert!(!rest.contains("[DONE]"));
    assert!(
        !rest.contains("told to"),
        "the diagnostic is not for clients: {rest}"
    );
    let answer = server.post(CHAT, &chat("hi")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(server.get("/healthz").await.status, 500);
}

#[tokio::test]
async fn a_fatal_fault_before_the_first_token_is_a_500() {
    let server = saying("x").start();
    server.control.fault(Fault::Fatal);
    let stream = and(chat("hi"), &json!({ "stream": true }));
    let answer = server.post(CHAT, &stream).await;
    assert_eq!(answer.status, 500);
    assert_eq!(error(&answer.json()).2, "internal_error");
}

#[tokio::test]
async fn a_deadline_ends_an_answer_with_a_status_or_an_event() {
    let server = saying("x")
        .with(|config| config.request_timeout = Duration::from_millis(300))
        .start();
    server.control.close();
    let answer = server.post(CHAT, &chat("hi")).await;
    assert_eq!(answer.status, 504);
    assert_eq!(error(&answer.json()).2, "deadline_exceeded");
    server.control.open();
    server
        .until("idle again", |stats| stats.slots_busy == 0)
        .await;
    server.control.delay(Duration::from_millis(120));
    let stream = json!({ "model": "test-model", "prompt": "x", "options": { "temperature": 0 } });
    let slow = saying("a long answer")
        .with(|config| config.request_timeout = Duration::from_millis(400))
        .start();
    slow.control.delay(Duration::from_millis(90));
    let lines = slow.post("/api/generate", &stream).await.lines();
    assert!(
        lines.last().unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("deadline"),
        "{lines:?}"
    );
}
