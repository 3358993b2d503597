use bytes::Bytes;

use super::*;

fn wanted(api: Api, body: &Value) -> Result<Wanted, ApiError> {
    Wanted::read(&Ask::read(api, None, Bytes::from(body.to_string()), "m").unwrap())
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn an_openai_chat_keeps_its_options_and_openais_defaults() {
    let read = wanted(
        Api::Chat,
        &json!({ "model": "m", "messages": user("hi"), "max_tokens": 9, "temperature": 0,
                 "stop": "END", "seed": 7, "top_k": 3 }),
    )
    .unwrap();
    assert_eq!(read.max_tokens(), Some(9));
    let options = serde_json::to_value(&read.options).unwrap();
    assert_eq!(
        options,
        json!({ "num_predict": 9, "temperature": 0.0, "top_k": 3, "top_p": 1.0, "min_p": 0.0,
                "repeat_penalty": 1.0, "seed": 7, "stop": ["END"] })
    );
    assert_eq!(
        read.input,
        Input::Chat(vec![ChatMessage::new("user", "hi")])
    );
}

#[test]
fn what_the_fallback_cannot_do_is_named_not_dropped() {
    let chat = |extra: Value| {
        let mut body = json!({ "messages": user("hi") });
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        wanted(Api::Chat, &body)
            .unwrap()
            .impossible()
            .map(str::to_owned)
    };
    assert!(
        chat(json!({ "logprobs": true }))
            .unwrap()
            .contains("log-probabilities")
    );
    assert!(chat(json!({ "n": 2 })).unwrap().contains("one answer"));
    assert!(
        chat(json!({ "logit_bias": { "5": -100 } }))
            .unwrap()
            .contains("bias")
    );
    assert_eq!(
        chat(json!({ "n": 1, "logprobs": false, "logit_bias": {} })),
        None
    );
    let images = json!({ "model": "m", "prompt": "x", "images": ["aGk="] });
    assert!(
        wanted(Api::OllamaGenerate, &images)
            .unwrap()
            .impossible()
            .is_some()
    );
}

#[test]
fn a_schema_and_a_forced_call_cannot_be_continued() {
    let schema = json!({ "messages": user("hi"), "response_format":
        { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } } });
    let read = wanted(Api::Chat, &schema).unwrap();
    assert_eq!(read.format, Some(json!({ "type": "object" })));
    assert!(
        read.promise_lost_by_continuing()
            .unwrap()
            .contains("format")
    );
    let tool = json!([{ "type": "function", "function": { "name": "f" } }]);
    let forced = json!({ "messages": user("hi"), "tools": tool, "tool_choice": "required" });
    let read = wanted(Api::Chat, &forced).unwrap();
    assert!(
        read.promise_lost_by_continuing()
            .unwrap()
            .contains("tool call")
    );
    let auto = json!({ "messages": user("hi"), "tools": tool });
    assert_eq!(
        wanted(Api::Chat, &auto)
            .unwrap()
            .promise_lost_by_continuing(),
        None
    );
}

#[test]
fn a_tool_choice_without_its_tool_is_a_mistake() {
    let body = json!({ "messages": user("hi"),
        "tool_choice": { "type": "function", "function": { "name": "f" } } });
    assert_eq!(
        wanted(Api::Chat, &body).unwrap_err().param.as_deref(),
        Some("tool_choice")
    );
}

#[test]
fn ollamas_prompt_is_a_user_message_unless_raw() {
    let body = json!({ "model": "m", "prompt": "p", "system": "s", "options": { "num_ctx": 9 } });
    let read = wanted(Api::OllamaGenerate, &body).unwrap();
    let messages = vec![
        ChatMessage::new("system", "s"),
        ChatMessage::new("user", "p"),
    ];
    assert_eq!(read.input, Input::Chat(messages));
    assert_eq!(
        read.options.num_ctx, None,
        "the client must not make Ollama load the model anew"
    );
    let raw = json!({ "model": "m", "prompt": "p", "raw": true });
    assert_eq!(
        wanted(Api::OllamaGenerate, &raw).unwrap().input,
        Input::Raw("p".into())
    );
    let template = json!({ "model": "m", "prompt": "p", "template": "{{ x }}" });
    assert_eq!(
        wanted(Api::OllamaGenerate, &template).unwrap_err().status(),
        400
    );
}

#[test]
fn content_parts_are_joined_and_images_named_by_their_path() {
    let parts = json!({ "messages": [{ "role": "user", "content": [
        { "type": "text", "text": "a" }, { "type": "text", "text": "b" } ] }] });
    let read = wanted(Api::Chat, &parts).unwrap();
    assert_eq!(
        read.input,
        Input::Chat(vec![ChatMessage::new("user", "ab")])
    );
    let image = json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] });
    let error = wanted(Api::Chat, &image).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[0].content[0].type"));
}

#[test]
fn calls_made_before_reach_the_template_as_objects() {
    let body = json!({ "messages": [{ "role": "assistant", "content": null, "tool_calls": [
        { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } }]},
        { "role": "tool", "tool_call_id": "c1", "content": "3" }] });
    let Input::Chat(messages) = wanted(Api::Chat, &body).unwrap().input else {
        panic!()
    };
    assert_eq!(messages[0].tool_calls[0].arguments, json!({ "a": 1 }));
    assert_eq!(messages[1].tool_call_id.as_deref(), Some("c1"));
}
