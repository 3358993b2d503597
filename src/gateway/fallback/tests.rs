use super::*;
use crate::gateway::ask::Ask;
use crate::gateway::endpoint::Api;
use crate::gateway::routes::UpstreamKind;

fn upstream() -> Upstream {
    Upstream {
        kind: UpstreamKind::Ollama,
        url: "http://127.0.0.1:1".into(),
        backend: "Ollama".into(),
        model: "inner".into(),
        context_tokens: Some(2048),
        api_key_file: None,
    }
}

fn wanted_by(api: Api, body: &Value) -> Wanted {
    let ask = Ask::read(api, None, Bytes::from(body.to_string()), "m").unwrap();
    Wanted::read(&ask).unwrap().unwrap()
}

fn wanted(extra: &Value) -> Wanted {
    let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    wanted_by(Api::Chat, &body)
}

fn template() -> PromptTemplate {
    PromptTemplate::new("{{ messages[0].content }}", "").unwrap()
}

fn sent(call: &Call<Reader>) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "f", "parameters":
        { "type": "object", "properties": { "x": { "type": "integer" } } } } },
        { "type": "function", "function": { "name": "g" } }])
}

#[test]
fn without_a_template_ollamas_own_is_used_and_nothing_can_be_continued() {
    let wanted = wanted(&json!({ "tools": tools(), "max_tokens": 5 }));
    let first = call(&wanted, &upstream(), None, None, 0).unwrap();
    assert_eq!(first.path, "/api/chat");
    let body = sent(&first);
    assert_eq!(body["model"], "inner");
    assert_eq!(body["options"]["num_ctx"], 2048);
    assert_eq!(body["tools"][0]["function"]["name"], "f");
    let so_far = SoFar {
        text: "Once",
        tokens_left: Some(4),
    };
    let error = call(&wanted, &upstream(), None, Some(so_far), 0).unwrap_err();
    assert_eq!(error.status(), 503);
}

#[test]
fn a_raw_prompt_is_continued_from_the_text_so_far_with_the_tokens_left() {
    let wanted = wanted_by(
        Api::Completion,
        &json!({ "prompt": "Once upon", "max_tokens": 9 }),
    );
    let so_far = SoFar {
        text: " a time",
        tokens_left: Some(6),
    };
    let call = call(&wanted, &upstream(), None, Some(so_far), 0).unwrap();
    let body = sent(&call);
    assert_eq!(
        (call.path, &body["prompt"]),
        ("/api/generate", &json!("Once upon a time"))
    );
    assert_eq!(
        (&body["raw"], &body["options"]["num_predict"]),
        (&json!(true), &json!(6))
    );
}

#[test]
fn a_forced_call_is_held_to_the_schema_of_the_tools_that_may_be_called() {
    let forced = wanted(&json!({ "tools": tools(),
        "tool_choice": { "type": "function", "function": { "name": "f" } } }));
    let mut call = call(&forced, &upstream(), Some(&template()), None, 0).unwrap();
    let body = sent(&call);
    assert_eq!(
        body["format"]["properties"]["name"],
        json!({ "const": "f" })
    );
    let line = |text: &str, done: bool| json!({ "response": text, "done": done }).to_string();
    assert_eq!(
        call.reader.line(&line("{\"name\":\"f\",", false)).unwrap(),
        []
    );
    assert_eq!(
        call.reader
            .line(&line("\"arguments\":{\"x\":1}}", false))
            .unwrap(),
        []
    );
    let pieces = call.reader.line(&line("", true)).unwrap();
    assert_eq!(
        pieces[0],
        Piece::CallStart {
            index: 0,
            name: "f".into()
        }
    );
    assert_eq!(
        pieces[1],
        Piece::CallArguments {
            index: 0,
            fragment: "{\"x\":1}".into()
        }
    );
    assert!(matches!(
        pieces[2],
        Piece::End {
            reason: FinishReason::ToolCalls,
            ..
        }
    ));
}

#[test]
fn a_forced_call_that_was_not_completed_is_a_failure_not_an_answer() {
    let forced = wanted(&json!({ "tools": tools(), "tool_choice": "required" }));
    let without_template = call(&forced, &upstream(), None, None, 0).unwrap_err();
    assert_eq!(without_template.status(), 503);
    let mut call = call(&forced, &upstream(), Some(&template()), None, 0).unwrap();
    assert_eq!(sent(&call)["format"]["anyOf"].as_array().unwrap().len(), 2);
    let cut = json!({ "response": "{\"name\":", "done": true, "done_reason": "length" });
    assert!(call.reader.line(&cut.to_string()).is_err());
}

#[test]
fn promises_the_fallback_cannot_keep_are_refused() {
    let wanted = wanted(&json!({ "logprobs": true }));
    let error = call(&wanted, &upstream(), None, None, 0).unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.message.contains("log-probabilities"));
}

#[test]
fn calls_found_by_ollama_itself_are_passed_on() {
    let mut reader = Reader::new(Tools::None, &wanted(&json!({})));
    let line = json!({ "message": { "role": "assistant", "content": "", "tool_calls": [
        { "function": { "name": "f", "arguments": { "x": 1 } } }] }, "done": false });
    let pieces = reader.line(&line.to_string()).unwrap();
    assert_eq!(
        pieces[0],
        Piece::CallStart {
            index: 0,
            name: "f".into()
        }
    );
    let end = json!({ "message": { "role": "assistant", "content": "" }, "done": true,
        "done_reason": "stop", "eval_count": 4 });
    let pieces = reader.line(&end.to_string()).unwrap();
    assert!(
        matches!(&pieces[..], [Piece::End { reason: FinishReason::ToolCalls, counts }] if counts.eval_count == Some(4))
    );
}

#[test]
fn errors_and_nonsense_are_told_apart() {
    let mut reader = Reader::new(Tools::None, &wanted(&json!({})));
    let reported = reader
        .line(r#"{"error":"llama runner process has terminated"}"#)
        .unwrap_err();
    assert_eq!(
        reported,
        NotAChunk::Failure("llama runner process has terminated".into())
    );
    assert!(matches!(
        reader.line("<html>").unwrap_err(),
        NotAChunk::Garbage(_)
    ));
    assert!(matches!(
        reader.line(r#"{"response":"x"}"#).unwrap_err(),
        NotAChunk::Garbage(_)
    ));
}

#[test]
fn one_call_at_a_time_means_one_call() {
    let wanted = wanted(&json!({ "tools": tools(), "parallel_tool_calls": false }));
    let mut reader = Reader::new(Tools::None, &wanted);
    let call = |name: &str| json!({ "function": { "name": name, "arguments": {} } });
    let line = json!({ "message": { "role": "assistant", "content": "",
        "tool_calls": [call("f"), call("g")] }, "done": false });
    assert_eq!(
        reader.line(&line.to_string()).unwrap().len(),
        2,
        "start and arguments of one"
    );
}

#[test]
fn a_prompt_that_does_not_fit_is_to_fail_not_to_lose_its_beginning() {
    let call = call(&wanted(&json!({})), &upstream(), Some(&template()), None, 0).unwrap();
    let body = sent(&call);
    assert_eq!(
        (&body["truncate"], &body["shift"]),
        (&json!(false), &json!(false))
    );
}
