//! Ollama's HTTP API as far as `run` manages one: version, models, load, unload.
//!
//! Every answer is checked: what listens there may be anything.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use crate::api::Sha256Hex;
use crate::model::modelfile::Modelfile;

/// For questions that need no work.
const QUICK: Duration = Duration::from_secs(5);
/// For creating a model from a file that is there.
const CREATE: Duration = Duration::from_mins(10);
/// For loading a model and one token of it.
const LOAD: Duration = Duration::from_mins(10);
/// Longest text of an answer that is quoted.
const QUOTE: usize = 200;

/// Oldest Ollama whose API is understood.
pub const OLDEST: Version = Version(0, 6, 5);

/// Why Ollama did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OllamaError {
    /// Nothing accepts connections.
    #[error("it does not accept connections")]
    Unreachable,
    /// No answer in time.
    #[error("it did not answer {0} in time")]
    Hangs(&'static str),
    /// An error status.
    #[error("it refused {what} with {status}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Not an answer of Ollama's API.
    #[error("it answered {what} with nonsense ({found}): is it an Ollama?")]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// The answer, cut.
        found: String,
    },
    /// Older than [`OLDEST`].
    #[error("it has version {0}, too old: install {OLDEST} or newer")]
    TooOld(Version),
    /// The file to hand over cannot be read.
    #[error("the model file cannot be read: {0}")]
    File(#[source] std::io::Error),
}

/// A release of Ollama.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Reads `0.12.6`, also with something behind it (`0.13.0-rc1`).
    pub fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(str::parse);
        let version = Self(
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        );
        parts.next().is_none().then_some(version)
    }

    /// Whether its API is understood. Builds without a release number call themselves 0.0.0.
    pub fn is_understood(self) -> bool {
        self >= OLDEST || self == Self(0, 0, 0)
    }
}

/// One Ollama.
#[derive(Clone, Debug)]
pub struct Ollama {
    client: reqwest::Client,
    origin: String,
}

impl Ollama {
    /// At `origin`, for example `http://127.0.0.1:11434`.
    pub fn new(client: reqwest::Client, origin: &str) -> Self {
        Self {
            client,
            origin: origin.trim_end_matches('/').to_owned(),
        }
    }

