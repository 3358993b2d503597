//! The gateway in front of the real server and a real Ollama: the engine is killed again and again
//! under load, and no client notices more than a comment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use enginewright::gateway::routes::{RouteTable, Upstream, UpstreamKind};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tools::{self, Process, enginewright, free_address, model, wait_for};

const SERVED: &str = "smollm2";
const INNER: &str = "inner";
const START: Duration = Duration::from_mins(3);

/// Serve, Ollama and the gateway in front of them.
struct Rig {
    engine: SocketAddr,
    gateway: SocketAddr,
    ollama_url: String,
    _ollama: Process,
    gateway_process: Process,
    engine_process: Option<Process>,
    directory: tempfile::TempDir,
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn ready(address: SocketAddr, path: &str) {
    let client = reqwest_blocking();
    wait_for(&format!("{address}{path}"), START, || {
        client
            .status(&format!("http://{address}{path}"))
            .filter(|status| *status == 200)
    });
}

/// A blocking face for the asynchronous client.
struct Blocking {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

fn reqwest_blocking() -> Blocking {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_mins(10))
        .build()
        .unwrap();
    Blocking { runtime, client }
}

impl Blocking {
    fn status(&self, url: &str) -> Option<u16> {
        let request = async {
            self.client
                .get(url)
                .timeout(Duration::from_secs(2))
                .send()
                .await
        };
        let response = self.runtime.block_on(request).ok()?;
        Some(response.status().as_u16())
    }

    fn get(&self, url: &str) -> String {
        let body = async { self.client.get(url).send().await?.text().await };
        self.runtime.block_on(body).unwrap()
    }

    /// Status, back end and body.
    fn post(&self, url: &str, body: &Value) -> Result<(u16, String, String), reqwest::Error> {
        self.runtime.block_on(async {
            let response = self.client.post(url).json(body).send().await?;
            let backend = response
                .headers()
                .get("x-enginewright-backend")
                .and_then(|value| value.to_str().ok())
                .unwrap_or("absent")
                .to_owned();
            Ok((response.status().as_u16(), backend, response.text().await?))
        })
    }

