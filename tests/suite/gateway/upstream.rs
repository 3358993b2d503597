//! An HTTP server that does exactly what a script says, byte for byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::{ANSWER, Via};

/// One thing to do on a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Send these bytes.
    Send(String),
    /// Wait until the client goes away.
    Hang,
    /// Wait until [`Scripted::open_gate`].
    Gate,
    /// Close with FIN.
    Close,
    /// Close with RST.
    Reset,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub path: String,
    pub head: String,
    pub body: Value,
}

type Script = Arc<dyn Fn(&Recorded) -> Vec<Act> + Send + Sync>;

/// See the module. Ends when dropped.
pub struct Scripted {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Recorded>>>,
    /// Clients that went away while the script waited.
    pub gone: Arc<AtomicUsize>,
    gate: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// A server that answers each request with the acts of `script`.
    pub async fn start(script: impl Fn(&Recorded) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub fn on(
        listener: TcpListener,
        script: impl Fn(&Recorded) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let gone = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let shared = (Arc::clone(&requests), Arc::clone(&gone), Arc::clone(&gate));
        let script: Script = Arc::new(script);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, gone, gate) = shared.clone();
                let script = Arc::clone(&script);
                connections.spawn(async move {
                    connection(stream, script, requests, gone, gate).await;
                });
            }
        });
        Self {
            url,
            requests,
            gone,
            gate,
            task,
        }
    }

    /// The requests for text, without probes.
    pub fn asked(&self) -> Vec<Recorded> {
        let all = self.requests.lock().unwrap();
        all.iter()
            .filter(|request| request.head.starts_with("POST"))
            .cloned()
            .collect()
    }

    pub fn clients_gone(&self) -> usize {
        self.gone.load(Ordering::SeqCst)
    }

    pub fn open_gate(&self) {
        self.gate.notify_one();
    }
}

