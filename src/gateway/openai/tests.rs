use super::*;
use crate::gateway::ask::Ask;
use crate::gateway::endpoint::Api;
use crate::gateway::routes::UpstreamKind;

fn upstream() -> Upstream {
    Upstream {
        kind: UpstreamKind::OpenAi,
        url: "http://127.0.0.1:1".into(),
        backend: "Image".into(),
        model: "inner".into(),
        context_tokens: None,
        api_key_file: None,
    }
}

fn wanted(api: Api, body: &Value) -> Wanted {
    let ask = Ask::read(api, None, Bytes::from(body.to_string()), "m").unwrap();
    Wanted::read(&ask).unwrap().unwrap()
}

fn sent(call: &Call<Reader>) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

fn of_ollama(extra: &Value) -> Wanted {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    wanted(Api::OllamaChat, &body)
}

#[test]
fn a_chat_in_ollamas_api_becomes_a_chat_in_openais() {
    let wanted = of_ollama(&json!({
        "options": { "temperature": 0.5, "num_predict": 7, "stop": ["x"], "top_k": 0, "repeat_penalty": 1.0 },
        "format": { "type": "object" },
    }));
    let call = call(&wanted, &upstream(), None, None, 0).unwrap();
    assert_eq!(call.path, "/v1/chat/completions");
    let body = sent(&call);
    assert_eq!(body["model"], "inner");
    assert_eq!(
        body["messages"],
        json!([{ "role": "user", "content": "hi" }])
    );
    assert_eq!(
        (&body["temperature"], &body["max_tokens"]),
        (&json!(0.5), &json!(7))
    );
    assert_eq!(body["stop"], json!(["x"]));
    assert_eq!(
        body["response_format"]["json_schema"]["schema"],
        json!({ "type": "object" })
    );
    assert_eq!(body["stream_options"]["include_usage"], true);
    for absent in ["top_k", "repetition_penalty", "tools", "num_ctx"] {
        assert!(body.get(absent).is_none(), "{absent} in {body}");
    }
}

#[test]
fn results_of_tools_name_the_calls_they_answer() {
    let call_of = |name: &str| json!({ "function": { "name": name, "arguments": { "x": 1 } } });
    let wanted = wanted(
        Api::OllamaChat,
        &json!({ "model": "m", "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": "", "tool_calls": [call_of("f"), call_of("g")] },
            { "role": "tool", "content": "1", "tool_name": "f" },
            { "role": "tool", "content": "2", "tool_name": "g" },
        ]}),
    );
    let body = sent(&call(&wanted, &upstream(), None, None, 0).unwrap());
    let messages = body["messages"].as_array().unwrap();
    for (result, index) in [(2, 0), (3, 1)] {
        let id = &messages[1]["tool_calls"][index]["id"];
        assert!(id.is_string());
        assert_eq!(&messages[result]["tool_call_id"], id);
    }
    assert_eq!(
        messages[1]["tool_calls"][0]["function"]["arguments"],
        "{\"x\":1}"
    );
}

#[test]
fn an_answer_is_continued_behind_the_rendered_prompt_or_not_at_all() {
    let wanted = of_ollama(&json!({}));
    let so_far = SoFar {
        text: "Once",
        tokens_left: Some(4),
    };
    let error = call(&wanted, &upstream(), None, Some(so_far), 0).unwrap_err();
    assert_eq!(error.status(), 503);
    let template = PromptTemplate::new("<{{ messages[0].content }}>", "").unwrap();
    let call = call(&wanted, &upstream(), Some(&template), Some(so_far), 0).unwrap();
    assert_eq!(call.path, "/v1/completions");
    let body = sent(&call);
    assert_eq!(
        (&body["prompt"], &body["max_tokens"]),
        (&json!("<hi>Once"), &json!(4))
    );
}

#[test]
fn the_counts_that_follow_the_end_are_told_with_it() {
    let mut reader = Reader::default();
    let chunk = |delta: &Value, reason: Option<&str>| {
        json!({ "id": "1", "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
            .to_string()
    };
    let first = reader.line(&chunk(
        &json!({ "role": "assistant", "content": "a" }),
        None,
    ));
    assert_eq!(first.unwrap(), [Piece::Text("a".into())]);
    assert_eq!(reader.line(&chunk(&json!({}), Some("length"))).unwrap(), []);
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 } });
    assert_eq!(reader.line(&usage.to_string()).unwrap(), []);
    let end = reader.line("[DONE]").unwrap();
    assert!(
        matches!(&end[..], [Piece::End { reason: FinishReason::Length, counts }]
            if counts.eval_count == Some(1) && counts.prompt_eval_count == Some(3))
    );
}

#[test]
fn calls_are_passed_on_piece_by_piece() {
    let mut reader = Reader::default();
    let call = |function: Value| {
        json!({ "choices": [{ "delta": { "tool_calls": [{ "index": 0, "function": function }] } }] })
            .to_string()
    };
    let start = reader
        .line(&call(json!({ "name": "f", "arguments": "" })))
        .unwrap();
    assert_eq!(
        start,
        [Piece::CallStart {
            index: 0,
            name: "f".into()
        }]
    );
    let more = reader
        .line(&call(json!({ "arguments": "{\"x\":" })))
        .unwrap();
    assert_eq!(
        more,
        [Piece::CallArguments {
            index: 0,
            fragment: "{\"x\":".into()
        }]
    );
    let reason = json!({ "choices": [{ "delta": {}, "finish_reason": "tool_calls" }] });
    assert_eq!(reader.line(&reason.to_string()).unwrap(), []);
    let end = reader.line("[DONE]").unwrap();
    assert!(matches!(
        &end[..],
        [Piece::End {
            reason: FinishReason::ToolCalls,
            ..
        }]
    ));
}

#[test]
fn a_stream_that_stops_without_a_reason_has_no_end() {
    let mut reader = Reader::default();
    let text = json!({ "choices": [{ "text": "a", "index": 0 }] });
    assert_eq!(
        reader.line(&text.to_string()).unwrap(),
        [Piece::Text("a".into())]
    );
    assert_eq!(reader.line("[DONE]").unwrap(), []);
    assert_eq!(
        reader
            .line(r#"{"error":{"message":"out of memory"}}"#)
            .unwrap_err(),
        NotAChunk::Failure("out of memory".into())
    );
    assert!(matches!(
        reader.line("<html>").unwrap_err(),
        NotAChunk::Garbage(_)
    ));
}