    /// Where it is.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Its release, if it is one whose API is understood.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn version(&self) -> Result<Version, OllamaError> {
        let what = "/api/version";
        let request = self.client.get(self.at(what)).timeout(QUICK);
        let answer = self.json(what, request).await?;
        let version = answer
            .get("version")
            .and_then(Value::as_str)
            .and_then(Version::parse)
            .ok_or_else(|| nonsense(what, &answer.to_string()))?;
        if version.is_understood() {
            Ok(version)
        } else {
            Err(OllamaError::TooOld(version))
        }
    }

    /// What it knows of a model; `None` when it does not have it.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn show(&self, model: &str) -> Result<Option<Value>, OllamaError> {
        let what = "/api/show";
        let request = self
            .client
            .post(self.at(what))
            .timeout(QUICK)
            .json(&json!({"model": model}));
        match self.json(what, request).await {
            Err(OllamaError::Refused { status: 404, .. }) => Ok(None),
            Ok(answer) if answer.get("details").is_some() => Ok(Some(answer)),
            Ok(answer) => Err(nonsense(what, &answer.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Whether a model is in its memory now.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn is_loaded(&self, model: &str) -> Result<bool, OllamaError> {
        let what = "/api/ps";
        let request = self.client.get(self.at(what)).timeout(QUICK);
        let answer = self.json(what, request).await?;
        let models = answer
            .get("models")
            .and_then(Value::as_array)
            .ok_or_else(|| nonsense(what, &answer.to_string()))?;
        let full = with_tag(model);
        Ok(models
            .iter()
            .any(|one| one.get("name").and_then(Value::as_str) == Some(full.as_str())))
    }

    /// Hands a GGUF file over under its digest, unless it is there already.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn push_blob(&self, file: &Path, digest: &Sha256Hex) -> Result<(), OllamaError> {
        let what = "/api/blobs";
        let url = self.at(&format!("{what}/sha256:{digest}"));
        let there = self.client.head(&url).timeout(QUICK).send().await;
        if there.is_ok_and(|response| response.status().is_success()) {
            return Ok(());
        }
        let file = tokio::fs::File::open(file)
            .await
            .map_err(OllamaError::File)?;
        let length = file.metadata().await.map_err(OllamaError::File)?.len();
        let stream = ReaderStream::with_capacity(file, 1 << 18);
        let request = self
            .client
            .post(&url)
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream))
            .timeout(CREATE);
        self.send(what, request).await.map(drop)
    }

    /// Makes a model of a blob. `said`: what is said of it; without a template, Ollama's own guess is
    /// taken.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn create(
        &self,
        model: &str,
        digest: &Sha256Hex,
        said: &Modelfile,
    ) -> Result<(), OllamaError> {
        let what = "/api/create";
        let mut body = json!({
            "model": model,
            "files": {"model.gguf": format!("sha256:{digest}")},
            "parameters": said.parameters,
            "stream": false,
        });
        if let Some(object) = body.as_object_mut() {
            for (name, text) in [("template", &said.template), ("system", &said.system)] {
                if let Some(text) = text {
                    object.insert(name.to_owned(), json!(text));
                }
            }
            if !said.licences.is_empty() {
                object.insert("license".to_owned(), json!(said.licences));
            }
        }
        let request = self.client.post(self.at(what)).timeout(CREATE).json(&body);
        let answer = self.json(what, request).await?;
        if answer.get("status").and_then(Value::as_str) == Some("success") {
            Ok(())
        } else {
            Err(nonsense(what, &answer.to_string()))
        }
    }

    /// Fetches a model of Ollama's library; `progress` gets bytes done and in all.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn pull(
        &self,
        model: &str,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<(), OllamaError> {
        let what = "/api/pull";
        let request = self
            .client
            .post(self.at(what))
            .json(&json!({"model": model}));
        let mut response = self.send(what, request).await?;
        let mut rest = Vec::new();
        let mut done = false;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| failed(what, &error))?
        {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                done |= pulled(&line, progress)?;
            }
        }
        if done {
            Ok(())
        } else {
            Err(nonsense(what, "it ended without success"))
        }
    }

    /// Loads a model and generates one token with it.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn load(&self, model: &str, context_tokens: u32) -> Result<(), OllamaError> {
        let what = "/api/generate";
        let body = json!({
            "model": model,
            "prompt": "Hello",
            "stream": false,
            "options": {"num_predict": 1, "num_ctx": context_tokens},
        });
        let request = self.client.post(self.at(what)).timeout(LOAD).json(&body);
        let answer = self.json(what, request).await?;
        if answer.get("done") == Some(&Value::Bool(true)) {
            Ok(())
        } else {
            Err(nonsense(what, &answer.to_string()))
        }
    }

    /// Makes it give a model's memory back.
    ///
    /// # Errors
    /// [`OllamaError`].
    pub async fn unload(&self, model: &str) -> Result<(), OllamaError> {
        let what = "/api/generate";
        let request = self
            .client
            .post(self.at(what))
            .timeout(QUICK)
            .json(&json!({"model": model, "keep_alive": 0}));
        self.json(what, request).await.map(drop)
    }

    async fn json(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<Value, OllamaError> {
        let response = self.send(what, request).await?;
        let bytes = response
            .bytes()
            .await
            .map_err(|error| failed(what, &error))?;
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(nonsense(what, &String::from_utf8_lossy(&bytes))),
        }
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, OllamaError> {
        let response = request.send().await.map_err(|error| failed(what, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let said: Option<Value> = serde_json::from_str(&text).ok();
        let message = said
            .as_ref()
            .and_then(|value| value.get("error")?.as_str())
            .unwrap_or(&text);
        Err(OllamaError::Refused {
            what,
            status: status.as_u16(),
            message: cut(message),
        })
    }
}

/// One line of a pull; `true` when it says success.
fn pulled(
    line: &[u8],
    progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
) -> Result<bool, OllamaError> {
    let what = "/api/pull";
    let value: Value =
        serde_json::from_slice(line).map_err(|_| nonsense(what, &String::from_utf8_lossy(line)))?;
    if let Some(error) = value.get("error").and_then(Value::as_str) {
        return Err(OllamaError::Refused {
            what,
            status: 200,
            message: cut(error),
        });
    }
    if let Some(done) = value.get("completed").and_then(Value::as_u64) {
        progress(done, value.get("total").and_then(Value::as_u64));
    }
    Ok(value.get("status").and_then(Value::as_str) == Some("success"))
}

fn failed(what: &'static str, error: &reqwest::Error) -> OllamaError {
    if error.is_connect() {
        OllamaError::Unreachable
    } else if error.is_timeout() {
        OllamaError::Hangs(what)
    } else {
        nonsense(what, &error.to_string())
    }
}

fn nonsense(what: &'static str, found: &str) -> OllamaError {
    OllamaError::Nonsense {
        what,
        found: cut(found),
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(QUOTE).collect()
}

/// Ollama's name of a model always has a tag.
pub fn with_tag(model: &str) -> String {
    let last = model.rsplit('/').next().unwrap_or(model);
    if last.contains(':') {
        model.to_owned()
    } else {
        format!("{model}:latest")
    }
}

#[cfg(test)]
mod tests;
