use serde_json::json;

use super::*;

fn wanted(api: Api, body: &Value) -> Result<Wanted, ApiError> {
    let ask = Ask::read(api, None, Bytes::from(body.to_string()), "m").unwrap();
    Wanted::read(&ask).map(Option::unwrap)
}

fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn openais_defaults_are_said_since_ollamas_are_others() {
    let read = wanted(
        Api::Chat,
        &json!({ "model": "m", "messages": user("hi"), "max_tokens": 9, "temperature": 0,
                 "stop": "END", "seed": 7, "top_k": 3 }),
    )
    .unwrap();
    assert_eq!(read.max_tokens(), Some(9));
    let options = serde_json::to_value(read.options(None).unwrap()).unwrap();
    assert_eq!(
        options,
        json!({ "num_predict": 9, "temperature": 0.0, "top_k": 3, "top_p": 1.0, "min_p": 0.0,
                "repeat_penalty": 1.0, "repeat_last_n": -1, "presence_penalty": 0.0,
                "frequency_penalty": 0.0, "seed": 7, "stop": ["END"] })
    );
    assert_eq!(
        read.chat().unwrap().messages[0].content.as_deref(),
        Some("hi")
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
            .unwrap_or("nothing")
    };
    assert!(chat(json!({ "logprobs": true })).contains("log-probabilities"));
    assert!(chat(json!({ "logit_bias": { "5": -100 } })).contains("bias"));
    assert_eq!(
        chat(json!({ "n": 1, "logprobs": false, "logit_bias": {} })),
        "nothing"
    );
    let completion = |body: Value| wanted(Api::Completion, &body).unwrap().impossible();
    assert!(
        completion(json!({ "prompt": [1, 2] }))
            .unwrap()
            .contains("text only")
    );
    assert!(
        completion(json!({ "prompt": "x", "echo": true }))
            .unwrap()
            .contains("echo")
    );
    assert_eq!(completion(json!({ "prompt": "x" })), None);
}

#[test]
fn a_schema_and_a_forced_call_cannot_be_continued() {
    let schema = json!({ "messages": user("hi"), "response_format":
        { "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "object" } } } });
    let read = wanted(Api::Chat, &schema).unwrap();
    assert_eq!(read.format(), Some(json!({ "type": "object" })));
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
fn a_mistake_gets_the_engines_own_answer() {
    let body = json!({ "messages": user("hi"), "temperature": 9 });
    let error = wanted(Api::Chat, &body).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("temperature"));
    let template = json!({ "model": "m", "prompt": "p", "template": "{{ x }}" });
    assert_eq!(
        wanted(Api::OllamaGenerate, &template).unwrap_err().status(),
        400
    );
}

#[test]
fn a_client_cannot_make_ollama_load_the_model_anew() {
    let body = json!({ "model": "m", "prompt": "p", "options": { "num_ctx": 9 } });
    assert_eq!(
        wanted(Api::OllamaGenerate, &body)
            .unwrap()
            .options(None)
            .unwrap()
            .num_ctx,
        None
    );
}

#[test]
fn an_empty_request_only_loads() {
    for (api, body) in [
        (Api::OllamaChat, json!({ "model": "m", "messages": [] })),
        (
            Api::OllamaGenerate,
            json!({ "model": "m", "keep_alive": 0 }),
        ),
    ] {
        let ask = Ask::read(api, None, Bytes::from(body.to_string()), "m").unwrap();
        assert!(Wanted::read(&ask).unwrap().is_none());
    }
}