    fn upload(&self, url: &str, bytes: Vec<u8>) -> u16 {
        let request = async { self.client.post(url).body(bytes).send().await };
        self.runtime.block_on(request).unwrap().status().as_u16()
    }
}

/// One thread each for engine and fallback: on a busy machine several threads of one computation
/// wait for each other more than they compute.
fn start_ollama(directory: &Path) -> (Process, String) {
    let address = free_address();
    let mut command = std::process::Command::new(tools::ollama());
    command
        .arg("serve")
        .env("OLLAMA_HOST", address.to_string())
        .env("OLLAMA_MODELS", directory.join("models"))
        .env("HOME", directory)
        .env("OLLAMA_KEEP_ALIVE", "-1")
        .env("OLLAMA_NUM_PARALLEL", "8")
        .env("OLLAMA_CONTEXT_LENGTH", "2048");
    let process = Process::start(command);
    ready(address, "/api/version");
    let client = reqwest_blocking();
    let bytes = std::fs::read(model()).unwrap();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    let blob = format!("{}/api/blobs/{digest}", url(address));
    assert!(client.upload(&blob, bytes) < 300);
    let create = json!({ "model": INNER, "files": { "model.gguf": digest }, "stream": false,
        "parameters": { "num_thread": 1 } });
    let (status, _, body) = client
        .post(&format!("{}/api/create", url(address)), &create)
        .unwrap();
    assert_eq!(status, 200, "{body}");
    let load = json!({ "model": INNER, "prompt": "hi", "raw": true, "stream": false,
        "options": { "num_predict": 1 } });
    let (status, _, body) = client
        .post(&format!("{}/api/generate", url(address)), &load)
        .unwrap();
    assert_eq!(status, 200, "{body}");
    (process, url(address))
}

fn start_engine(address: SocketAddr) -> Process {
    let mut command = enginewright([
        "serve",
        "--served-name",
        SERVED,
        "--slots",
        "8",
        "--threads",
        "1",
    ]);
    command.args([
        "--context",
        "1024",
        "--listen",
        &address.to_string(),
        "--model",
    ]);
    command.arg(model());
    Process::start(command)
}

fn routes(engine: Option<&str>, ollama: Option<&str>) -> RouteTable {
    let upstream = |kind, url: &str, backend: &str, model: &str| Upstream {
        kind,
        url: url.into(),
        backend: backend.into(),
        model: model.into(),
        context_tokens: None,
        api_key_file: None,
    };
    RouteTable {
        generation: 1,
        primary: engine.map(|url| upstream(UpstreamKind::Enginewright, url, "Cpu", SERVED)),
        fallback: ollama.map(|url| upstream(UpstreamKind::Ollama, url, "Ollama", INNER)),
        gguf: Some(model()),
        ..RouteTable::empty(SERVED)
    }
}

impl Rig {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ollama, ollama_url) = start_ollama(directory.path());
        let engine = free_address();
        let engine_process = start_engine(engine);
        ready(engine, "/readyz");
        let gateway = free_address();
        let file = directory.path().join("routes.json");
        let mut table = routes(Some(&url(engine)), Some(&ollama_url));
        // A test machine may be slower than any device.
        table.timeouts.first_token_ms = 120_000;
        table.timeouts.stall_ms = 120_000;
        table.timeouts.fallback_first_token_ms = 300_000;
        table.timeouts.fallback_stall_ms = 300_000;
        std::fs::write(&file, table.to_json().unwrap()).unwrap();
        let mut command = enginewright(["gateway", "--listen", &gateway.to_string()]);
        command.args(["--log", "warn", "--routes"]).arg(&file);
        let gateway_process = Process::start(command);
        ready(gateway, "/readyz");
        Self {
            engine,
            gateway,
            ollama_url,
            _ollama: ollama,
            gateway_process,
            engine_process: Some(engine_process),
            directory,
        }
    }

    fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine_process.take() {
            engine.signal(Signal::KILL);
            engine.wait_for_exit(Duration::from_secs(10));
        }
    }

    fn set_routes(&self, table: &RouteTable) {
        let new = self.directory.path().join("routes.new");
        std::fs::write(&new, table.to_json().unwrap()).unwrap();
        std::fs::rename(new, self.directory.path().join("routes.json")).unwrap();
        self.gateway_process.signal(Signal::HUP);
        let client = reqwest_blocking();
        wait_for("the new routes", Duration::from_secs(10), || {
            let body = client.get(&format!("{}/readyz", url(self.gateway)));
            let ready: Value = serde_json::from_str(&body).ok()?;
            (ready["routes_generation"] == table.generation).then_some(())
        });
    }
}

/// The ways to ask, and how to see that an answer is complete.
fn requests() -> Vec<(&'static str, Value, bool)> {
    let story = "Tell a short story about a fox and a river.";
    let messages = json!([{ "role": "user", "content": story }]);
    let mut all = Vec::new();
    for stream in [true, false] {
        let path = if stream {
            "/generate_stream"
        } else {
            "/generate"
        };
        all.extend([
            (
                "/v1/chat/completions",
                json!({ "model": SERVED, "messages": messages, "max_tokens": 24,
                    "temperature": 0, "stream": stream }),
                stream,
            ),
            (
                "/api/chat",
                json!({ "model": SERVED, "messages": messages, "stream": stream,
                    "options": { "num_predict": 24, "temperature": 0 } }),
                stream,
            ),
            (
                "/v1/completions",
                json!({ "model": SERVED, "prompt": "Once upon a time", "max_tokens": 24,
                    "temperature": 0, "stream": stream }),
                stream,
            ),
            (
                "/api/generate",
                json!({ "model": SERVED, "prompt": story, "stream": stream,
                    "options": { "num_predict": 24, "temperature": 0 } }),
                stream,
            ),
            (
                path,
                json!({ "prompt": story, "max_tokens": 24, "temperature": 0 }),
                stream,
            ),
        ]);
    }
    all
}

