//! `enginewright engine build`: from a model on this machine to an engine bundle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use super::model::{IdentifyError, encode_whole, identify};
use super::progress::{Pulse, Teller};
use super::source::{ShapeArgs, SourceArgs, Wanted};
use super::{TensorRtArgs, exit_of};
use crate::api::Reason;
use crate::build::{self, BuildError, Cost, Order, Outcome};
use crate::cache::Report;
use crate::cli::fetch::write_report;
use crate::cli::run::StateArgs;
use crate::cli::{Exit, fail, out};
use crate::engine::{BUILDER_VERSION, CHUNK, Format, KeyInputs, group_in_key};
use crate::hardware::{Bytes, Hardware, Platform, Sm, probe};
use crate::local::build::blame;
use crate::model;
use crate::model::gguf::GgufFile;
use crate::network::{Config, Encoding, Form, Graph, Options, describe};
use crate::planner::transient;
use crate::store::bundle::Bundle;
use crate::telemetry::{self, TelemetryArgs};
use crate::tensorrt::{self, BuilderOptions, Library, TensorRtError};
use crate::text::TextFiles;
use crate::weights::{EncodeOptions, Weights};

/// Compute capabilities that TensorRT-RTX builds for by name; for another GPU it builds for all.
const TARGETS: [Sm; 6] = [
    Sm::new(7, 5),
    Sm::new(8, 0),
    Sm::new(8, 6),
    Sm::new(8, 9),
    Sm::new(12, 0),
    Sm::new(12, 1),
];

/// Build the engine of a model for this machine
///
/// The directory of the bundle is named by the engine's key and printed; one that is there and whole is
/// not built again. SIGTERM or Ctrl-C stops the build and leaves nothing, a second one ends at once.
/// TensorRT-RTX builds without a GPU, TensorRT needs the GPU that the engine is for. Exit codes: 0 the
/// bundle is there, 1 a flag, the resource or the model is wrong, 2 too little memory or disk, 3 TensorRT
/// refuses, 4 TensorRT or a file cannot be had, 7 stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    shape: ShapeArgs,

    /// Folder that holds bundles; `engines` in the state directory by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Build also when the engine is there.
    #[arg(long)]
    again: bool,

    /// Compute capability that the engine is for, where this machine has no GPU: `8.9`.
    #[arg(long, value_name = "SM")]
    sm: Option<Sm>,

    /// How attention is made of TensorRT's layers.
    #[arg(long, value_enum, default_value_t)]
    attention: Attention,

    /// Device memory for the scratch of one layer, in MiB; all there is by default.
    #[arg(long, value_name = "MIB")]
    workspace: Option<u64>,

    /// Threads of the builder and of the rounding of weights; all processors by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// File in which TensorRT's measurements are kept from build to build.
    #[arg(long, value_name = "FILE")]
    timing_cache: Option<PathBuf>,

    /// File for Prometheus' textfile collector, written while the build runs.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,

    /// Seconds without progress after which the build ends by itself; never by default.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    progress_deadline: Option<u64>,

    /// File that gets what came of it, as JSON: for the Job that runs it.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    #[command(flatten)]
    tensorrt: TensorRtArgs,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Which layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Attention {
    /// Native where this TensorRT has it, else split.
    #[default]
    Auto,
    /// KV-cache update, attention and rotary embedding as layers (TensorRT 10.15, TensorRT-RTX).
    Native,
    /// Layers of TensorRT 10.3 only.
    Split,
}

/// Why there is no engine, with the exit code.
struct Failed(Exit, String);

fn bad(error: &dyn std::fmt::Display) -> Failed {
    Failed(Exit::BadInput, error.to_string())
}

impl From<IdentifyError> for Failed {
    fn from(error: IdentifyError) -> Self {
        match error {
            IdentifyError::Stopped => BuildError::Stopped.into(),
            other => bad(&other),
        }
    }
}

impl From<TensorRtError> for Failed {
    fn from(error: TensorRtError) -> Self {
        Self(Exit::Environment, error.to_string())
    }
}

impl From<BuildError> for Failed {
    fn from(error: BuildError) -> Self {
        let exit = match &error {
            BuildError::Room(_) => Exit::Infeasible,
            BuildError::Bundle(error) => exit_of(error),
            BuildError::Weights(_) => Exit::BadInput,
            BuildError::Stopped => Exit::Stopped,
            BuildError::Busy { .. } | BuildError::TensorRt(TensorRtError::Write(_)) => {
                Exit::Environment
            }
            BuildError::Laying(_) | BuildError::Network(_) | BuildError::TensorRt(_) => {
                Exit::Engine
            }
        };
        Self(exit, error.to_string())
    }
}

