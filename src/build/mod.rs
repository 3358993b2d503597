//! From a network and its weights to an engine bundle: lays the weights down in the engine's encodings,
//! lowers the graph to TensorRT's layers, builds, and writes the bundle.
//!
//! It decides how a build runs and what bounds it, not what is built: the graph, the key and the number
//! formats are given. Whatever ends it - an error, a signal, a power cut - there is either no bundle
//! with this name, or the one that was there, or the new one whole.

mod error;
mod lower;
mod memory;
mod progress;
mod sizes;
mod weights;

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

pub use error::BuildError;
pub use lower::{LowerError, lower};
pub use memory::{Peak, Room, RoomError, check_room, free_disk};
pub use progress::{Monitor, Stage};
pub use weights::{Encode, EncodedWeights, Take, WeightsError};

use crate::backend::memory::available;
use crate::engine::KeyInputs;
use crate::network::Graph;
use crate::store::atomic;
use crate::store::bundle::{
    Built, Bundle, BundleError, CONFIG, Draft, EngineFacts, Manifest, PLAN, SCHEMA, TEMPLATE,
    TOKENIZER,
};
use crate::tensorrt::{Builder, BuilderOptions, Library, TensorRtError};
use progress::Phases;

/// Held while a bundle is being made in its folder.
const LOCK: &str = ".lock";

/// What shall be built.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// What the engine is built from and for: its key.
    pub inputs: KeyInputs,
    /// The network.
    pub graph: &'a Graph,
    /// The model's name for itself.
    pub model: String,
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `chat_template.jinja`.
    pub template: &'a [u8],
    /// `config.json`.
    pub config: &'a [u8],
    /// What limits TensorRT.
    pub options: BuilderOptions,
    /// Where TensorRT's measurements are kept from build to build.
    pub timing_cache: Option<&'a Path>,
    /// Most memory, where the spec says.
    pub memory_limit: Option<u64>,
    /// The machine in one line.
    pub machine: String,
    /// Whether it has a GPU.
    pub on_gpu: bool,
    /// Seconds since 1970.
    pub now: u64,
    /// Builds also when the engine is there.
    pub again: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was there, whole and of this key.
    There(Bundle),
    /// It was built.
    Built(Bundle, Cost),
}

/// What a build took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Laying the weights down.
    pub weights: Duration,
    /// TensorRT.
    pub engine: Duration,
    /// Memory of this process from its start.
    pub peak: Peak,
    /// Bytes of weights as given to TensorRT.
    pub weight_bytes: u64,
}

/// Builds the engine and gives the bundle the name `to`.
///
/// # Errors
/// [`BuildError`]; what is at `to` is then what it was.
pub fn build<E: std::error::Error + Send + Sync + 'static>(
    library: &Library,
    order: &Order<'_>,
    encode: &Encode<'_, E>,
    to: &Path,
    monitor: &dyn Monitor,
) -> Result<Outcome, BuildError> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let _lock = lock(parent)?;
    atomic::remove_leftovers(parent);
    if let Some(there) = there(order, to)? {
        return Ok(Outcome::There(there));
    }
    let room = Room {
        memory: available(),
        limit: order.memory_limit,
        disk: free_disk(parent),
    };
    check_room(
        order.graph.weight_bytes(),
        order.inputs.format,
        &room,
        parent,
    )?;
    let mut draft = Draft::begin(parent)?;
    let (facts, cost) = engine(library, order, encode, &mut draft, monitor)?;
    monitor.progress(Stage::Bundle, 0.0, "");
    for (name, bytes) in [
        (TOKENIZER, order.tokenizer),
        (TEMPLATE, order.template),
        (CONFIG, order.config),
    ] {
        draft.file::<BuildError>(name, |file| {
            file.write_all(bytes)
                .map_err(|source| write_error(to, source).into())
        })?;
    }
    let manifest = Manifest {
        schema: SCHEMA,
        key: order.inputs.key(),
        inputs: order.inputs.clone(),
        files: draft.files().clone(),
        built: Built {
            by: concat!("enginewright ", env!("CARGO_PKG_VERSION")).to_owned(),
            tensorrt: format!("{} {}", library.flavour().name(), library.version()),
            machine: order.machine.clone(),
            on_gpu: order.on_gpu,
            seconds: (cost.engine.as_secs_f64() * 10.0).round() / 10.0,
            peak_memory: cost.peak.resident,
            at: order.now,
        },
        engine: facts,
        measured: None,
        digest: String::new(),
    };
    stopped(monitor)?;
    let bundle = draft.publish(&manifest, to)?;
    monitor.progress(Stage::Bundle, 1.0, "");
    Ok(Outcome::Built(bundle, cost))
}