/// What is wrong with an answer, if anything.
fn problem(path: &str, stream: bool, status: u16, body: &str) -> Option<String> {
    if status != 200 {
        return Some(format!("status {status}: {body}"));
    }
    let (text, complete) = if stream {
        read_stream(path, body)
    } else {
        read_whole(path, body)
    };
    if body.contains("\"error\"") {
        return Some(format!("an error event: {body}"));
    }
    if !complete {
        return Some(format!("cut: {body}"));
    }
    (text.trim().len() < 10).then(|| format!("hardly any text: {body}"))
}

fn read_whole(path: &str, body: &str) -> (String, bool) {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let choice = &body["choices"][0];
    let (text, end) = match path {
        "/v1/chat/completions" => (&choice["message"]["content"], &choice["finish_reason"]),
        "/v1/completions" => (&choice["text"], &choice["finish_reason"]),
        "/api/chat" => (&body["message"]["content"], &body["done_reason"]),
        "/api/generate" => (&body["response"], &body["done_reason"]),
        _ => (&body["response"], &body["finish_reason"]),
    };
    (
        text.as_str().unwrap_or_default().to_owned(),
        end.is_string(),
    )
}

fn read_stream(path: &str, body: &str) -> (String, bool) {
    let (mut text, mut complete) = (String::new(), false);
    for line in body
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(':'))
    {
        let line = line.strip_prefix("data: ").unwrap_or(line);
        if line == "[DONE]" {
            complete = true;
            continue;
        }
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            return (text, false);
        };
        complete |= event["done"] == true;
        let choice = &event["choices"][0];
        let piece = match path {
            "/v1/chat/completions" => &choice["delta"]["content"],
            "/v1/completions" => &choice["text"],
            "/api/chat" => &event["message"]["content"],
            _ => &event["response"],
        };
        text.push_str(piece.as_str().unwrap_or_default());
    }
    (text, complete)
}

/// Requests of the killing test; `make soak` asks for 300.
fn wanted_requests() -> u32 {
    std::env::var("ENGINEWRIGHT_REQUESTS").map_or(60, |text| text.parse().unwrap())
}

#[test]
fn killing_the_engine_every_few_seconds_loses_and_cuts_no_answer() {
    let mut rig = Rig::start();
    let total = wanted_requests();
    let (next, running) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let base = url(rig.gateway);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (next, base) = (Arc::clone(&next), base.clone());
            std::thread::spawn(move || {
                let (client, ways) = (reqwest_blocking(), requests());
                let (mut problems, mut backends) = (Vec::new(), BTreeMap::new());
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= total {
                        return (problems, backends);
                    }
                    let (path, body, stream) = &ways[number as usize % ways.len()];
                    match client.post(&format!("{base}{path}"), body) {
                        Ok((status, backend, text)) => {
                            let resumed = text.contains("\"resumed\"");
                            let found = problem(path, *stream, status, &text);
                            problems.extend(found.map(|what| format!("{path} {stream}: {what}")));
                            *backends.entry((backend, resumed)).or_insert(0_u32) += 1;
                        }
                        Err(error) => problems.push(format!("{path} {stream}: {error:?}")),
                    }
                }
            })
        })
        .collect();
    let mut kills = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        rig.kill_engine();
        kills += 1;
        rig.engine_process = Some(start_engine(rig.engine));
        let begun = Instant::now();
        // Let it come up and answer for a while, unless the clients are done before.
        let client = reqwest_blocking();
        let engine_ready = format!("{}/readyz", url(rig.engine));
        while client.status(&engine_ready) != Some(200)
            && begun.elapsed() < START
            && clients.iter().any(|client| !client.is_finished())
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let answering = Instant::now();
        while answering.elapsed() < Duration::from_secs(3)
            && clients.iter().any(|client| !client.is_finished())
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    running.store(false, Ordering::SeqCst);
    let (mut problems, mut backends) = (Vec::new(), BTreeMap::new());
    for client in clients {
        let (found, seen) = client.join().unwrap();
        problems.extend(found);
        for (key, count) in seen {
            *backends.entry(key).or_insert(0) += count;
        }
    }
    eprintln!("{total} requests, {kills} kills, (back end, resumed) -> answers: {backends:?}");
    assert!(
        problems.is_empty(),
        "{} of {total} failed after {kills} kills:\n{}\ngateway:\n{}",
        problems.len(),
        problems.join("\n"),
        rig.gateway_process.output()
    );
    assert!(kills >= 2, "the engine was killed {kills} times only");
}

