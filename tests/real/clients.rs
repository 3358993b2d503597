//! Real clients against `enginewright serve` with a real model: the Python packages `openai` and
//! `ollama`, and `curl`. The scripts in `clients/` take any endpoint, so the gateway's tests run
//! the same ones.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use enginewright::gateway::routes::{RouteTable, Upstream, UpstreamKind};
use rustix::process::Signal;
use serde_json::Value;

use super::tools;

/// A served model, ended when dropped.
struct Served {
    process: tools::Process,
    address: SocketAddr,
}

impl Served {
    fn start(more: &[&str]) -> Self {
        let address = tools::free_address();
        let mut command = tools::enginewright(["serve", "--served-name", "smollm2"]);
        command
            .arg("--model")
            .arg(tools::model())
            .arg("--listen")
            .arg(address.to_string());
        // One thread each: several servers run side by side, and threads that wait for each other
        // at every layer crawl when there are more of them than processors.
        command
            .args(["--context", "2048", "--threads", "1"])
            .args(more);
        let mut process = tools::Process::start(command);
        process.wait_for_output("ready", Duration::from_mins(1));
        Self { process, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Runs curl; returns status and body.
    fn curl(&self, path: &str, more: &[&str]) -> (u16, String) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*"])
            .args(["--max-time", "120", "--write-out", "\n%{http_code}"])
            .args(more)
            .arg(self.url(path))
            .output()
            .expect("curl is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        (
            status
                .parse()
                .unwrap_or_else(|_| panic!("{text} {problem}")),
            body.to_owned(),
        )
    }

    fn json(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.curl(path, &["--data", body]);
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")),
        )
    }
}

/// Runs one of the Python clients against `base`.
pub(super) fn python_client(script: &str, base: &str, model: &str, key: Option<&str>) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/clients");
    Command::new(tools::python())
        .arg(folder.join(script))
        .args([base, model])
        .args(key)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .output()
        .unwrap()
}

fn assert_passes(output: &Output, served: &Served) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{text}\n{errors}\n{}",
        served.process.output()
    );
}

#[test]
fn the_openai_package_finds_everything_it_knows() {
    let served = Served::start(&[]);
    assert_passes(
        &python_client("openai_client.py", &served.url(""), "smollm2", None),
        &served,
    );
}

#[test]
fn the_ollama_package_finds_everything_it_knows() {
    let served = Served::start(&[]);
    assert_passes(
        &python_client("ollama_client.py", &served.url(""), "smollm2", None),
        &served,
    );
}

/// The gateway must look like the server behind it: the same scripts, unchanged.
#[test]
fn both_packages_find_the_same_through_the_gateway() {
    let served = Served::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.json");
    let table = RouteTable {
        generation: 1,
        primary: Some(Upstream {
            kind: UpstreamKind::Enginewright,
            url: served.url(""),
            backend: "Cpu".into(),
            model: "smollm2".into(),
            context_tokens: None,
            api_key_file: None,
        }),
        gguf: Some(tools::model()),
        ..RouteTable::empty("smollm2")
    };
    std::fs::write(&routes, table.to_json().unwrap()).unwrap();
    let address = tools::free_address();
    let mut command = tools::enginewright(["gateway", "--listen", &address.to_string()]);
    command.arg("--routes").arg(&routes);
    let _gateway = tools::Process::start(command);
    tools::wait_for_port(address, Duration::from_secs(20));
    let base = format!("http://{address}");
    for script in ["openai_client.py", "ollama_client.py"] {
        assert_passes(&python_client(script, &base, "smollm2", None), &served);
    }
}

#[test]
fn clients_with_a_key_are_let_in_and_others_are_not() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "# test\nsk-a-test-key\n").unwrap();
    let served = Served::start(&["--api-keys-file", keys.path().to_str().unwrap()]);
    let (status, body) = served.curl("/v1/models", &[]);
    assert_eq!(status, 401, "{body}");
    let (status, _) = served.curl(
        "/v1/models",
        &["--header", "authorization: Bearer sk-a-test-key"],
    );
    assert_eq!(status, 200);
    assert_eq!(served.curl("/readyz", &[]).0, 200);
    std::fs::write(keys.path(), "sk-another-key\n").unwrap();
    served.process.signal(Signal::HUP);
    tools::wait_for("the new key", Duration::from_secs(10), || {
        let header = ["--header", "authorization: Bearer sk-another-key"];
        (served.curl("/v1/models", &header).0 == 200).then_some(())
    });
    assert!(
        !served.process.output().contains("sk-"),
        "keys are never logged"
    );
}