fn write_error(path: &Path, source: std::io::Error) -> BundleError {
    BundleError::Write {
        path: path.to_owned(),
        source,
    }
}

fn stopped(monitor: &dyn Monitor) -> Result<(), BuildError> {
    if monitor.is_stopped() {
        return Err(BuildError::Stopped);
    }
    Ok(())
}

/// One build at a time in a folder: what has a temporary name there belongs to nobody then.
fn lock(parent: &Path) -> Result<File, BuildError> {
    let path = parent.join(LOCK);
    let failed = |source| BuildError::from(write_error(&path, source));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(BuildError::Busy {
            folder: parent.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The engine, if it is at `to` already: whole and of the same key. What is there and no bundle at all
/// is not ours to replace.
fn there(order: &Order<'_>, to: &Path) -> Result<Option<Bundle>, BuildError> {
    let found = Bundle::open(to).and_then(|bundle| bundle.verify(&mut |_, _| {}).map(|()| bundle));
    match found {
        Ok(bundle) if bundle.manifest().key == order.inputs.key() && !order.again => {
            Ok(Some(bundle))
        }
        Ok(_) => Ok(None),
        Err(BundleError::NotABundle { .. }) if is_empty(to) => Ok(None),
        Err(error @ BundleError::NotABundle { .. }) => Err(BundleError::Occupied {
            path: to.to_owned(),
            problem: error.to_string(),
        }
        .into()),
        Err(error) => {
            tracing::warn!(%error, "the engine that is there is built again");
            Ok(None)
        }
    }
}

fn is_empty(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn engine<E: std::error::Error + Send + Sync + 'static>(
    library: &Library,
    order: &Order<'_>,
    encode: &Encode<'_, E>,
    draft: &mut Draft,
    monitor: &dyn Monitor,
) -> Result<(EngineFacts, Cost), BuildError> {
    let begun = Instant::now();
    let weight_bytes = order.graph.weight_bytes();
    let mut laid = |done: u64| {
        monitor.progress(Stage::Weights, ratio(done, weight_bytes), "");
        if monitor.is_stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let weights = EncodedWeights::lay(order.graph, draft.path(), encode, &mut laid)
        .map_err(BuildError::from_weights)?;
    let laid = begun.elapsed();
    let begun = Instant::now();
    // TensorRT has copied what it has read: the pages can go, and come again if it looks again.
    let release = || weights.release();
    let (result, peak) = memory::watched(&release, || {
        monitor.progress(Stage::Network, 0.0, "");
        let mut builder = Builder::new(library, &order.options)?;
        lower(&mut builder, order.graph, &weights)?;
        let layers = builder.layers()?;
        load_timing_cache(&mut builder, order.timing_cache);
        stopped(monitor)?;
        draft.file::<BuildError>(PLAN, |file| {
            let phases = Phases::new(monitor);
            builder.build(&phases, file).map_err(BuildError::from)
        })?;
        save_timing_cache(&mut builder, order.timing_cache);
        Ok::<u32, BuildError>(layers)
    });
    let facts = error::facts(order.graph, &order.model, result?);
    let cost = Cost {
        weights: laid,
        engine: begun.elapsed(),
        peak,
        weight_bytes,
    };
    Ok((facts, cost))
}

/// A cache that cannot be used costs time and nothing else.
fn load_timing_cache(builder: &mut Builder, path: Option<&Path>) {
    let Some(path) = path else { return };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the timing cache cannot be read");
            Vec::new()
        }
    };
    let loaded = builder.load_timing_cache(&bytes);
    let loaded = loaded.or_else(|error| match error {
        TensorRtError::Unsupported { .. } => Err(error),
        other => {
            tracing::warn!(error = %other, "the timing cache is begun anew");
            builder.load_timing_cache(&[])
        }
    });
    if let Err(error) = loaded {
        tracing::debug!(%error, "no timing cache");
    }
}

fn save_timing_cache(builder: &mut Builder, path: Option<&Path>) {
    let Some(path) = path else { return };
    let mut bytes = Vec::new();
    let kept = match builder.save_timing_cache(&mut bytes) {
        Ok(()) => atomic::write(path, &bytes),
        Err(error) => {
            tracing::debug!(%error, "no timing cache");
            return;
        }
    };
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "the timing cache is not kept");
    }
}

fn ratio(done: u64, all: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a progress bar")]
    let ratio = done as f64 / all.max(1) as f64;
    ratio.min(1.0)
}