#[test]
fn a_stream_that_loses_its_engine_is_continued_by_ollama_and_says_so() {
    let mut rig = Rig::start();
    let body = json!({ "model": SERVED, "max_tokens": 240, "temperature": 0, "stream": true,
        "messages": [{ "role": "user", "content": "Count from one to one hundred in words." }],
        "stream_options": { "include_usage": true } });
    let request = reqwest_blocking();
    let text = request.runtime.block_on(async {
        let request = request
            .client
            .post(format!("{}/v1/chat/completions", url(rig.gateway)));
        let mut response = request.json(&body).send().await.unwrap();
        assert_eq!(response.headers()["x-enginewright-backend"], "Cpu");
        let mut text = String::new();
        while let Some(bytes) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
            if text.matches("data:").count() > 8 {
                rig.kill_engine();
            }
        }
        text
    });
    assert_eq!(problem("/v1/chat/completions", true, 200, &text), None);
    assert!(
        text.contains(": enginewright: resumed on Ollama after "),
        "{text}"
    );
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
    assert!(events.iter().all(|event| event["model"] == SERVED));
    let finish = events
        .iter()
        .find(|event| event["choices"][0]["finish_reason"].is_string());
    assert_eq!(
        finish.unwrap()["enginewright"]["resumed"]["backend"],
        "Ollama"
    );
    let usage = &events.last().unwrap()["usage"];
    assert!(
        usage["completion_tokens"].as_u64().unwrap() <= 401,
        "{usage}"
    );
    assert!(usage["prompt_tokens"].as_u64().unwrap() > 5, "{usage}");
}

#[test]
fn ollama_alone_serves_every_api_schema_and_forced_tool_call() {
    let mut rig = Rig::start();
    rig.kill_engine();
    let mut table = routes(None, Some(&rig.ollama_url));
    table.generation = 2;
    table.timeouts.fallback_first_token_ms = 300_000;
    table.timeouts.fallback_stall_ms = 300_000;
    rig.set_routes(&table);
    let client = reqwest_blocking();
    let base = url(rig.gateway);
    for (path, body, stream) in requests() {
        let (status, backend, text) = client.post(&format!("{base}{path}"), &body).unwrap();
        assert_eq!(problem(path, stream, status, &text), None, "{path}");
        assert_eq!(backend, "Ollama");
    }
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string",
        "maxLength": 20 } }, "required": ["city"], "additionalProperties": false });
    let body = json!({ "model": SERVED, "max_tokens": 100, "temperature": 0,
        "messages": [{ "role": "user", "content": "Name the capital of France as JSON." }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "c", "schema": schema } } });
    let chat = format!("{base}/v1/chat/completions");
    let (status, _, text) = client.post(&chat, &body).unwrap();
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let held: Value = serde_json::from_str(content).unwrap();
    assert!(held["city"].is_string(), "{content}");
    let tool =
        json!([{ "type": "function", "function": { "name": "weather", "parameters": schema } }]);
    let body = json!({ "model": SERVED, "max_tokens": 100, "temperature": 0, "tools": tool,
        "tool_choice": "required",
        "messages": [{ "role": "user", "content": "What is the weather in Paris?" }] });
    let (status, _, text) = client.post(&chat, &body).unwrap();
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "weather", "{text}");
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string());
    for path in ["/v1/models", "/api/tags", "/api/ps"] {
        let body = client.get(&format!("{base}{path}"));
        assert!(
            body.contains(SERVED) && !body.contains(INNER),
            "{path}: {body}"
        );
    }
}

/// Memory of its own: what it maps of the program file is shared with its siblings and depends on
/// how the program was compiled (`make bench` measures all of it, on the optimised program).
#[test]
fn the_gateway_needs_little_memory_of_its_own() {
    let rig = Rig::start();
    let client = reqwest_blocking();
    for (path, body, _) in requests() {
        client
            .post(&format!("{}{path}", url(rig.gateway)), &body)
            .unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.gateway_process.pid()));
    let status = status.unwrap();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 6 * 1024, "{kib} KiB");
}
