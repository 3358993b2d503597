//! The gateway between a real HTTP client and upstreams that do exactly what a script says,
//! all on loopback.

mod edges;
mod failover;
mod lifecycle;
mod openai;
mod promises;
mod reading;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use enginewright::gateway::background;
use enginewright::gateway::listener::{self, Limits};
use enginewright::gateway::routes::{
    BreakerSettings, RouteTable, Timeouts, Upstream, UpstreamKind,
};
use enginewright::gateway::service::Access;
use enginewright::gateway::state::Gateway;
use enginewright::model::gguf::writer::GgufWriter;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The model's name for clients.
const MODEL: &str = "served";
/// Its name in the fallback.
const INNER: &str = "inner:latest";
/// What every upstream answers.
const ANSWER: [&str; 5] = ["One", " two", " \u{1f980} three", " four\n", " five."];

/// The template of the tests' model.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";

/// A gateway that runs until dropped.
struct Running {
    gateway: Arc<Gateway>,
    url: String,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
    background: tokio::task::JoinHandle<()>,
    client: reqwest::Client,
    _gguf: tempfile::NamedTempFile,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ended.abort();
        self.background.abort();
    }
}

/// The smallest model file with a chat template.
fn gguf() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = GgufWriter::default()
        .string("general.architecture", "llama")
        .string("tokenizer.chat_template", CHATML)
        .bytes();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

fn table(primary: Option<&str>, fallback: Option<&str>) -> RouteTable {
    let upstream = |kind, url: &str, backend: &str, model: &str| Upstream {
        kind,
        url: url.to_owned(),
        backend: backend.to_owned(),
        model: model.to_owned(),
        context_tokens: None,
        api_key_file: None,
    };
    RouteTable {
        generation: 1,
        primary: primary.map(|url| upstream(UpstreamKind::Enginewright, url, "Cpu", MODEL)),
        fallback: fallback.map(|url| upstream(UpstreamKind::Ollama, url, "Ollama", INNER)),
        timeouts: Timeouts {
            connect_ms: 500,
            first_token_ms: 300,
            stall_ms: 300,
            fallback_first_token_ms: 2_000,
            fallback_stall_ms: 2_000,
        },
        breaker: BreakerSettings {
            failures: 3,
            open_ms: 300,
            open_max_ms: 2_000,
        },
        ..RouteTable::empty(MODEL)
    }
}

async fn start(table: RouteTable) -> Running {
    start_with(table, Access::default(), Limits::default()).await
}

async fn start_with(mut table: RouteTable, access: Access, limits: Limits) -> Running {
    let gguf = gguf();
    table.gguf.get_or_insert_with(|| gguf.path().to_owned());
    let gateway = Gateway::new(table);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let reload = Arc::new(Notify::new());
    let background = tokio::spawn(background::run(Arc::clone(&gateway), None, reload));
    let serving = listener::serve(listener, Arc::clone(&gateway), access, limits, stop.clone());
    Running {
        gateway,
        url,
        stop,
        ended: tokio::spawn(serving),
        background,
        client: reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap(),
        _gguf: gguf,
    }
}

impl Running {
    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).json(body)
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    async fn metric(&self, line_start: &str) -> f64 {
        let text = self
            .get("/metrics")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }
}

/// Waits until `check` holds.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !check() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "waited 10 s for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address at which nothing listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The five ways to ask for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Chat,
    Completion,
    OllamaChat,
    OllamaGenerate,
    Plain,
}

const EVERY_WAY: [Via; 5] = [
    Via::Chat,
    Via::Completion,
    Via::OllamaChat,
    Via::OllamaGenerate,
    Via::Plain,
];

impl Via {
    fn path(self, stream: bool) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::Plain if stream => "/generate_stream",
            Self::Plain => "/generate",
        }
    }

    fn body(self, stream: bool) -> Value {
        let messages = json!([{ "role": "user", "content": "count" }]);
        match self {
            Self::Chat | Self::OllamaChat => {
                json!({ "model": MODEL, "messages": messages, "stream": stream })
            }
            Self::Completion => {
                json!({ "model": MODEL, "prompt": "count", "stream": stream, "max_tokens": 64 })
            }
            Self::OllamaGenerate => json!({ "model": MODEL, "prompt": "count", "stream": stream }),
            Self::Plain => json!({ "prompt": "count" }),
        }
    }

    fn is_sse(self) -> bool {
        !matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }
}
