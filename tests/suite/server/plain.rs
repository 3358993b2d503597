//! `/generate` and `/generate_stream`.

use serde_json::{Value, json};

use super::support::saying;

#[tokio::test]
async fn a_prompt_gets_a_response() {
    let server = saying("Paris").start();
    let body = server
        .post("/generate", &json!({ "prompt": "Capital of France?" }))
        .await
        .json();
    assert_eq!(body["response"], "Paris");
    assert_eq!(body["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stream_adds_up_to_the_response() {
    let server = saying("Paris").start();
    let answer = server
        .post(
            "/generate_stream",
            &json!({ "prompt": "x", "max_tokens": 4 }),
        )
        .await;
    let events: Vec<Value> = answer
        .events()
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let text: String = events
        .iter()
        .filter_map(|event| event["response"].as_str())
        .collect();
    assert_eq!(text, "Pari");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["done"], &last["finish_reason"]),
        (&json!(true), &json!("length"))
    );
}

#[tokio::test]
async fn errors_name_the_field() {
    let server = saying("x").start();
    for (body, expected) in [
        (json!({}), "prompt: is required"),
        (json!({ "prompt": 5 }), "prompt: invalid type"),
        (json!({ "prompt": "" }), "prompt: must not be empty"),
        (
            json!({ "prompt": "x", "max_tokens": 0 }),
            "max_tokens: must be at least 1",
        ),
    ] {
        let answer = server.post("/generate", &body).await;
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(message.starts_with(expected), "{message}");
    }
}