#[test]
fn curl_gets_answers_streams_and_errors() {
    let served = Served::start(&[]);
    let (status, body) = served.json(
        "/generate",
        r#"{"prompt": "The capital of France is", "raw": true, "temperature": 0, "max_tokens": 8}"#,
    );
    assert_eq!(status, 200, "{body}");
    assert!(
        body["response"].as_str().unwrap().contains("Paris"),
        "{body}"
    );
    let (status, text) = served.curl(
        "/generate_stream",
        &[
            "--data",
            r#"{"prompt": "Count to five.", "max_tokens": 12, "temperature": 0}"#,
        ],
    );
    assert_eq!(status, 200);
    assert!(text.matches("data: ").count() > 5, "{text}");
    let (status, text) = served.curl(
        "/v1/models",
        &["--include", "--header", "x-request-id: from-curl"],
    );
    assert_eq!(status, 200);
    assert!(text.contains("x-enginewright-backend: Cpu"), "{text}");
    assert!(text.contains("x-request-id: from-curl"), "{text}");
    let (status, body) = served.json(
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user"}]}"#,
    );
    assert_eq!(
        (status, &body["error"]["param"]),
        (400, &"messages[0].content".into())
    );
    let (status, text) = served.curl("/v1/models", &["--header", "host: evil.example"]);
    assert_eq!(status, 403, "{text}");
    let (_, text) = served.curl("/metrics", &[]);
    assert!(text.contains("enginewright_time_to_first_token_seconds_count{backend=\"Cpu\"}"));
    // 100 MB with `Expect: 100-continue`, as curl does by itself.
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(100 * 1024 * 1024).unwrap();
    let data = format!("@{}", large.path().display());
    assert_eq!(served.curl("/generate", &["--data-binary", &data]).0, 413);
    assert_eq!(served.curl("/healthz", &[]).0, 200);
}

#[test]
fn sigterm_lets_a_running_answer_finish_and_the_process_ends_well() {
    let mut served = Served::start(&["--grace", "60"]);
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--noproxy", "*", "--data"])
        .arg(r#"{"prompt": "Tell me a story.", "max_tokens": 200, "temperature": 0}"#)
        .arg(served.url("/generate_stream"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(curl.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).unwrap();
    assert!(first.starts_with("data: "), "{first}");
    served.process.signal(Signal::TERM);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert!(curl.wait().unwrap().success());
    assert!(rest.contains(r#""done":true"#), "{rest}");
    let status = served.process.wait_for_exit(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", served.process.output());
}

#[test]
fn what_cannot_be_served_ends_with_its_exit_code_and_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let not_a_model = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(not_a_model.path(), "this is no model").unwrap();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let (model, wrong, empty) = (tools::model(), not_a_model.path(), empty.path());
    let free = "127.0.0.1:0";
    let keys = ["--api-keys-file", empty.to_str().unwrap()];
    for (model, listen, more, code, words) in [
        (model.as_path(), address.as_str(), &[][..], 4, "in use"),
        (wrong, free, &[], 3, "not a GGUF file"),
        (
            Path::new("/nowhere/x.gguf"),
            free,
            &[],
            3,
            "/nowhere/x.gguf",
        ),
        (empty, free, &[], 3, "truncated"),
        (
            model.as_path(),
            free,
            &["--context", "1000000"],
            3,
            "1000000",
        ),
        (model.as_path(), free, &keys, 1, "no key"),
        (
            model.as_path(),
            free,
            &["--log", "enginewright=loud"],
            1,
            "loud",
        ),
    ] {
        let mut command = tools::enginewright(["serve", "--listen", listen]);
        command.arg("--model").arg(model).args(more);
        let mut process = tools::Process::start(command);
        let status = process.wait_for_exit(Duration::from_secs(30));
        let output = process.output();
        assert_eq!(status.code(), Some(code), "{output}");
        assert!(output.contains(words), "{words}: {output}");
    }
}

#[test]
fn a_log_in_json_is_one_object_a_line_and_holds_no_prompt() {
    let served = Served::start(&["--log-format", "json", "--log", "debug"]);
    served.json(
        "/generate",
        r#"{"prompt": "a very secret word", "max_tokens": 2}"#,
    );
    let output = served.process.output();
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["span"]["route"] == "/generate" && line["status"] == 200)
    );
    assert!(!output.contains("secret word"));
}

#[test]
fn traces_go_to_a_collector_when_one_is_named() {
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in collector.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = vec![0; 65536];
            let length = std::io::Read::read(&mut stream, &mut bytes).unwrap_or(0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _gone = std::io::Write::write_all(&mut stream, answer);
            if sender
                .send(String::from_utf8_lossy(&bytes[..length]).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let served = Served::start(&["--otlp-endpoint", &endpoint]);
    served.json("/generate", r#"{"prompt": "hi", "max_tokens": 2}"#);
    let request = received
        .recv_timeout(Duration::from_secs(30))
        .expect("traces within 30 s");
    assert!(request.starts_with("POST /v1/traces "), "{request}");
}
