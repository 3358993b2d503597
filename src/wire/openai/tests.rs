//! What clients send and read.

use serde_json::json;

use super::*;
use crate::wire::json::parse;

fn problem(body: &serde_json::Value) -> String {
    parse::<ChatCompletionRequest>(body.to_string().as_bytes())
        .unwrap_err()
        .to_string()
}

#[test]
fn wrong_types_are_named_by_their_path() {
    let message = json!({ "role": "user", "content": "hi" });
    let cases = [
        (
            json!({ "messages": [message], "max_tokens": -1 }),
            "max_tokens: ",
        ),
        (
            json!({ "messages": [message], "temperature": "hot" }),
            "temperature: ",
        ),
        (json!({ "messages": "hi" }), "messages: "),
        (
            json!({ "messages": [{ "role": "boss" }] }),
            "messages[0].role: unknown variant `boss`",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": 5 }] }),
            "messages[0].content: ",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "text": "x" }] }] }),
            "messages[0].content[0].type: is required",
        ),
        (
            json!({ "messages": [message], "stop": ["a", 1] }),
            "stop[1]: ",
        ),
        (json!({ "messages": [message], "stop": 1 }), "stop: "),
        (
            json!({ "messages": [message], "tools": [{ "type": "function" }] }),
            "tools[0].function",
        ),
        (
            json!({ "messages": [message], "tool_choice": "maybe" }),
            "tool_choice: ",
        ),
        (
            json!({ "messages": [message], "tool_choice": { "function": {} } }),
            "tool_choice",
        ),
        (
            json!({ "messages": [message], "logit_bias": { "5": "x" } }),
            "logit_bias.5: ",
        ),
        (
            json!({ "messages": [message], "response_format": { "type": "xml" } }),
            "response_format.type: ",
        ),
        (
            json!({ "messages": [message], "n": 99_999_999_999_u64 }),
            "n: ",
        ),
        (json!({}), "messages: is required"),
    ];
    for (body, expected) in cases {
        let problem = problem(&body);
        assert!(problem.starts_with(expected), "{body}: {problem}");
    }
}

#[test]
fn null_is_absence_and_unknown_fields_are_ignored() {
    let body = json!({
        "model": null, "messages": [{ "role": "assistant", "content": null, "tool_calls": [
            { "id": "call_1", "type": "function", "function": { "name": "f", "arguments": "{}" } },
        ]}],
        "tools": null, "stop": null, "stream": null, "user": "me", "store": true, "tool_choice": null,
    });
    let request: ChatCompletionRequest = parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(
        request.messages[0].tool_calls.as_ref().unwrap()[0]
            .function
            .name,
        "f"
    );
    assert_eq!(request.stop, None);
}

#[test]
fn tool_choice_is_read_and_written_in_both_forms() {
    for (text, choice) in [
        (
            json!("required"),
            ToolChoice::Mode(ToolChoiceMode::Required),
        ),
        (
            json!({ "type": "function", "function": { "name": "f" } }),
            ToolChoice::Function("f".into()),
        ),
    ] {
        assert_eq!(
            serde_json::from_value::<ToolChoice>(text.clone()).unwrap(),
            choice
        );
        assert_eq!(serde_json::to_value(&choice).unwrap(), text);
    }
}

#[test]
fn a_prompt_is_text_tokens_or_a_list_of_one_of_these() {
    let prompt = |value: serde_json::Value| {
        parse::<CompletionRequest>(json!({ "prompt": value }).to_string().as_bytes())
            .map(|request| request.prompt)
    };
    assert_eq!(prompt(json!("a")).unwrap(), Prompt::Text("a".into()));
    assert_eq!(prompt(json!([1, 2])).unwrap(), Prompt::Tokens(vec![1, 2]));
    assert_eq!(
        prompt(json!(["a"])).unwrap(),
        Prompt::Texts(vec!["a".into()])
    );
    assert_eq!(
        prompt(json!([[1], [2]])).unwrap(),
        Prompt::TokenLists(vec![vec![1], vec![2]])
    );
    assert!(
        prompt(json!([1, "a"]))
            .unwrap_err()
            .to_string()
            .starts_with("prompt")
    );
    assert!(
        prompt(json!({}))
            .unwrap_err()
            .to_string()
            .starts_with("prompt: ")
    );
    assert!(
        prompt(json!([-1]))
            .unwrap_err()
            .to_string()
            .starts_with("prompt")
    );
}

#[test]
fn a_chunk_of_another_server_is_read_when_optional_parts_are_missing() {
    let chunk: ChatChunk = serde_json::from_value(json!({
        "id": "x", "model": "m", "choices": [{ "delta": { "content": "hi" } }], "extra": 1,
    }))
    .unwrap();
    assert_eq!(chunk.choices[0].delta.content.as_deref(), Some("hi"));
    assert_eq!(chunk.choices[0].finish_reason, None);
}
