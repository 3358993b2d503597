//! What a client was promised is kept or openly broken: schemas, tool calls, log-probabilities.

use serde_json::{Value, json};

use super::upstream::{Act, Scripted, chunk, end, events, head, json as answer, ollama};
use super::{ANSWER, Via, nobody, reading, start, table};

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "weather", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } }])
}

/// An engine that breaks after two tokens.
async fn breaking() -> Scripted {
    Scripted::start(|_| {
        let all = events(Via::Chat, &ANSWER);
        let mut acts = vec![head(200, "text/event-stream")];
        acts.extend(all.tokens[..2].iter().map(|text| chunk(text)));
        acts.push(Act::Close);
        acts
    })
    .await
}

/// A fallback that says this, whatever it is asked.
async fn saying(pieces: &'static [&'static str]) -> Scripted {
    Scripted::start(move |_| {
        let mut acts = vec![head(200, "application/x-ndjson")];
        for piece in pieces {
            let line = json!({ "model": "x", "response": piece, "done": false });
            acts.push(chunk(&format!("{line}\n")));
        }
        let last = json!({ "model": "x", "response": "", "done": true, "done_reason": "stop",
            "prompt_eval_count": 3, "eval_count": 2 });
        acts.push(chunk(&format!("{last}\n")));
        acts.push(end());
        acts
    })
    .await
}

#[tokio::test]
async fn a_broken_stream_that_cannot_be_continued_honestly_ends_with_an_error_event() {
    let format = json!({ "type": "json_schema",
        "json_schema": { "name": "x", "schema": { "type": "object" } } });
    for (extra, word) in [
        (json!({ "response_format": format }), "format"),
        (
            json!({ "tools": tools(), "tool_choice": "required" }),
            "tool call",
        ),
        (json!({ "logprobs": true }), "log-probabilities"),
        (json!({ "logit_bias": { "5": 1.0 } }), "bias"),
    ] {
        let engine = breaking().await;
        let fallback = Scripted::start(ollama).await;
        let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
        let mut body = Via::Chat.body(true);
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let response = running
            .post("/v1/chat/completions", &body)
            .send()
            .await
            .unwrap();
        let read = reading::stream(Via::Chat, &response.text().await.unwrap());
        assert_eq!(read.text, ANSWER[..2].concat());
        let error = read
            .error
            .unwrap_or_else(|| panic!("{extra}: no error event"));
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
        assert!(read.finish.is_none() && fallback.asked().is_empty());
    }
}

#[tokio::test]
async fn a_broken_tool_call_is_not_glued_together() {
    let engine = Scripted::start(|_| {
        let event = json!({ "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": { "tool_calls": [{ "index": 0, "id": "c",
                "function": { "name": "weather", "arguments": "{\"ci" } }] } }] });
        vec![head(200, "text/event-stream"), chunk(&format!("data: {event}\n\n")), Act::Close]
    })
    .await;
    let fallback = Scripted::start(ollama).await;
    let running = start(table(Some(&engine.url), Some(&fallback.url))).await;
    let mut body = Via::Chat.body(true);
    body["tools"] = tools();
    let response = running
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap();
    let read = reading::stream(Via::Chat, &response.text().await.unwrap());
    let message = read.error.unwrap()["error"]["message"].to_string();
    assert!(message.contains("tool call"), "{message}");
}

#[tokio::test]
async fn a_tool_call_can_be_forced_from_a_fallback_that_knows_no_tool_choice() {
    for (via, path) in [(Via::Chat, "/v1/chat/completions")] {
        for stream in [true, false] {
            let fallback = saying(&[
                "{\"name\": \"weather\",",
                " \"arguments\": {\"city\": \"Paris\"}}",
            ])
            .await;
            let running = start(table(Some(&nobody()), Some(&fallback.url))).await;
            let mut body = via.body(stream);
            body["tools"] = tools();
            body["tool_choice"] = json!({ "type": "function", "function": { "name": "weather" } });
            let response = running.post(path, &body).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let text = response.text().await.unwrap();
            let read = if stream {
                reading::stream(via, &text)
            } else {
                reading::whole(via, &serde_json::from_str(&text).unwrap())
            };
            assert_eq!(read.finish.as_deref(), Some("tool_calls"), "{text}");
            let name: String = read
                .tool_calls
                .iter()
                .filter_map(|call| call["function"]["name"].as_str())
                .collect();
            let arguments: String = read
                .tool_calls
                .iter()
                .filter_map(|call| call["function"]["arguments"].as_str())
                .collect();
            assert_eq!(name, "weather");
            assert_eq!(arguments, "{\"city\":\"Paris\"}");
            assert!(
                read.tool_calls[0]["id"]
                    .as_str()
                    .unwrap()
                    .starts_with("call_")
            );
            let asked = fallback.asked().remove(0).body;
            assert_eq!(asked["format"]["properties"]["name"]["const"], "weather");
        }
    }
}

#[tokio::test]
async fn log_probabilities_are_not_silently_missing() {
    let fallback = Scripted::start(ollama).await;
    let running = start(table(Some(&nobody()), Some(&fallback.url))).await;
    let mut body = Via::Chat.body(false);
    body["logprobs"] = true.into();
    let response = running
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("log-probabilities")
    );
    assert!(fallback.asked().is_empty());
}

#[tokio::test]
async fn a_schema_reaches_the_fallback_in_every_api_that_has_one() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let openai = json!({ "model": "served", "messages": [{ "role": "user", "content": "x" }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema } } });
    let chat = json!({ "model": "served", "messages": [{ "role": "user", "content": "x" }],
        "format": schema, "stream": false });
    let generate = json!({ "model": "served", "prompt": "x", "format": schema, "stream": false });
    for (path, body) in [
        ("/v1/chat/completions", openai),
        ("/api/chat", chat),
        ("/api/generate", generate),
    ] {
        let fallback = saying(&["{\"a\":", " 1}"]).await;
        let running = start(table(None, Some(&fallback.url))).await;
        let response = running.post(path, &body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(fallback.asked()[0].body["format"], schema, "{path}");
    }
}

#[tokio::test]
async fn without_a_template_the_fallback_uses_its_own_and_a_break_is_told() {
    let engine = breaking().await;
    let fallback = Scripted::start(|request| {
        if request.path == "/api/chat" {
            let line = json!({ "model": "x", "message": { "role": "assistant", "content": "hi" },
                "done": true, "done_reason": "stop" });
            return vec![head(200, "x"), chunk(&format!("{line}\n")), end()];
        }
        answer(404, &json!({ "error": "unexpected" }))
    })
    .await;
    let mut routes = table(Some(&engine.url), Some(&fallback.url));
    routes.gguf = Some("/nonexistent/model.gguf".into());
    let running = start(routes).await;
    let response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    let read = reading::stream(Via::Chat, &response.text().await.unwrap());
    assert!(
        read.error.unwrap()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("template")
    );
    // A request that begins at the fallback needs no template here.
    let mut routes = table(None, Some(&fallback.url));
    routes.gguf = Some("/nonexistent/model.gguf".into());
    running.gateway.set_routes(routes);
    let response = running
        .post("/v1/chat/completions", &Via::Chat.body(true))
        .send()
        .await
        .unwrap();
    assert_eq!(
        reading::stream(Via::Chat, &response.text().await.unwrap()).text,
        "hi"
    );
}
