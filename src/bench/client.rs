//! One measured request. Speaks just enough of each API to see tokens arrive.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};

use crate::wire::BACKEND_HEADER;

/// The API of a server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Api {
    /// `POST /v1/chat/completions`, server-sent events
    #[value(name = "openai")]
    OpenAi,
    /// `POST /api/chat`, newline-delimited JSON
    Ollama,
}

impl Api {
    /// The name used on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
        }
    }
}

/// A server under test.
#[derive(Clone, Debug)]
pub struct Target {
    /// Base URL without a slash at its end.
    pub url: String,
    /// Its API.
    pub api: Api,
    /// Model to ask for; empty: the first it lists.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
}

/// What was measured of an answer that came to its end.
#[derive(Clone, Debug)]
pub struct Sample {
    /// From sending the request to the first piece of the answer.
    pub first_token: Duration,
    /// Between pieces after that.
    pub gaps: Vec<Duration>,
    /// As the server counted.
    pub prompt_tokens: u32,
    /// As the server counted.
    pub completion_tokens: u32,
    /// The back end that the response named.
    pub backend: Option<String>,
}

impl Sample {
    /// Tokens per second after the first, by the server's token count and our clock.
    pub fn decode_rate(&self) -> Option<f64> {
        let time: Duration = self.gaps.iter().sum();
        let tokens = self
            .completion_tokens
            .checked_sub(1)
            .filter(|&count| count > 0)?;
        (!time.is_zero()).then(|| f64::from(tokens) / time.as_secs_f64())
    }
}

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Answered to the end.
    Done(Sample),
    /// Refused with a status, for example 429.
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// Cut, unreadable, or no connection.
    Failed {
        /// In a few words, the same for the same cause.
        why: String,
    },
}

/// The client of a benchmark: connections are kept, nothing is retried.
///
/// # Errors
/// When the TLS set-up of the machine is broken.
pub fn http() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_mins(2))
        .tcp_nodelay(true)
        .no_proxy()
        .build()
}

/// The first model that the server lists.
pub async fn first_model(http: &reqwest::Client, target: &Target) -> Option<String> {
    let (path, pointer) = match target.api {
        Api::OpenAi => ("/v1/models", "/data/0/id"),
        Api::Ollama => ("/api/tags", "/models/0/name"),
    };
    let request = http.get(format!("{}{path}", target.url));
    let body: Value = authorised(request, target)
        .send()
        .await
        .ok()?
        .json()
        .await
        .ok()?;
    body.pointer(pointer)?.as_str().map(str::to_owned)
}

fn authorised(request: reqwest::RequestBuilder, target: &Target) -> reqwest::RequestBuilder {
    match &target.api_key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// Sends one chat with `text` as the user's message and reads the answer as it streams.
pub async fn request(
    http: &reqwest::Client,
    target: &Target,
    text: &str,
    max_tokens: u32,
) -> Outcome {
    let messages = json!([{ "role": "user", "content": text }]);
    let model = &target.model;
    let (path, body) = match target.api {
        Api::OpenAi => (
            "/v1/chat/completions",
            json!({ "model": model, "messages": messages, "stream": true, "temperature": 0,
                    "max_tokens": max_tokens, "stream_options": { "include_usage": true } }),
        ),
        Api::Ollama => (
            "/api/chat",
            json!({ "model": model, "messages": messages, "stream": true,
                    "options": { "temperature": 0, "num_predict": max_tokens } }),
        ),
    };
    let sent = Instant::now();
    let request = authorised(http.post(format!("{}{path}", target.url)), target).json(&body);
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return failed("cannot connect"),
        Err(error) if error.is_timeout() => return failed("no answer in time"),
        Err(_) => return failed("connection lost before the answer"),
    };
    if !response.status().is_success() {
        return Outcome::Refused {
            status: response.status().as_u16(),
        };
    }
    let backend = response
        .headers()
        .get(BACKEND_HEADER)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut reader = Reader {
        api: target.api,
        sent,
        last: sent,
        sample: None,
        usage: None,
        backend,
    };
    let mut bytes = response.bytes_stream();
    let mut line = Vec::new();
    while let Some(chunk) = bytes.next().await {
        let Ok(chunk) = chunk else {
            return failed("connection lost within the answer");
        };
        // Both encodings are lines: `data: {…}` and `{…}`.
        for byte in chunk {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            if let Some(outcome) = reader.line(&line) {
                return outcome;
            }
            line.clear();
        }
    }
    failed("the stream ended without an end mark")
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed {
        why: why.to_owned(),
    }
}

/// Follows one stream.
struct Reader {
    api: Api,
    sent: Instant,
    last: Instant,
    sample: Option<(Duration, Vec<Duration>)>,
    usage: Option<(u32, u32)>,
    backend: Option<String>,
}

impl Reader {
    /// Takes a line; an outcome when the answer has ended.
    fn line(&mut self, line: &[u8]) -> Option<Outcome> {
        let line = line.trim_ascii();
        let payload = match self.api {
            Api::OpenAi => line.strip_prefix(b"data:")?.trim_ascii_start(),
            Api::Ollama if line.is_empty() => return None,
            Api::Ollama => line,
        };
        if payload == b"[DONE]" {
            return Some(self.end());
        }
        let Ok(event) = serde_json::from_slice::<Value>(payload) else {
            return Some(failed("an event that is not JSON"));
        };
        if event.get("error").is_some() {
            return Some(failed("an error within the stream"));
        }
        let text = match self.api {
            Api::OpenAi => event.pointer("/choices/0/delta/content"),
            Api::Ollama => event.pointer("/message/content"),
        };
        if text
            .and_then(Value::as_str)
            .is_some_and(|text| !text.is_empty())
        {
            self.token();
        }
        let (usage, names) = match self.api {
            Api::OpenAi => (event.get("usage"), ["prompt_tokens", "completion_tokens"]),
            Api::Ollama => (Some(&event), ["prompt_eval_count", "eval_count"]),
        };
        let count = |name: &str| u32::try_from(usage?.get(name)?.as_u64()?).ok();
        if let (Some(prompt), Some(completion)) = (count(names[0]), count(names[1])) {
            self.usage = Some((prompt, completion));
        }
        let done = self.api == Api::Ollama && event.get("done") == Some(&Value::Bool(true));
        done.then(|| self.end())
    }

    fn token(&mut self) {
        let now = Instant::now();
        match &mut self.sample {
            None => self.sample = Some((now - self.sent, Vec::new())),
            Some((_, gaps)) => gaps.push(now - self.last),
        }
        self.last = now;
    }

    fn end(&mut self) -> Outcome {
        let Some((first_token, gaps)) = self.sample.take() else {
            return failed("an empty answer");
        };
        let pieces = u32::try_from(gaps.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let (prompt_tokens, completion_tokens) = self.usage.unwrap_or((0, pieces));
        let backend = self.backend.take();
        Outcome::Done(Sample {
            first_token,
            gaps,
            prompt_tokens,
            completion_tokens,
            backend,
        })
    }
}
