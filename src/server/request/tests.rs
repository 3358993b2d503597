//! What is refused, and which field the refusal names.

use serde_json::json;

use super::*;
use crate::wire::ApiError;

fn openai_chat(extra: &serde_json::Value) -> Result<Task, ApiError> {
    let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    openai::chat(crate::wire::json::parse(body.to_string().as_bytes())?)
}

fn ollama_chat(extra: &serde_json::Value) -> Result<Option<Task>, ApiError> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    ollama::chat(crate::wire::json::parse(body.to_string().as_bytes())?)
}

#[test]
fn values_out_of_range_name_their_field() {
    let function = json!({ "type": "function", "function": { "name": "f" } });
    let cases = [
        (json!({ "temperature": 2.5 }), "temperature"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_p": 1e30 }), "top_p"),
        (json!({ "presence_penalty": 3 }), "presence_penalty"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "n": 2 }), "n"),
        (json!({ "n": 0 }), "n"),
        (
            json!({ "logprobs": true, "top_logprobs": 21 }),
            "top_logprobs",
        ),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "stop": [""] }), "stop[0]"),
        (json!({ "stop": vec!["x"; 17] }), "stop"),
        (json!({ "logit_bias": { "x": 1 } }), "logit_bias.x"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias.1"),
        (json!({ "messages": [] }), "messages"),
        (
            json!({ "messages": [{ "role": "user" }] }),
            "messages[0].content",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": "http://169.254.169.254/" } }] }] }),
            "messages[0].content[0].type",
        ),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (
            json!({ "tools": [function], "tool_choice": { "type": "function", "function": { "name": "g" } } }),
            "tool_choice",
        ),
        (
            json!({ "tools": [function, function] }),
            "tools[1].function.name",
        ),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "a b" } }] }),
            "tools[0].function.name",
        ),
        (
            json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": 7 } }] }),
            "tools[0].function.parameters",
        ),
        (
            json!({ "tools": [function], "response_format": { "type": "json_object" } }),
            "response_format",
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x" } } }),
            "response_format.json_schema.schema",
        ),
        (json!({ "chat_template": "{{ 7 }}" }), "chat_template"),
        (
            json!({ "messages": [{ "role": "assistant", "tool_calls": [
                { "id": "a", "type": "function", "function": { "name": "f", "arguments": "[1]" } }] }] }),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ];
    for (extra, field) in cases {
        let error = openai_chat(&extra).map(|_| ()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field), "{extra}: {error}");
        assert!(error.message.starts_with(field), "{error}");
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn ollamas_defaults_are_ollamas() {
    let task = ollama_chat(&json!({})).unwrap().unwrap();
    let params = task.drawing.params;
    assert_eq!(
        (params.temperature, params.top_k, params.top_p),
        (0.8, 40, 0.9)
    );
    assert_eq!(
        (params.repetition_penalty, params.repetition_window),
        (1.1, Some(64))
    );
    assert_eq!(task.limit, Limit::Context);
    let task = ollama_chat(&json!({ "options": { "num_predict": 7, "seed": 1 } }))
        .unwrap()
        .unwrap();
    assert_eq!((task.limit, task.drawing.seed), (Limit::AtMost(7), Some(1)));
}

#[test]
fn ollamas_fields_are_checked_and_named() {
    for (extra, field) in [
        (json!({ "format": 7 }), "format"),
        (json!({ "format": "xml" }), "format"),
        (json!({ "think": true }), "think"),
        (
            json!({ "options": { "temperature": -1 } }),
            "options.temperature",
        ),
        (json!({ "options": { "stop": [""] } }), "options.stop[0]"),
        (
            json!({ "messages": [{ "role": "user", "content": "x", "images": ["aGk="] }] }),
            "messages[0].images",
        ),
    ] {
        let error = ollama_chat(&extra).map(|_| ()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field), "{extra}: {error}");
    }
}

#[test]
fn what_changes_nothing_is_tolerated() {
    let extra = json!({
        "keep_alive": "5m", "think": false, "format": "", "options": { "num_ctx": 9, "num_gpu": 1 },
    });
    assert!(ollama_chat(&extra).unwrap().is_some());
    assert!(ollama_chat(&json!({ "messages": [] })).unwrap().is_none());
    assert!(openai_chat(&json!({ "user": "me", "store": false, "n": 1, "tools": [] })).is_ok());
}

#[test]
fn a_schema_and_text_parts_are_taken_over() {
    let task = openai_chat(&json!({
        "messages": [{ "role": "developer", "content": [
            { "type": "text", "text": "a" }, { "type": "text", "text": "b" }] }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } },
    }))
    .unwrap();
    let Input::Chat(chat) = task.input else {
        panic!("a chat")
    };
    assert_eq!(chat.messages[0].role, "system");
    assert_eq!(chat.messages[0].content.as_deref(), Some("a\nb"));
    assert!(matches!(task.form, Form::JsonSchema { .. }));
}
