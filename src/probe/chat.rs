//! One measured chat with a server: what a user sees, with times.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wire::sse::{DONE_DATA, Decoder, Event};

/// What one answer was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The whole text.
    pub text: String,
    /// From sending the request to the first token.
    pub first_token: Duration,
    /// From sending the request to the end of the answer.
    pub completion: Duration,
    /// Tokens generated, as the server counted them.
    pub tokens: u32,
    /// Why it ended, as the server says.
    pub finish_reason: Option<String>,
}

impl Sample {
    /// Tokens per second after the first; `None` where there are too few to tell.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self
            .completion
            .saturating_sub(self.first_token)
            .as_secs_f64();
        (self.tokens >= 3 && seconds > 0.0).then(|| f64::from(self.tokens - 1) / seconds)
    }
}

/// Why there is no sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// All slots are taken by users: nothing can be said about the engine.
    #[error("the server is busy with other requests")]
    Busy,
    /// No connection.
    #[error("the server does not accept connections")]
    Unreachable,
    /// No whole answer within the limit.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// An error status.
    #[error("the server answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said, cut to a sensible length.
        message: String,
    },
    /// The answer broke off or was not what the API promises.
    #[error("the answer is broken: {0}")]
    Broken(String),
}

/// Asks one server.
#[derive(Clone, Debug)]
pub struct Prober {
    client: reqwest::Client,
    origin: String,
    model: String,
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The user's message.
    pub prompt: &'a str,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// From sending to the whole answer.
    pub limit: Duration,
}

impl Prober {
    /// A prober of the server at `origin` (`http://127.0.0.1:4000`) that serves `model`.
    pub fn new(client: reqwest::Client, origin: &str, model: &str) -> Self {
        Self {
            client,
            origin: origin.trim_end_matches('/').to_owned(),
            model: model.to_owned(),
        }
    }

    /// Asks at temperature 0 and measures the streamed answer.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn ask(&self, question: Question<'_>) -> Result<Sample, ProbeError> {
        let limit = question.limit;
        tokio::time::timeout(limit, self.ask_unbounded(question))
            .await
            .unwrap_or(Err(ProbeError::TimedOut(limit)))
    }

    async fn ask_unbounded(&self, question: Question<'_>) -> Result<Sample, ProbeError> {
        let body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": question.prompt}],
            "max_tokens": question.max_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let start = Instant::now();
        let mut response = self.post("/v1/chat/completions", &body).await?;
        let mut reading = Reading::new(start);
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|error| ProbeError::Broken(plain(&error)))?;
            match chunk {
                Some(chunk) => {
                    if reading.push(&chunk)? {
                        return reading.finish();
                    }
                }
                None => return reading.finish(),
            }
        }
    }

    /// Posts a chat that is answered whole, for tool calls.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn post_whole(&self, mut body: Value, limit: Duration) -> Result<Value, ProbeError> {
        if let Some(object) = body.as_object_mut() {
            object.insert("model".to_owned(), json!(self.model));
        }
        let work = async {
            let response = self.post("/v1/chat/completions", &body).await?;
            let bytes = response
                .bytes()
                .await
                .map_err(|error| ProbeError::Broken(plain(&error)))?;
            serde_json::from_slice(&bytes).map_err(|error| ProbeError::Broken(error.to_string()))
        };
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(ProbeError::TimedOut(limit)))
    }

    /// Whether `/readyz` says yes. Nothing else can be learnt from a no.
    pub async fn is_ready(&self) -> bool {
        let request = self
            .client
            .get(format!("{}/readyz", self.origin))
            .timeout(Duration::from_secs(2));
        matches!(request.send().await, Ok(response) if response.status().is_success())
    }

    /// Tokens that the server has generated for everybody so far; `None` where it does not say.
    pub async fn generated_tokens(&self) -> Option<f64> {
        let request = self
            .client
            .get(format!("{}/metrics", self.origin))
            .timeout(Duration::from_secs(2));
        let text = request.send().await.ok()?.text().await.ok()?;
        sum_of_metric(&text, "enginewright_generated_tokens_total")
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response, ProbeError> {
        let response = self
            .client
            .post(format!("{}{path}", self.origin))
            .json(body)
            .send()
            .await
            .map_err(|error| {
                if error.is_connect() {
                    ProbeError::Unreachable
                } else {
                    ProbeError::Broken(plain(&error))
                }
            })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status.as_u16() == 429 {
            return Err(ProbeError::Busy);
        }
        let text = response.text().await.unwrap_or_default();
        Err(ProbeError::Refused {
            status: status.as_u16(),
            message: error_message(&text),
        })
    }
}

