//! `enginewright companion`: keeps a model in the Ollama beside it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::process::{on_one_thread, stop_on_signal};
use super::{Exit, fail, http};
use crate::api::Sha256Hex;
use crate::companion::{Settings, run};
use crate::telemetry::TelemetryArgs;

/// Keep the right model in the Ollama beside this process, loaded or not, as it is told
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where Ollama listens.
    #[arg(long, default_value = "http://127.0.0.1:11434", value_name = "URL")]
    ollama: String,

    /// The model's name in Ollama.
    #[arg(long, value_name = "NAME")]
    model: String,

    /// The GGUF file to hand over; without it the model is one of Ollama's library.
    #[arg(long, value_name = "FILE", requires = "sha256")]
    gguf: Option<PathBuf>,

    /// SHA-256 of that file.
    #[arg(long, value_name = "DIGEST")]
    sha256: Option<String>,

    /// Ollama's own store, where it is on the same file system as the file.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Context to load the model with, in tokens.
    #[arg(long, default_value_t = 4096, value_name = "TOKENS")]
    context: u32,

    /// Threads that Ollama may keep busy.
    #[arg(long, default_value_t = 1)]
    threads: u32,

    /// File with the order: `load`, `standby` or `park`.
    #[arg(long, value_name = "FILE")]
    order: PathBuf,

    /// Where to say how far it is.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let digest = self.sha256.as_deref().map(Sha256Hex::new);
        let file = match (self.gguf, digest) {
            (Some(file), Some(Some(digest))) => Some((file, digest)),
            (None, _) => None,
            (Some(_), _) => {
                return fail(
                    Exit::BadInput,
                    &"--sha256 is 64 lower-case hexadecimal digits",
                );
            }
        };
        let settings = Settings {
            ollama: self.ollama,
            model: self.model,
            file,
            store: self.store,
            context_tokens: self.context,
            threads: self.threads,
            order: self.order,
        };
        let listen = self.listen;
        on_one_thread(&self.telemetry, async move {
            let stop = match stop_on_signal() {
                Ok(stop) => stop,
                Err(error) => {
                    return fail(Exit::Environment, &format!("cannot watch signals: {error}"));
                }
            };
            let listener = match TcpListener::bind(listen).await {
                Ok(listener) => listener,
                Err(error) => return fail(Exit::Environment, &format!("{listen}: {error}")),
            };
            let client = match http::client() {
                Ok(client) => client,
                Err(error) => return fail(Exit::Environment, &error),
            };
            match run(settings, client, listener, stop).await {
                Ok(()) => Exit::Ok,
                Err(error) => fail(Exit::Environment, &error),
            }
        })
    }
}
