//! `enginewright run`: the whole thing on one machine without Kubernetes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::access::AccessArgs;
use super::engine::TensorRtArgs;
use super::process::on_one_thread;
use super::{Exit, fail};
use crate::local::{self, End, Options, RunError};
use crate::telemetry::TelemetryArgs;

/// Exit code after a second Ctrl-C, as a shell reports SIGINT.
const INTERRUPTED: u8 = 130;

/// Where `run` keeps its state. Shared with `status` and `engine build`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StateArgs {
    /// State directory: what was proven, what failed, models. One `run` at a time uses it. By
    /// default `/var/lib/enginewright` as root, else `$XDG_STATE_HOME/enginewright` or
    /// `~/.local/state/enginewright`.
    #[arg(long, value_name = "DIR", env = "ENGINEWRIGHT_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The directory named, or the usual one of this user.
    pub(super) fn directory(self) -> PathBuf {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        self.state_dir.unwrap_or_else(|| {
            if rustix::process::geteuid().is_root() {
                return PathBuf::from("/var/lib/enginewright");
            }
            variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
                .unwrap_or_else(std::env::temp_dir)
                .join("enginewright")
        })
    }
}

/// Serve a model on this machine: engine, gateway and fallback as processes, proven, watched and
/// rolled back
///
/// The file is read again when it changes, and on SIGHUP. SIGTERM or Ctrl-C ends in order, a second
/// one at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// YAML file with one `InferenceEngine`.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Address and port of the endpoint.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        env = "ENGINEWRIGHT_LISTEN"
    )]
    listen: SocketAddr,

    /// Only answer requests that carry one of the keys in this file, one a line.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_API_KEYS_FILE")]
    api_keys_file: Option<PathBuf>,

    /// The program `ollama` for the managed fallback; the first in PATH by default.
    #[arg(long, value_name = "FILE", env = "ENGINEWRIGHT_OLLAMA")]
    ollama: Option<PathBuf>,

    #[command(flatten)]
    tensorrt: TensorRtArgs,

    /// Act as this hardware would, described as for `plan`: an engine is built that does not run here.
    #[arg(long, value_name = "FILE", hide = true)]
    hardware: Option<PathBuf>,

    #[command(flatten)]
    access: AccessArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl Args {
    pub(super) fn run(self) -> ExitCode {
        let Self {
            file,
            listen,
            api_keys_file,
            ollama,
            tensorrt,
            hardware,
            access,
            state,
            telemetry,
        } = self;
        let hardware = match hardware.as_deref().map(super::plan::described).transpose() {
            Ok(hardware) => hardware,
            Err(problem) => return fail(Exit::BadInput, &problem).into(),
        };
        // On this thread: children die with the one that started them.
        on_one_thread(&telemetry, async move {
            let access = match access.access(None) {
                Ok(access) => access,
                Err(error) => return fail(Exit::BadInput, &error).into(),
            };
            let options = Options {
                file,
                state_dir: state.directory(),
                listen,
                api_keys: api_keys_file,
                ollama,
                path: std::env::var_os("PATH"),
                home: std::env::var_os("HOME").map(PathBuf::from),
                tensorrt: tensorrt.search(),
                hardware,
                access,
            };
            match local::run(options).await {
                Ok(End::Orderly) => Exit::Ok.into(),
                Ok(End::Hard) => ExitCode::from(INTERRUPTED),
                Err(error) => fail(exit_of(&error), &error).into(),
            }
        })
    }
}

fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::Config(_) => Exit::BadInput,
        RunError::Store(_)
        | RunError::PortInUse(_)
        | RunError::Listen(..)
        | RunError::System(..)
        | RunError::Client(_) => Exit::Environment,
    }
}