async fn connection(
    mut stream: TcpStream,
    script: Script,
    requests: Arc<Mutex<Vec<Recorded>>>,
    gone: Arc<AtomicUsize>,
    gate: Arc<Notify>,
) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request.clone());
        for act in script(&request) {
            match act {
                Act::Send(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        gone.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
                Act::Hang => {
                    wait_for_end(&mut stream).await;
                    gone.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Act::Gate => tokio::select! {
                    () = gate.notified() => {}
                    () = wait_for_end(&mut stream) => {
                        gone.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                },
                Act::Close => return,
                Act::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

async fn wait_for_end(stream: &mut TcpStream) {
    let mut byte = [0];
    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
}

async fn read_request(stream: &mut TcpStream) -> Option<Recorded> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0_usize);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let body = serde_json::from_slice(&bytes[head_end..]).unwrap_or(Value::Null);
    Some(Recorded { path, head, body })
}

/// The head of a chunked answer.
pub fn head(status: u16, kind: &str) -> Act {
    Act::Send(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    ))
}

/// A chunk of a chunked answer.
pub fn chunk(text: &str) -> Act {
    Act::Send(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// The end of a chunked answer.
pub fn end() -> Act {
    Act::Send("0\r\n\r\n".into())
}

/// A whole answer.
pub fn json(status: u16, body: &Value) -> Vec<Act> {
    json_with(status, "", body)
}

pub fn json_with(status: u16, headers: &str, body: &Value) -> Vec<Act> {
    let body = body.to_string();
    let length = body.len();
    vec![Act::Send(format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    ))]
}

/// The events with which an engine answers: greeting, tokens, end.
pub struct Events {
    pub greeting: Option<String>,
    pub tokens: Vec<String>,
    pub finish: Vec<String>,
    pub done: Option<String>,
}

/// An engine's events for `tokens`.
pub fn events(via: Via, tokens: &[&str]) -> Events {
    let frame = |value: &Value| {
        if via.is_sse() {
            format!("data: {value}\n\n")
        } else {
            format!("{value}\n")
        }
    };
    let chat = |delta: Value, finish: Value| {
        json!({ "id": "chatcmpl-engine", "object": "chat.completion.chunk", "created": 1_234,
            "model": "served", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
    };
    let text = |text: &str| match via {
        Via::Chat => chat(json!({ "content": text }), Value::Null),
        Via::Completion => json!({ "id": "cmpl-engine", "object": "text_completion",
            "created": 1_234, "model": "served",
            "choices": [{ "index": 0, "text": text, "finish_reason": null }] }),
        Via::OllamaChat => json!({ "model": "served", "created_at": "t", "done": false,
            "message": { "role": "assistant", "content": text } }),
        Via::OllamaGenerate => {
            json!({ "model": "served", "created_at": "t", "done": false, "response": text })
        }
        Via::Plain => json!({ "response": text, "done": false }),
    };
    let usage =
        json!({ "prompt_tokens": 7, "completion_tokens": tokens.len(), "total_tokens": 12 });
    let finish = match via {
        Via::Chat => {
            let mut last = chat(json!({}), Value::Null);
            last["choices"] = json!([]);
            last["usage"] = usage;
            vec![chat(json!({}), json!("stop")), last]
        }
        Via::Completion => {
            let mut finish = text("");
            finish["choices"][0]["finish_reason"] = json!("stop");
            finish["usage"] = usage;
            vec![finish]
        }
        Via::OllamaChat | Via::OllamaGenerate => {
            let mut last = text("");
            last["done"] = json!(true);
            last["done_reason"] = json!("stop");
            last["eval_count"] = json!(tokens.len());
            vec![last]
        }
        Via::Plain => {
            vec![json!({ "response": "", "done": true, "finish_reason": "stop", "usage": usage })]
        }
    };
    Events {
        greeting: (via == Via::Chat).then(|| {
            frame(&chat(
                json!({ "role": "assistant", "content": "" }),
                Value::Null,
            ))
        }),
        tokens: tokens.iter().map(|token| frame(&text(token))).collect(),
        finish: finish.iter().map(&frame).collect(),
        done: matches!(via, Via::Chat | Via::Completion).then(|| "data: [DONE]\n\n".to_owned()),
    }
}

/// All of an engine's answer.
pub fn whole_stream(via: Via) -> Vec<Act> {
    let events = events(via, &ANSWER);
    let mut acts = vec![head(200, "text/event-stream")];
    acts.extend(events.greeting.iter().map(|text| chunk(text)));
    acts.extend(events.tokens.iter().map(|text| chunk(text)));
    acts.extend(events.finish.iter().map(|text| chunk(text)));
    acts.extend(events.done.iter().map(|text| chunk(text)));
    acts.push(end());
    acts
}

/// The answer to a chat, which waits at a gate after so many tokens.
pub fn gated_after(tokens: usize) -> Vec<Act> {
    let all = events(Via::Chat, &ANSWER);
    let mut acts = vec![head(200, "text/event-stream")];
    for (index, token) in all.tokens.iter().enumerate() {
        if index == tokens {
            acts.push(Act::Gate);
        }
        acts.push(chunk(token));
    }
    acts.extend(all.finish.iter().chain(&all.done).map(|text| chunk(text)));
    acts.push(end());
    acts
}

/// A fallback that knows the answer and goes on from whatever part of it the prompt ends with.
pub fn ollama(request: &Recorded) -> Vec<Act> {
    if request.head.starts_with("GET") {
        return json(200, &json!({ "version": "0.12.6" }));
    }
    assert_eq!(request.path, "/api/generate");
    assert_eq!(request.body["raw"], true);
    assert_eq!(request.body["model"], super::INNER);
    let prompt = request.body["prompt"].as_str().unwrap();
    let known = (0..=ANSWER.len())
        .rev()
        .find(|known| prompt.ends_with(&ANSWER[..*known].concat()))
        .unwrap();
    let mut acts = vec![head(200, "application/x-ndjson")];
    for token in &ANSWER[known..] {
        let line =
            json!({ "model": super::INNER, "created_at": "t", "response": token, "done": false });
        acts.push(chunk(&format!("{line}\n")));
    }
    let last = json!({ "model": super::INNER, "created_at": "t", "response": "", "done": true,
        "done_reason": "stop", "prompt_eval_count": 20 + known, "eval_count": ANSWER.len() - known });
    acts.push(chunk(&format!("{last}\n")));
    acts.push(end());
    acts
}