/// The message in an OpenAI error, or the text itself, cut.
fn error_message(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let message = parsed
        .as_ref()
        .and_then(|value| value.pointer("/error/message")?.as_str())
        .unwrap_or(text);
    message.chars().take(300).collect()
}

/// An error of the client without the URL, whose port differs from one try to the next.
fn plain(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

/// Sum over all labels of a metric in the Prometheus text format.
fn sum_of_metric(text: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// A streamed answer while it comes in.
struct Reading {
    start: Instant,
    decoder: Decoder,
    text: String,
    first_token: Option<Duration>,
    tokens: Option<u32>,
    pieces: u32,
    finish_reason: Option<String>,
}

impl Reading {
    fn new(start: Instant) -> Self {
        Self {
            start,
            decoder: Decoder::new(),
            text: String::new(),
            first_token: None,
            tokens: None,
            pieces: 0,
            finish_reason: None,
        }
    }

    /// Takes bytes; `true` when the answer is complete.
    fn push(&mut self, bytes: &[u8]) -> Result<bool, ProbeError> {
        let mut events: Vec<Event> = Vec::new();
        self.decoder
            .push(bytes, &mut events)
            .map_err(|error| ProbeError::Broken(error.to_string()))?;
        for event in events {
            if event.data == DONE_DATA {
                return Ok(true);
            }
            let value: Value = serde_json::from_str(&event.data)
                .map_err(|error| ProbeError::Broken(format!("not JSON: {error}")))?;
            self.take(&value)?;
        }
        Ok(false)
    }

    fn take(&mut self, value: &Value) -> Result<(), ProbeError> {
        if let Some(message) = value.pointer("/error/message").and_then(Value::as_str) {
            return Err(ProbeError::Broken(message.chars().take(300).collect()));
        }
        if let Some(text) = value
            .pointer("/choices/0/delta/content")
            .and_then(Value::as_str)
            && !text.is_empty()
        {
            self.first_token.get_or_insert_with(|| self.start.elapsed());
            self.pieces += 1;
            self.text.push_str(text);
        }
        if let Some(reason) = value
            .pointer("/choices/0/finish_reason")
            .and_then(Value::as_str)
        {
            self.finish_reason = Some(reason.to_owned());
        }
        if let Some(tokens) = value
            .pointer("/usage/completion_tokens")
            .and_then(Value::as_u64)
        {
            self.tokens = u32::try_from(tokens).ok();
        }
        Ok(())
    }

    fn finish(self) -> Result<Sample, ProbeError> {
        if self.finish_reason.is_none() {
            return Err(ProbeError::Broken(
                "it ended without a finish reason".to_owned(),
            ));
        }
        let completion = self.start.elapsed();
        Ok(Sample {
            text: self.text,
            first_token: self.first_token.unwrap_or(completion),
            completion,
            tokens: self.tokens.unwrap_or(self.pieces),
            finish_reason: self.finish_reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sample, ProbeError> {
        let mut reading = Reading::new(Instant::now());
        for byte in text.as_bytes() {
            if reading.push(&[*byte])? {
                break;
            }
        }
        reading.finish()
    }

    #[test]
    fn text_tokens_and_reason_are_taken_from_a_stream_cut_anywhere() {
        let sample = read(concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"Pa\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"ris\"},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":7}}\n\n",
            "data: [DONE]\n\n",
        ))
        .unwrap();
        assert_eq!(
            (
                sample.text.as_str(),
                sample.tokens,
                sample.finish_reason.as_deref()
            ),
            ("Paris", 7, Some("stop"))
        );
        assert!(sample.first_token <= sample.completion);
    }

    #[test]
    fn a_stream_that_breaks_off_is_broken_and_an_error_event_says_why() {
        let error = read("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n").unwrap_err();
        assert!(matches!(error, ProbeError::Broken(_)), "{error}");
        let error = read("data: {\"error\":{\"message\":\"out of luck\"}}\n\n").unwrap_err();
        assert_eq!(error, ProbeError::Broken("out of luck".to_owned()));
        assert!(read("data: nonsense\n\n").is_err());
    }

    #[test]
    fn speed_needs_a_few_tokens() {
        let sample = |tokens| Sample {
            text: "x".to_owned(),
            first_token: Duration::from_secs(1),
            completion: Duration::from_secs(3),
            tokens,
            finish_reason: None,
        };
        assert_eq!(sample(2).tokens_per_second(), None);
        assert_eq!(sample(21).tokens_per_second(), Some(10.0));
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_confused_with_a_longer_name() {
        let text = "# HELP a\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 9\n";
        assert_eq!(sum_of_metric(text, "a_total"), Some(5.0));
        assert_eq!(sum_of_metric(text, "b_total"), None);
    }
}