impl Args {
    pub(super) fn run(self) -> Exit {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = match listen(&stop) {
            Ok(runtime) => runtime,
            Err(error) => return fail(Exit::Environment, &error),
        };
        let entered = runtime.enter();
        let guard = match telemetry::init(&self.telemetry) {
            Ok(guard) => guard,
            Err(error) => return fail(Exit::BadInput, &error),
        };
        let pulse = Arc::new(Pulse::default());
        if let Some(seconds) = self.progress_deadline {
            let (pulse, report) = (Arc::clone(&pulse), self.report.clone());
            runtime.spawn(end_when_still(pulse, Duration::from_secs(seconds), report));
        }
        let report = self.report.clone();
        let exit = match self.build(&stop, &pulse) {
            Ok(bundle) => told(report.as_deref(), &built(&bundle))
                .unwrap_or_else(|| out(&format!("{}\n", bundle.path().display()))),
            Err(Failed(exit, message)) => {
                let failure = blame(Some(i32::from(exit as u8)), &message);
                let untold = told(report.as_deref(), &Report::Failed(failure));
                untold.unwrap_or_else(|| fail(exit, &message))
            }
        };
        drop(guard);
        drop(entered);
        // The task that waits for signals never ends by itself.
        runtime.shutdown_background();
        exit
    }

    fn build(self, stop: &AtomicBool, pulse: &Pulse) -> Result<Bundle, Failed> {
        let wanted = self
            .source
            .wanted(&self.shape)
            .map_err(|error| bad(&error))?;
        let library = tensorrt::load(&self.tensorrt.search())?;
        let hardware = probe::probe();
        let mut weights = Weights::open(&wanted.model).map_err(|error| bad(&error))?;
        let digest = identify(&mut weights, wanted.sha256.as_deref(), stop)?;
        let facts = weights.facts();
        let format = wanted
            .format(&hardware, facts)
            .map_err(|error| bad(&error))?;
        let form = self.form(&library)?;
        let model = (facts, digest);
        let inputs = self.inputs(&wanted, &hardware, model, (format, form), &library)?;
        let graph = graph(&weights, &wanted, &inputs, form)?;
        let text = text(&wanted.model)?;
        let config = serde_json::to_vec_pretty(facts).map_err(|error| bad(&error))?;
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| self.state.clone().directory().join("engines"));
        let to = out.join(inputs.key().as_str());
        tracing::info!(key = %inputs.key(), format = format.name(), attention = ?form, "engine");
        let order = Order {
            options: self.options(&library, inputs.sm),
            inputs,
            graph: &graph,
            model: facts.name.clone(),
            tokenizer: text.tokenizer.as_bytes(),
            template: text.template.as_bytes(),
            config: &config,
            timing_cache: self.timing_cache.as_deref(),
            memory_limit: wanted.memory_limit,
            machine: hardware.summary(),
            on_gpu: hardware.platform().is_some(),
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            again: self.again,
        };
        let threads = self
            .threads
            .map_or_else(available, |threads| threads as usize);
        let rounding = EncodeOptions {
            threads: std::num::NonZeroUsize::new(threads).unwrap_or(std::num::NonZeroUsize::MIN),
            ..EncodeOptions::default()
        };
        let teller = Teller::new(stop, pulse, self.metrics_file.clone());
        let built = build::build(
            &library,
            &order,
            &|spec, take| encode_whole(&weights, spec, rounding, take),
            &to,
            &teller,
        );
        teller.end(built.is_ok());
        match built? {
            Outcome::There(bundle) => {
                tracing::info!("the engine was there already, whole and of this key");
                Ok(bundle)
            }
            Outcome::Built(bundle, cost) => {
                tell(&bundle, &cost);
                Ok(bundle)
            }
        }
    }

    fn form(&self, library: &Library) -> Result<Form, Failed> {
        match (self.attention, library.capabilities().llm_layers) {
            (Attention::Auto | Attention::Native, true) => Ok(Form::Native),
            (Attention::Auto, false) | (Attention::Split, _) => Ok(Form::Split),
            (Attention::Native, false) => Err(Failed(
                Exit::BadInput,
                format!(
                    "{library:?} has no attention layer (from 10.15 on): use --attention split"
                ),
            )),
        }
    }

    fn inputs(
        &self,
        wanted: &Wanted,
        hardware: &Hardware,
        (facts, model_digest): (&model::ModelFacts, String),
        (format, form): (Format, Form),
        library: &Library,
    ) -> Result<KeyInputs, Failed> {
        let sm = self.sm.or_else(|| hardware.sm()).ok_or_else(|| {
            let text = "this machine has no GPU: say for which compute capability the engine is, for \
                        example --sm 8.9";
            Failed(Exit::BadInput, text.to_owned())
        })?;
        if !format.exists_on(sm) {
            let text = format!(
                "{} does not exist on SM {sm}: it needs {}",
                format.name(),
                format.needs_sm()
            );
            return Err(Failed(Exit::BadInput, text));
        }
        // The other form than this TensorRT's own is another network.
        let own = library.capabilities().llm_layers;
        let version = match (form, own) {
            (Form::Native, true) | (Form::Split, false) => BUILDER_VERSION.to_owned(),
            (Form::Split, true) => format!("{BUILDER_VERSION}/split"),
            (Form::Native, false) => format!("{BUILDER_VERSION}/native"),
        };
        let here = if std::env::consts::ARCH == "aarch64" {
            Platform::L4t
        } else {
            Platform::X86
        };
        Ok(KeyInputs {
            model_digest,
            builder_version: version,
            format,
            group: group_in_key(facts, format),
            slots: wanted.request.slots,
            max_input_tokens: wanted.request.max_input_tokens,
            max_output_tokens: wanted.request.max_output_tokens,
            chunk: CHUNK.min(wanted.request.context_tokens()),
            tensorrt: library.version_in_key(),
            sm,
            platform: hardware.platform().unwrap_or(here),
        })
    }

    fn options(&self, library: &Library, sm: Sm) -> BuilderOptions {
        let named = library.capabilities().targets && TARGETS.contains(&sm);
        BuilderOptions {
            workspace_bytes: self.workspace.map(|mib| mib.saturating_mul(1 << 20)),
            threads: self.threads,
            target_sm: named.then(|| u32::from(sm.major) * 10 + u32::from(sm.minor)),
            detailed: true,
            ..BuilderOptions::default()
        }
    }
}

