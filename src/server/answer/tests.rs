//! The same pieces in each dialect.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::wire::{ndjson, sse};

fn heading() -> Heading {
    Heading {
        id: "x".into(),
        created: 7,
        model: "m".into(),
    }
}

fn end(calls_tools: bool) -> End {
    End {
        reason: FinishReason::Stop,
        calls_tools,
        usage: Usage {
            prompt_tokens: 5,
            reused_tokens: 3,
            completion_tokens: 2,
        },
        timings: Timings {
            queue: Duration::ZERO,
            prefill: Duration::from_nanos(9),
            decode: Duration::ZERO,
        },
    }
}

fn text(text: &str) -> Piece {
    Piece::Text {
        text: text.into(),
        tokens: Vec::new(),
    }
}

fn call() -> [Piece; 3] {
    [
        Piece::CallStart {
            index: 0,
            id: "call_0".into(),
            name: "f".into(),
        },
        Piece::CallArguments {
            index: 0,
            fragment: "{\"a\":".into(),
        },
        Piece::CallArguments {
            index: 0,
            fragment: "1}".into(),
        },
    ]
}

fn render<R: Render>(
    mut renderer: R,
    pieces: impl IntoIterator<Item = Piece>,
    end: &End,
) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces {
        all.extend_from_slice(&renderer.piece(piece));
    }
    all.extend_from_slice(&renderer.end(end));
    all
}

fn events(bytes: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    sse::Decoder::new().push(bytes, &mut events).unwrap();
    assert_eq!(events.pop().unwrap().data, "[DONE]");
    events
        .iter()
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .collect()
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let mut lines = Vec::new();
    ndjson::Decoder::new().push(bytes, &mut lines).unwrap();
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_chat_stream_has_the_role_once_then_text_then_the_reason_then_the_usage() {
    let chunks = ChatChunks::new(heading(), true, false);
    let events = events(&render(
        chunks,
        [text("Hel"), text(""), text("lo")],
        &end(false),
    ));
    assert_eq!(events.len(), 5);
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({ "role": "assistant", "content": "" })
    );
    assert_eq!(
        events[1]["choices"][0]["delta"],
        json!({ "content": "Hel" })
    );
    assert_eq!(events[2]["choices"][0]["delta"], json!({ "content": "lo" }));
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[4]["choices"], json!([]));
    assert_eq!(
        events[4]["usage"]["prompt_tokens_details"]["cached_tokens"],
        3
    );
    assert_eq!(events[4]["usage"]["total_tokens"], 7);
}

#[test]
fn tool_calls_are_streamed_with_name_first_and_arguments_in_pieces() {
    let chunks = ChatChunks::new(heading(), false, false);
    let events = events(&render(chunks, call(), &end(true)));
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"].get("tool_calls"))
        .map(|calls| &calls[0])
        .collect();
    assert_eq!(calls[0]["id"], "call_0");
    assert_eq!(
        calls[0]["function"],
        json!({ "name": "f", "arguments": "" })
    );
    assert_eq!(calls[1]["function"], json!({ "arguments": "{\"a\":" }));
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[test]
fn ollama_gets_calls_whole_and_counts_in_the_last_line() {
    let renderer = OllamaLines::new(OllamaShape::Chat, "m".into(), || Duration::ZERO);
    let lines = lines(&render(
        renderer,
        [text("ok")].into_iter().chain(call()),
        &end(true),
    ));
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["message"]["content"], "ok");
    assert_eq!(
        lines[1]["message"]["tool_calls"][0]["function"]["arguments"],
        json!({ "a": 1 })
    );
    assert_eq!(lines[2]["done"], true);
    assert_eq!(lines[2]["done_reason"], "stop");
    assert_eq!(lines[2]["prompt_eval_count"], 5);
    assert_eq!(lines[2]["prompt_eval_duration"], 9);
    assert_eq!(lines[0]["created_at"], "1970-01-01T00:00:00.000000000Z");
}

#[test]
fn a_call_that_was_cut_is_not_lost_in_ollamas_shape() {
    let renderer = OllamaLines::new(OllamaShape::Chat, "m".into(), || Duration::ZERO);
    let [start, half, _] = call();
    let lines = lines(&render(renderer, [start, half], &end(true)));
    assert_eq!(
        lines[0]["message"]["content"],
        "{\"name\": \"f\", \"arguments\": {\"a\":"
    );
}

#[test]
fn an_echoed_prompt_comes_first_even_when_the_answer_is_empty() {
    let chunks = || CompletionChunks::new(heading(), false, false, Some("Once ".into()));
    let events_of = |pieces: Vec<Piece>| events(&render(chunks(), pieces, &end(false)));
    assert_eq!(
        events_of(vec![text("upon")])[0]["choices"][0]["text"],
        "Once upon"
    );
    assert_eq!(events_of(Vec::new())[0]["choices"][0]["text"], "Once ");
}

#[test]
fn log_probabilities_have_text_bytes_and_alternatives() {
    let tokens = vec![TokenLogprob {
        token: 1,
        bytes: vec![0xe2, 0x82],
        logprob: -0.5,
        top: vec![(2, b"x".to_vec(), -0.1)],
    }];
    let piece = Piece::Text {
        text: String::new(),
        tokens,
    };
    let events = events(&render(
        ChatChunks::new(heading(), false, true),
        [piece],
        &end(false),
    ));
    let entry = &events[1]["choices"][0]["logprobs"]["content"][0];
    assert_eq!(entry["bytes"], json!([0xe2, 0x82]));
    assert_eq!(entry["top_logprobs"][0]["token"], "x");
}
