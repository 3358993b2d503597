//! Logs and traces of a process: where they go and how they look. Metrics are registries of the
//! parts that count, see [`crate::server::metrics`]; here is only how they are written.

mod export;

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and traces.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs and traces")]
pub struct TelemetryArgs {
    /// How log lines look on standard error.
    #[arg(long, env = "ENGINEWRIGHT_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: a level, or levels by module, such as `info,enginewright::server=debug`.
    #[arg(
        long,
        env = "ENGINEWRIGHT_LOG",
        value_name = "FILTER",
        default_value = "info,llama-cpp-2=warn"
    )]
    pub log: String,

    /// Send traces to this OpenTelemetry collector (OTLP over HTTP), such as
    /// `http://127.0.0.1:4318`. No traces are made without it.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "--log {filter:?} is no filter: {problem}; write a level such as info, or module=level"
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong.
        problem: String,
    },
    /// The collector's address cannot be used.
    #[error("--otlp-endpoint: {0}")]
    Exporter(String),
    /// It was set up before.
    #[error("logging was already set up")]
    Twice,
}

/// Keeps telemetry going; what is still buffered is sent when it is dropped.
#[derive(Debug)]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take()
            && let Err(error) = traces.shutdown()
        {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// Sets up logs, and traces if asked for, for the whole process. Call it inside the runtime when
/// traces are exported.
///
/// # Errors
/// [`TelemetryError`] when an argument cannot be used, or it was called before.
pub fn init(args: &TelemetryArgs) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| TelemetryError::Filter {
        filter: args.log.clone(),
        problem: error.to_string(),
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let traces = args
        .otlp_endpoint
        .as_deref()
        .map(export::provider)
        .transpose()
        .map_err(TelemetryError::Exporter)?;
    let exported = traces.as_ref().map(export::layer);
    tracing_subscriber::registry()
        .with(exported)
        .with(lines)
        .with(filter)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Guard { traces })
}

/// What a registry has counted, in the `OpenMetrics` format.
pub fn metrics_text(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(error) = encode(&mut text, registry) {
        tracing::error!(%error, "metrics were not written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_quoted_with_the_remedy() {
        let args = TelemetryArgs {
            log_format: LogFormat::Text,
            log: "enginewright=loud".into(),
            otlp_endpoint: None,
        };
        let error = init(&args).unwrap_err().to_string();
        assert!(
            error.contains("enginewright=loud") && error.contains("info"),
            "{error}"
        );
    }
}
