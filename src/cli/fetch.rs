//! `enginewright fetch`, `check` and `collect`: what Jobs and engines do with a node's cache.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;

use super::access::AccessArgs;
use super::process::on_one_thread;
use super::{Exit, fail};
use crate::api::{ModelSource, Precision, RevisionId, Sha256Hex};
use crate::cache::{self, Meter, Report};
use crate::engine::Served;
use crate::telemetry::TelemetryArgs;

/// Bring a model into a cache: fetched, verified, and complete under its revision's name
///
/// Runs as a Job of the operator; again after an interruption without harm.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the model comes from, as in `model.source`.
    source: String,

    /// Stands in for the server that the source's name implies, as `model.endpoint`.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    #[command(flatten)]
    access: AccessArgs,

    /// The cache.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,

    /// Name of the revision.
    #[arg(long)]
    revision: String,

    /// What clients write as `model`.
    #[arg(long, value_name = "NAME")]
    served_name: String,

    /// Concurrent sequences.
    #[arg(long, default_value_t = 1)]
    slots: u32,

    /// Longest prompt, in tokens.
    #[arg(long, default_value_t = 3072)]
    max_input_tokens: u32,

    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 1024)]
    max_output_tokens: u32,

    /// SHA-256 that the file must have.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    sha256: Option<Sha256Hex>,

    /// Where the claim of a `pvc://` source is mounted.
    #[arg(long, value_name = "DIR")]
    claims: Option<PathBuf>,

    /// Longest time without progress, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    progress_deadline: u64,

    /// Where to serve `/metrics` meanwhile.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,

    /// File for the result, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

fn digest(text: &str) -> Result<Sha256Hex, String> {
    Sha256Hex::new(text).ok_or_else(|| "64 lower-case hexadecimal digits are expected".to_owned())
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let source = match ModelSource::parse(&self.source) {
            Ok(source) => source,
            Err(error) => return fail(Exit::BadInput, &error),
        };
        let access = match self.access.access(self.endpoint) {
            Ok(access) => access,
            Err(error) => return report(self.report.as_deref(), &Report::Failed(error.failure())),
        };
        let order = cache::Fetch {
            source,
            access,
            cache: self.cache,
            revision: RevisionId::new(self.revision),
            served: Served {
                served_name: self.served_name,
                precision: Precision::Auto,
                slots: self.slots,
                max_input_tokens: self.max_input_tokens,
                max_output_tokens: self.max_output_tokens,
            },
            sha256: self.sha256,
            claims: self.claims,
            progress_deadline: Duration::from_secs(self.progress_deadline),
        };
        let (written, metrics) = (self.report, self.metrics);
        on_one_thread(&self.telemetry, async move {
            let meter = Arc::new(Meter::default());
            if let Some(address) = metrics
                && let Err(problem) = expose(address, Arc::clone(&meter)).await
            {
                return fail(Exit::Environment, &problem);
            }
            report(written.as_deref(), &cache::fetch(order, meter).await)
        })
    }
}

/// Serves what the meter says, for as long as the process lives.
async fn expose(address: SocketAddr, meter: Arc<Meter>) -> Result<(), String> {
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("--metrics {address}: {error}"))?;
    let router = Router::new().route("/metrics", get(move || async move { meter.exposition() }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Writes a report down.
pub(super) fn write_report(path: &Path, report: &Report) -> Result<(), String> {
    serde_json::to_vec(report)
        .map_err(std::io::Error::other)
        .and_then(|json| std::fs::write(path, json))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes down what came of it.
fn report(file: Option<&Path>, report: &Report) -> Exit {
    if let Some(path) = file
        && let Err(error) = write_report(path, report)
    {
        return fail(Exit::Environment, &error);
    }
    match report {
        Report::Fetched { .. } | Report::Built { .. } => Exit::Ok,
        Report::Failed(failure) if failure.transient => fail(Exit::Environment, &failure.message),
        Report::Failed(failure) => fail(Exit::Engine, &failure.message),
    }
}

/// Check that a model is still the one that was verified
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,

    /// SHA-256 that it must have.
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    sha256: Sha256Hex,
}

impl Check {
    pub(super) fn run(self) -> Exit {
        match cache::check(&self.model, &self.sha256) {
            Ok(()) => Exit::Ok,
            Err(error) => fail(Exit::Engine, &error),
        }
    }
}

/// Delete every revision of a cache but those to keep
#[derive(Debug, clap::Args)]
pub(super) struct Collect {
    /// The cache.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,

    /// Revisions that stay, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "REVISIONS")]
    keep: Vec<String>,
}

impl Collect {
    pub(super) fn run(self) -> Exit {
        let keep: BTreeSet<RevisionId> = self.keep.into_iter().map(RevisionId::new).collect();
        match cache::collect(&self.cache, &keep) {
            Ok(()) => Exit::Ok,
            Err(error) => fail(Exit::Environment, &error),
        }
    }
}