fn graph(
    weights: &Weights,
    wanted: &Wanted,
    inputs: &KeyInputs,
    form: Form,
) -> Result<Graph, Failed> {
    let config = Config::new(weights.facts(), weights).map_err(|error| bad(&error))?;
    let encoding = match inputs.format {
        Format::Int8 => Encoding::Int8,
        Format::Int4 => {
            let block = u32::try_from(inputs.group).unwrap_or_default();
            if block == 0 {
                let text = "this model's rows cannot be cut into groups of 64 or 128: use Int8";
                return Err(Failed(Exit::BadInput, text.to_owned()));
            }
            Encoding::Int4 { block }
        }
        _ => Encoding::F16,
    };
    let context = wanted.request.context_tokens();
    let chunk = inputs.chunk;
    // The last run of a prompt may be padded up to a whole chunk.
    let capacity = context.saturating_add(chunk);
    let options = Options::serving(form, encoding, wanted.request.slots, capacity, chunk);
    describe(&config, &options).map_err(|error| bad(&error))
}

fn text(model: &std::path::Path) -> Result<TextFiles, Failed> {
    if model.is_dir() {
        let text = "the tokenizer of a safetensors model is not read yet: build from a GGUF file";
        return Err(Failed(Exit::BadInput, text.to_owned()));
    }
    let file = GgufFile::open(model).map_err(|error| bad(&error))?;
    TextFiles::from_gguf(&file).map_err(|error| bad(&error))
}

fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn tell(bundle: &Bundle, cost: &Cost) {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let ratio = cost.peak.resident as f64 / cost.weight_bytes.max(1) as f64;
    let plan = bundle.manifest().files.get(crate::store::bundle::PLAN);
    tracing::info!(
        weights_s = cost.weights.as_secs_f64(),
        engine_s = cost.engine.as_secs_f64(),
        plan = %Bytes(plan.map_or(0, |plan| plan.size)),
        weights = %Bytes(cost.weight_bytes),
        peak_memory = %Bytes(cost.peak.resident),
        anonymous = %Bytes(cost.peak.anonymous),
        peak_by_weights = (ratio * 100.0).round() / 100.0,
        "engine built"
    );
}

fn built(bundle: &Bundle) -> Report {
    let name = bundle.path().file_name().unwrap_or_default();
    Report::Built {
        bundle: name.to_string_lossy().into_owned(),
    }
}

/// Writes the report where one is wanted; how to end where that fails.
fn told(file: Option<&Path>, report: &Report) -> Option<Exit> {
    let written = write_report(file?, report);
    written.err().map(|error| fail(Exit::Environment, &error))
}

/// Ends the process when nothing moves: TensorRT hears only between two steps that it shall stop, and
/// what hangs makes none. A bundle that is not whole has no name, so that nothing is left.
async fn end_when_still(pulse: Arc<Pulse>, deadline: Duration, report: Option<PathBuf>) {
    pulse.is_still(deadline).await;
    let text = format!("Nothing moved for {} s.", deadline.as_secs());
    let stalled = Report::Failed(transient(Reason::BuildStalled, &text));
    let exit = told(report.as_deref(), &stalled).unwrap_or_else(|| fail(Exit::Stopped, &text));
    std::process::exit(i32::from(exit as u8));
}

/// Sets `stop` at the first SIGTERM or Ctrl-C; ends the process at the second.
fn listen(stop: &Arc<AtomicBool>) -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let stop = Arc::clone(stop);
    let entered = runtime.enter();
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(entered);
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(Exit::Stopped as u8));
            }
            tracing::info!("stopping at TensorRT's next step; once more ends at once");
        }
    });
    Ok(runtime)
}
