//! What a client makes of an answer.

use serde_json::Value;

use super::Via;

/// An answer as its reader sees it.
#[derive(Debug, Default)]
pub struct Read {
    pub text: String,
    pub finish: Option<String>,
    /// The stream ended the way its API says.
    pub closed: bool,
    pub error: Option<Value>,
    pub comments: Vec<String>,
    /// The field that marks a continued answer.
    pub mark: Option<Value>,
    pub ids: Vec<String>,
    pub usage: Option<Value>,
    pub tool_calls: Vec<Value>,
    pub models: Vec<String>,
}

/// Reads a whole stream; fails on anything that is not in its framing.
pub fn stream(via: Via, body: &str) -> Read {
    let mut read = Read::default();
    assert!(
        body.ends_with('\n'),
        "{via:?}: a broken last event: {body:?}"
    );
    if via.is_sse() {
        for event in body.split("\n\n").filter(|event| !event.is_empty()) {
            if let Some(comment) = event.strip_prefix(": ") {
                read.comments.push(comment.to_owned());
                continue;
            }
            let data = event
                .strip_prefix("data: ")
                .unwrap_or_else(|| panic!("event {event:?}"));
            assert!(!read.closed, "{via:?}: something after the end: {data}");
            if data == "[DONE]" {
                read.closed = true;
                continue;
            }
            take(&mut read, via, &serde_json::from_str(data).unwrap());
        }
    } else {
        for line in body.lines() {
            assert!(!read.closed, "{via:?}: something after the end: {line}");
            take(&mut read, via, &serde_json::from_str(line).unwrap());
        }
    }
    read
}

/// Reads an answer that is no stream.
pub fn whole(via: Via, body: &Value) -> Read {
    let mut read = Read {
        closed: true,
        ..Read::default()
    };
    match via {
        Via::Chat => {
            let choice = &body["choices"][0];
            read.text = String::from(choice["message"]["content"].as_str().unwrap_or_default());
            read.finish = choice["finish_reason"].as_str().map(str::to_owned);
            read.usage = Some(body["usage"].clone());
            if let Some(calls) = choice["message"]["tool_calls"].as_array() {
                read.tool_calls.clone_from(calls);
            }
            assert_eq!(body["object"], "chat.completion");
        }
        Via::Completion => {
            read.text = String::from(body["choices"][0]["text"].as_str().unwrap());
            read.finish = body["choices"][0]["finish_reason"]
                .as_str()
                .map(str::to_owned);
            read.usage = Some(body["usage"].clone());
        }
        Via::OllamaChat => {
            read.text = String::from(body["message"]["content"].as_str().unwrap());
            read.finish = body["done_reason"].as_str().map(str::to_owned);
            assert_eq!(body["done"], true);
        }
        Via::OllamaGenerate => {
            read.text = String::from(body["response"].as_str().unwrap());
            read.finish = body["done_reason"].as_str().map(str::to_owned);
            assert_eq!(body["done"], true);
        }
        Via::Plain => {
            read.text = String::from(body["response"].as_str().unwrap());
            read.finish = body["finish_reason"].as_str().map(str::to_owned);
        }
    }
    read
}

fn take(read: &mut Read, via: Via, event: &Value) {
    if event.get("error").is_some() {
        read.error = Some(event.clone());
        return;
    }
    if let Some(mark) = event.get("enginewright") {
        assert!(read.mark.is_none(), "marked twice");
        read.mark = Some(mark.clone());
    }
    if let Some(id) = event["id"].as_str() {
        read.ids.push(id.to_owned());
    }
    if let Some(model) = event["model"].as_str() {
        read.models.push(model.to_owned());
    }
    if event["usage"].is_object() {
        read.usage = Some(event["usage"].clone());
    }
    let (text, finish) = match via {
        Via::Chat => {
            let choice = &event["choices"][0];
            if let Some(calls) = choice["delta"]["tool_calls"].as_array() {
                read.tool_calls.extend(calls.iter().cloned());
            }
            (&choice["delta"]["content"], &choice["finish_reason"])
        }
        Via::Completion => (
            &event["choices"][0]["text"],
            &event["choices"][0]["finish_reason"],
        ),
        Via::OllamaChat => (&event["message"]["content"], &event["done_reason"]),
        Via::OllamaGenerate => (&event["response"], &event["done_reason"]),
        Via::Plain => (&event["response"], &event["finish_reason"]),
    };
    read.text.push_str(text.as_str().unwrap_or_default());
    if let Some(finish) = finish.as_str() {
        assert!(read.finish.is_none(), "finished twice");
        read.finish = Some(finish.to_owned());
    }
    if event["done"] == true {
        read.closed = true;
    }
}
