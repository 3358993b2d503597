//! Where requests go: the route table, a JSON file that `run` (later the operator) replaces
//! atomically and the gateway re-reads. This module only says what a table is and which tables are
//! refused; it reads no file and opens no connection.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the file format written today.
pub const ROUTES_VERSION: u32 = 1;

/// The whole routing state of one gateway.
///
/// Written to a temporary name in the same directory and renamed over the old file; the gateway
/// looks every 200 ms and at once on SIGHUP. `/readyz` reports the `generation` in force, so that
/// the writer can wait for it before stopping what it replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// [`ROUTES_VERSION`].
    pub version: u32,
    /// Counted up by the writer with each change.
    pub generation: u64,
    /// The model name that clients use and see, whoever answers.
    pub served_name: String,
    /// Tried first. Absent while there is no proven engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Upstream>,
    /// Tried when the primary fails or is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Upstream>,
    /// The model's GGUF file, of which only the metadata is read: its chat template renders the
    /// prompt when the fallback continues an answer, and gives the fallback the same prompt as the
    /// engine. Without it a broken stream ends with an error event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf: Option<PathBuf>,
    /// How long to wait for what.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When to stop asking an upstream that fails.
    #[serde(default)]
    pub breaker: BreakerSettings,
}

/// A server that requests can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Origin, for example `http://127.0.0.1:41871`; no path. `https` costs memory (certificate
    /// store) that `http` does not.
    pub url: String,
    /// Named in the back-end header of each answer: `TensorRT`, `LastGood`, `Ollama`, `Cpu`.
    pub backend: String,
    /// The model's name there.
    pub model: String,
    /// Context length in tokens to ask Ollama for (`num_ctx`). Each change reloads the model, so
    /// whoever warms it must ask for the same. Absent: what Ollama was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u32>,
    /// File with the bearer token to send. The client's own key is never passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamKind {
    /// `enginewright serve`: every API of the gateway.
    Enginewright,
    /// Ollama: requests are translated to its native API.
    Ollama,
    /// Any server with `OpenAI`'s API (Triton, trtllm-serve, vLLM): its own clients are passed through,
    /// others' requests are translated.
    OpenAi,
}

/// How long the gateway waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For a connection, to either upstream.
    pub connect_ms: u64,
    /// For the primary's first token, its queue included.
    pub first_token_ms: u64,
    /// Between two tokens of the primary.
    pub stall_ms: u64,
    /// For the fallback's first token: it may have to load the model.
    pub fallback_first_token_ms: u64,
    /// Between two tokens of the fallback.
    pub fallback_stall_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_ms: 1_000,
            first_token_ms: 20_000,
            stall_ms: 10_000,
            fallback_first_token_ms: 120_000,
            fallback_stall_ms: 60_000,
        }
    }
}

impl Timeouts {
    /// For a connection.
    pub const fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    /// For the first token of the primary or the fallback.
    pub const fn first_token(&self, fallback: bool) -> Duration {
        Duration::from_millis(if fallback {
            self.fallback_first_token_ms
        } else {
            self.first_token_ms
        })
    }

    /// Between two tokens of the primary or the fallback.
    pub const fn stall(&self, fallback: bool) -> Duration {
        Duration::from_millis(if fallback {
            self.fallback_stall_ms
        } else {
            self.stall_ms
        })
    }
}

/// When to stop asking an upstream that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// How long it stays open the first time, in milliseconds; doubled with each failed trial.
    pub open_ms: u64,
    /// The longest it stays open, in milliseconds.
    pub open_max_ms: u64,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 3,
            open_ms: 500,
            open_max_ms: 15_000,
        }
    }
}

