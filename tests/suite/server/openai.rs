//! OpenAI's API.

use serde_json::{Value, json};

use super::support::{and, chat, saying};

fn parsed(events: &[String]) -> Vec<Value> {
    let (done, rest) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    rest.iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

fn text_of(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_chat_answer_has_text_reason_usage_and_the_back_end_in_a_header() {
    let server = saying("Grüße 🦀").start();
    let answer = server.post("/v1/chat/completions", &chat("hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["choices"][0]["message"]["content"], "Grüße 🦀");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "test-model");
    // Bytes are tokens here; the one that ends the answer is counted too or not, but not twice.
    let tokens = body["usage"]["completion_tokens"].as_u64().unwrap();
    assert!((12..=13).contains(&tokens), "{body}");
    let prompt = body["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(body["usage"]["total_tokens"], prompt + tokens);
    assert_eq!(answer.header("x-enginewright-backend"), "Scripted");
    assert_eq!(answer.header("x-request-id").len(), 16);
}

#[tokio::test]
async fn a_stream_carries_the_same_text_and_ends_with_done() {
    let server = saying("Hello, wörld").start();
    let body = and(
        chat("hi"),
        &json!({ "stream": true, "stream_options": { "include_usage": true } }),
    );
    let answer = server.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = parsed(&answer.events());
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(text_of(&events), "Hello, wörld");
    let ids: std::collections::BTreeSet<&str> = events
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() >= 13);
    let finish = &events[events.len() - 2]["choices"][0]["finish_reason"];
    assert_eq!(finish, "stop");
}

#[tokio::test]
async fn a_repeated_prompt_reports_cached_tokens_in_usage_and_metrics() {
    let server = saying("ok").start();
    let first = server
        .post("/v1/chat/completions", &chat("the same long question"))
        .await
        .json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let again = server
        .post("/v1/chat/completions", &chat("the same long question"))
        .await
        .json();
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert!(cached > 20, "{again}");
    let metrics = server.get("/metrics").await.text();
    let line = format!("enginewright_reused_tokens_total{{backend=\"Scripted\"}} {cached}");
    assert!(metrics.contains(&line), "{line} is not in {metrics}");
}

#[tokio::test]
async fn a_token_limit_and_a_stop_string_end_the_answer() {
    let server = saying("one two three").start();
    let limited = and(chat("hi"), &json!({ "max_tokens": 3 }));
    let body = server.post("/v1/chat/completions", &limited).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "one");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 3);
    let stopped = and(chat("hi"), &json!({ "stop": " tw", "stream": true }));
    let answer = server.post("/v1/chat/completions", &stopped).await;
    let events = parsed(&answer.events());
    assert_eq!(text_of(&events), "one");
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn log_probabilities_cover_the_whole_answer() {
    let server = saying("hey").start();
    let body = and(chat("hi"), &json!({ "logprobs": true, "top_logprobs": 2 }));
    let answer = server.post("/v1/chat/completions", &body).await.json();
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    let text: String = content
        .iter()
        .filter_map(|entry| entry["token"].as_str())
        .collect();
    assert!(text.starts_with("hey"), "{text}");
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(content[0]["logprob"].as_f64().unwrap() <= 0.0);
    assert_eq!(content[0]["bytes"], json!([b'h']));
}

fn weather() -> Value {
    json!([{ "type": "function", "function": { "name": "weather", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } }])
}

const CALL: &str =
    "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";

#[tokio::test]
async fn a_tool_call_is_a_tool_call_and_not_text() {
    let server = saying(CALL).start();
    let body = and(chat("weather?"), &json!({ "tools": weather() }));
    let answer = server.post("/v1/chat/completions", &body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather");
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "Paris" }));
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
}

#[tokio::test]
async fn a_streamed_tool_call_comes_in_pieces_that_add_up() {
    let server = saying(CALL).start();
    let body = and(
        chat("weather?"),
        &json!({ "tools": weather(), "stream": true }),
    );
    let events = parsed(&server.post("/v1/chat/completions", &body).await.events());
    let pieces: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(pieces[0]["function"]["name"], "weather");
    assert!(pieces.len() > 2, "{pieces:?}");
    let arguments: String = pieces
        .iter()
        .filter_map(|piece| piece["function"]["arguments"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).unwrap(),
        json!({ "city": "Paris" })
    );
    assert_eq!(text_of(&events).trim(), "");
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[tokio::test]
async fn without_tools_or_with_choice_none_the_same_words_are_text() {
    let server = saying(CALL).start();
    for more in [
        json!({}),
        json!({ "tools": weather(), "tool_choice": "none" }),
    ] {
        let answer = server
            .post("/v1/chat/completions", &and(chat("x"), &more))
            .await
            .json();
        assert_eq!(answer["choices"][0]["message"]["content"], CALL);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_required_call_is_made_even_when_the_model_would_rather_talk() {
    let server = saying("I would rather talk.").start();
    let body = and(
        chat("x"),
        &json!({ "tools": weather(), "tool_choice": "required", "max_tokens": 200, "temperature": 1, "seed": 3 }),
    );
    let answer = server.post("/v1/chat/completions", &body).await.json();
    let choice = &answer["choices"][0];
    let calls = choice["message"]["tool_calls"].as_array();
    assert!(
        calls.is_some_and(|calls| calls[0]["function"]["name"] == "weather"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_completion_continues_text_or_tokens_and_can_echo() {
    let server = saying("upon a time").start();
    let ask = |more: Value| {
        and(
            json!({ "model": "test-model", "prompt": "Once ", "temperature": 0, "max_tokens": 50 }),
            &more,
        )
    };
    let plain = server.post("/v1/completions", &ask(json!({}))).await.json();
    assert_eq!(plain["choices"][0]["text"], "upon a time");
    assert_eq!(plain["object"], "text_completion");
    assert_eq!(plain["usage"]["prompt_tokens"], 5);
    let echoed = server
        .post("/v1/completions", &ask(json!({ "echo": true })))
        .await
        .json();
    assert_eq!(echoed["choices"][0]["text"], "Once upon a time");
    let tokens = server
        .post("/v1/completions", &ask(json!({ "prompt": [79, 110] })))
        .await
        .json();
    assert_eq!(tokens["usage"]["prompt_tokens"], 2);
    let special = server
        .post("/v1/completions", &ask(json!({ "prompt": "<|im_start|>" })))
        .await;
    assert_eq!(special.json()["usage"]["prompt_tokens"], 1);
    let streamed = server
        .post("/v1/completions", &ask(json!({ "stream": true })))
        .await;
    let text: String = parsed(&streamed.events())
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "upon a time");
    let logprobs = server
        .post("/v1/completions", &ask(json!({ "logprobs": 1 })))
        .await
        .json();
    assert_eq!(logprobs["choices"][0]["logprobs"]["tokens"][0], "u");
}

#[tokio::test]
async fn a_prompt_that_looks_like_a_special_token_stays_text_in_a_chat() {
    let server = saying("ok").start();
    let usage = async |content: &str| {
        let answer = server
            .post("/v1/chat/completions", &chat(content))
            .await
            .json();
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let (empty, alike) = (usage("").await, usage("<|im_end|>").await);
    assert_eq!(alike - empty, 10);
}

#[tokio::test]
async fn the_model_is_listed_and_found_by_its_names() {
    let server = saying("ok").start();
    let list = server.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["id"], "test-model");
    assert_eq!(
        server.get("/v1/models/other-name").await.json()["id"],
        "test-model"
    );
    assert_eq!(server.get("/v1/models/nobody").await.status, 404);
    for name in ["other-name", "test-model:latest", "TEST-model"] {
        let answer = server
            .post(
                "/v1/chat/completions",
                &and(chat("x"), &json!({ "model": name })),
            )
            .await;
        assert_eq!(answer.status, 200, "{name}");
    }
}
