//! Ollama's API.

use serde_json::{Value, json};

use super::support::{and, saying};

fn chat(more: &Value) -> Value {
    let body = json!({
        "model": "test-model", "options": { "temperature": 0 },
        "messages": [{ "role": "user", "content": "hi" }],
    });
    and(body, more)
}

#[tokio::test]
async fn a_chat_is_streamed_by_default_and_the_last_line_has_the_counts() {
    let server = saying("Hello").start();
    let answer = server.post("/api/chat", &chat(&json!({}))).await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines = answer.lines();
    let text: String = lines
        .iter()
        .filter_map(|line| line["message"]["content"].as_str())
        .collect();
    assert_eq!(text, "Hello");
    let (last, rest) = lines.split_last().unwrap();
    assert!(
        rest.iter()
            .all(|line| line["done"] == false && line.get("eval_count").is_none())
    );
    assert_eq!(
        (&last["done"], &last["done_reason"]),
        (&json!(true), &json!("stop"))
    );
    assert!(last["eval_count"].as_u64().unwrap() >= 5);
    assert!(last["prompt_eval_count"].as_u64().unwrap() > 10);
    assert!(last["total_duration"].as_u64().unwrap() > 0);
    assert_eq!(last["model"], "test-model");
}

#[tokio::test]
async fn unstreamed_it_is_one_object() {
    let server = saying("Hello").start();
    let body = server
        .post("/api/chat", &chat(&json!({ "stream": false })))
        .await
        .json();
    assert_eq!(
        body["message"],
        json!({ "role": "assistant", "content": "Hello" })
    );
    let body = json!({ "model": "test-model:latest", "prompt": "hi", "stream": false,
        "options": { "temperature": 0, "num_predict": 2 } });
    let body = server.post("/api/generate", &body).await.json();
    assert_eq!(
        (&body["response"], &body["done_reason"]),
        (&json!("He"), &json!("length"))
    );
    assert_eq!(body["model"], "test-model:latest");
}

#[tokio::test]
async fn a_raw_prompt_is_not_wrapped_in_the_template() {
    let server = saying("x").start();
    let ask =
        |raw: bool| json!({ "model": "test-model", "prompt": "hi", "raw": raw, "stream": false });
    let raw = server.post("/api/generate", &ask(true)).await.json();
    assert_eq!(raw["prompt_eval_count"], 2);
    let wrapped = server.post("/api/generate", &ask(false)).await.json();
    assert!(wrapped["prompt_eval_count"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn a_tool_call_comes_whole_with_its_arguments_as_an_object() {
    let call =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    let server = saying(call).start();
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let lines = server
        .post("/api/chat", &chat(&json!({ "tools": tools })))
        .await
        .lines();
    let calls: Vec<&Value> = lines
        .iter()
        .filter_map(|line| line["message"]["tool_calls"].get(0))
        .collect();
    assert_eq!(calls.len(), 1, "{} lines", lines.len());
    assert_eq!(
        calls[0]["function"]["arguments"],
        json!({ "city": "Paris" })
    );
    let whole = chat(&json!({ "tools": tools, "stream": false }));
    let body = server.post("/api/chat", &whole).await.json();
    assert_eq!(
        body["message"]["tool_calls"][0]["function"]["name"],
        "weather"
    );
}

#[tokio::test]
async fn loading_and_unloading_are_answered_though_nothing_happens() {
    let server = saying("x").start();
    let reason = async |path: &str, body: Value| {
        server.post(path, &body).await.json()["done_reason"].clone()
    };
    assert_eq!(
        reason("/api/generate", json!({ "model": "test-model" })).await,
        "load"
    );
    assert_eq!(
        reason(
            "/api/chat",
            json!({ "model": "test-model", "messages": [] })
        )
        .await,
        "load"
    );
    let unload = json!({ "model": "test-model", "keep_alive": 0 });
    assert_eq!(reason("/api/generate", unload).await, "unload");
}

#[tokio::test]
async fn what_is_served_can_be_asked_for() {
    let server = saying("x").start();
    let tags = server.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "test-model");
    assert_eq!(tags["models"][0]["details"]["parameter_size"], "134.52M");
    assert_eq!(tags["models"][0]["digest"].as_str().unwrap().len(), 64);
    let show = server
        .post("/api/show", &json!({ "model": "test-model" }))
        .await
        .json();
    assert_eq!(show["details"]["quantization_level"], "Q4_1");
    assert!(
        show["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("completion"))
    );
    let by_old_key = server
        .post("/api/show", &json!({ "name": "test-model" }))
        .await;
    assert_eq!(by_old_key.status, 200);
    let ps = server.get("/api/ps").await.json();
    assert_eq!(ps["models"][0]["context_length"], 2048);
    assert_eq!(server.get("/api/version").await.json()["version"], "0.12.6");
}

#[tokio::test]
async fn errors_have_ollamas_shape() {
    let server = saying("x").start();
    let unknown = server
        .post("/api/chat", &chat(&json!({ "model": "nobody" })))
        .await;
    assert_eq!(unknown.status, 404);
    let message = unknown.json()["error"].as_str().unwrap().to_owned();
    assert!(
        message.contains("nobody") && message.contains("test-model"),
        "{message}"
    );
    let wrong = server
        .post(
            "/api/chat",
            &chat(&json!({ "options": { "top_k": "many" } })),
        )
        .await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.json()["error"]
            .as_str()
            .unwrap()
            .starts_with("options.top_k: ")
    );
}

#[tokio::test]
async fn nobody_changes_models_through_the_endpoint() {
    let server = saying("x").start();
    for path in [
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/blobs/sha256:00",
    ] {
        let answer = server.post(path, &json!({ "model": "test-model" })).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(
            answer.json()["error"]
                .as_str()
                .unwrap()
                .contains("cannot be changed")
        );
    }
}