/// Why a route table is refused.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Not JSON, or not a route table.
    #[error("not a route table: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written by another version of this program.
    #[error(
        "route table has version {found}, this program reads version {ROUTES_VERSION}: let the same release write and read it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// A field cannot be used.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl RouteTable {
    /// An empty table: the gateway answers 503 until it has an upstream.
    pub fn empty(served_name: impl Into<String>) -> Self {
        Self {
            version: ROUTES_VERSION,
            generation: 0,
            served_name: served_name.into(),
            primary: None,
            fallback: None,
            gguf: None,
            timeouts: Timeouts::default(),
            breaker: BreakerSettings::default(),
        }
    }

    /// Reads and checks a table.
    ///
    /// # Errors
    /// [`RouteError`], naming the field.
    pub fn parse(json: &[u8]) -> Result<Self, RouteError> {
        let table: Self = serde_json::from_slice(json)?;
        table.check()?;
        Ok(table)
    }

    /// The file's content.
    ///
    /// # Errors
    /// When the table itself is not valid: a writer should notice before its reader does.
    pub fn to_json(&self) -> Result<Vec<u8>, RouteError> {
        self.check()?;
        Ok(serde_json::to_vec_pretty(self)?)
    }

    fn check(&self) -> Result<(), RouteError> {
        if self.version != ROUTES_VERSION {
            return Err(RouteError::Version {
                found: self.version,
            });
        }
        if self.served_name.is_empty() {
            return Err(RouteError::Field {
                field: "served_name",
                problem: "must not be empty".into(),
            });
        }
        if let Some(primary) = &self.primary {
            primary.check("primary")?;
        }
        if let Some(fallback) = &self.fallback {
            fallback.check("fallback")?;
        }
        Ok(())
    }
}

impl Upstream {
    fn check(&self, field: &'static str) -> Result<(), RouteError> {
        let refuse = |problem: String| Err(RouteError::Field { field, problem });
        let Ok(uri) = self.url.parse::<http::Uri>() else {
            return refuse(format!("{:?} is not a URL", self.url));
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return refuse(format!(
                "{:?} is not an http:// or https:// origin",
                self.url
            ));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return refuse(format!("{:?} has a path: write the origin only", self.url));
        }
        if http::HeaderValue::from_str(&self.backend).is_err() || self.backend.is_empty() {
            return refuse(format!(
                "backend {:?} cannot be a header value",
                self.backend
            ));
        }
        if self.model.is_empty() {
            return refuse("model must not be empty".into());
        }
        Ok(())
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// The address of a path at this upstream.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Upstream {
        Upstream {
            kind: UpstreamKind::Enginewright,
            url: url.into(),
            backend: "Cpu".into(),
            model: "m".into(),
            context_tokens: None,
            api_key_file: None,
        }
    }

    #[test]
    fn a_table_survives_its_own_file() {
        let mut table = RouteTable::empty("smollm2");
        table.primary = Some(upstream("http://127.0.0.1:4000"));
        table.gguf = Some("/m.gguf".into());
        let json = table.to_json().unwrap();
        assert_eq!(RouteTable::parse(&json).unwrap(), table);
    }

    #[test]
    fn the_smallest_file_gets_defaults() {
        let table =
            RouteTable::parse(br#"{"version":1,"generation":1,"served_name":"m"}"#).unwrap();
        assert_eq!(table.timeouts, Timeouts::default());
        assert_eq!(table.breaker, BreakerSettings::default());
    }

    #[test]
    fn mistakes_name_the_field() {
        let bad = |url: &str| {
            let mut table = RouteTable::empty("m");
            table.fallback = Some(upstream(url));
            table.to_json().unwrap_err().to_string()
        };
        assert!(bad("127.0.0.1:1").starts_with("fallback: "));
        assert!(bad("ftp://h").contains("http://"));
        assert!(bad("http://h/v1").contains("path"));
        let future = br#"{"version":9,"generation":1,"served_name":"m"}"#;
        assert!(
            RouteTable::parse(future)
                .unwrap_err()
                .to_string()
                .contains("version 9")
        );
        let typo = br#"{"version":1,"generation":1,"served_name":"m","fallbak":null}"#;
        assert!(
            RouteTable::parse(typo)
                .unwrap_err()
                .to_string()
                .contains("fallbak")
        );
    }

    #[test]
    fn addresses_do_not_double_the_slash() {
        assert_eq!(
            upstream("http://h:1/").at("/api/chat"),
            "http://h:1/api/chat"
        );
    }
}
