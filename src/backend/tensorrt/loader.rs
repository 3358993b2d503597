//! From the files of an engine to a device that runs it: refuses first, loads then.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::backend::TensorRt;
use super::device::Device;
use super::plan::Geometry;
use super::plan::memory::Need;
use super::ports::{self, Tensor};
use super::sessions::sessions;
use crate::backend::{Backend, LoadError, Loader, memory};
use crate::hardware::{Platform, Sm};
use crate::store::atomic;
use crate::tensorrt::{
    self, CudaError, DeviceFacts, Engine, Gpu, Library, MappedFile, Search, Selector,
    TensorRtError, TrustedPlan, Wait,
};

/// What an engine was built for: native code for exactly that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltFor {
    /// TensorRT to the build number, as [`Library::version_in_key`] writes it.
    pub tensorrt: String,
    /// Compute capability.
    pub sm: Sm,
    /// Operating system and architecture.
    pub platform: Platform,
}

/// What is loaded, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRtConfig {
    /// The plan.
    pub plan: PathBuf,
    /// SHA-256 of the plan as the bundle states it, hexadecimal.
    pub sha256: String,
    /// What the bundle says it was built for.
    pub built_for: BuiltFor,
    /// Where kernels that TensorRT compiles on this device are kept; `None`: nowhere.
    pub kernels: Option<PathBuf>,
    /// Where the shim and TensorRT are.
    pub search: Search,
    /// The CUDA device.
    pub device: u32,
    /// How the engine thread waits for it.
    pub wait: Wait,
}

/// Loads an engine.
#[derive(Clone, Debug)]
pub struct TensorRtLoader {
    config: TensorRtConfig,
}

impl TensorRtLoader {
    /// A loader; nothing is read yet.
    pub const fn new(config: TensorRtConfig) -> Self {
        Self { config }
    }

    /// Loads the engine and meets the first shapes.
    ///
    /// # Errors
    /// [`LoadError`], which says what to do.
    pub fn load(&self) -> Result<TensorRt, LoadError> {
        let begun = Instant::now();
        let config = &self.config;
        let library = tensorrt::load(&config.search).map_err(model)?;
        let (gpu, mut stream) = Gpu::open(config.device, config.wait).map_err(device)?;
        let facts = gpu.facts().map_err(device)?;
        config.built_for.check(&library, &facts)?;
        let plan = MappedFile::open(&config.plan).map_err(model)?;
        let trusted = TrustedPlan::check(plan.bytes(), &config.sha256).map_err(model)?;
        // Before TensorRT finds out: the weights alone.
        fits(plan.bytes().len() as u64, None, available(&gpu)?)?;
        let engine = Engine::load(&library, trusted).map_err(model)?;
        drop(plan);
        let (ports, geometry) = describe(&engine)?;
        let kernels = config.kernels.as_deref().map(read_kernels);
        let made = sessions(
            &engine,
            (&ports, &geometry),
            kernels.unwrap_or_default(),
            &mut stream,
        );
        let (sessions, activations) = made.map_err(model)?;
        let need = Need::new(&geometry, activations);
        fits(0, Some((&geometry, need)), available(&gpu)?)?;
        let opened = begun.elapsed();
        let parts = (ports, geometry);
        let running = Device::new((gpu, stream), engine, parts, need, sessions, config.wait);
        let mut backend = TensorRt::new(running.map_err(device)?);
        backend
            .warm()
            .map_err(|error| LoadError::Model(format!("the first steps failed: {error}")))?;
        if let (Some(path), Some(kernels)) = (&config.kernels, backend.kernels()) {
            keep_kernels(path, &kernels);
        }
        tracing::info!(
            device = facts.name,
            tensorrt = %library.version(),
            slots = backend.capabilities().slots,
            context_tokens = backend.capabilities().context_tokens,
            kv_cache_mib = need.cache >> 20,
            activations_mib = need.activations >> 20,
            opened_s = opened.as_secs_f64(),
            warm_s = begun.elapsed().saturating_sub(opened).as_secs_f64(),
            "engine loaded"
        );
        Ok(backend)
    }
}

impl Loader for TensorRtLoader {
    fn run(self: Box<Self>, drive: &mut dyn FnMut(&mut dyn Backend)) -> Result<(), LoadError> {
        let mut backend = self.load()?;
        drive(&mut backend);
        Ok(())
    }
}

impl BuiltFor {
    /// Compares with this machine.
    fn check(&self, library: &Library, facts: &DeviceFacts) -> Result<(), LoadError> {
        let here = Self {
            tensorrt: library.version_in_key(),
            sm: facts.sm,
            platform: platform(),
        };
        self.compare(&here)
    }

    /// Refuses an engine for another machine, naming every difference.
    ///
    /// # Errors
    /// [`LoadError::Model`] with the differences.
    pub fn compare(&self, here: &Self) -> Result<(), LoadError> {
        let platform = |platform| match platform {
            Platform::L4t => "Jetson Linux".to_owned(),
            Platform::X86 => "Linux on x86-64".to_owned(),
        };
        let differences: Vec<String> = [
            ("TensorRT", self.tensorrt.clone(), here.tensorrt.clone()),
            (
                "compute capability",
                self.sm.to_string(),
                here.sm.to_string(),
            ),
            ("platform", platform(self.platform), platform(here.platform)),
        ]
        .into_iter()
        .filter(|(_, built, found)| built != found)
        .map(|(what, built, found)| format!("{what} {built}, here is {found}"))
        .collect();
        if differences.is_empty() {
            return Ok(());
        }
        Err(LoadError::Model(format!(
            "the engine was built for {}: build it again on this machine",
            differences.join(" and for ")
        )))
    }
}

/// What this program was compiled for.
pub const fn platform() -> Platform {
    if cfg!(target_arch = "aarch64") {
        Platform::L4t
    } else {
        Platform::X86
    }
}

/// Reads off the engine what its tensors are.
fn describe(engine: &Engine) -> Result<(ports::Ports, Geometry), LoadError> {
    let profiles = engine.profiles().map_err(model)?;
    let tensors: Result<Vec<Tensor>, TensorRtError> = engine
        .tensors()
        .map_err(model)?
        .into_iter()
        .map(|tensor| {
            let bounds = (0..profiles).map(|profile| {
                let shape = |selector| engine.profile_shape(&tensor.name, profile, selector);
                Ok((shape(Selector::Min)?, shape(Selector::Max)?))
            });
            let bounds = if tensor.is_input {
                Some(bounds.collect::<Result<Vec<_>, TensorRtError>>()?)
            } else {
                None
            };
            Ok(Tensor {
                name: tensor.name,
                dims: tensor.dims,
                profiles: bounds,
            })
        })
        .collect();
    ports::read(&tensors.map_err(model)?).map_err(model)
}

/// Bytes that may be taken: what the device has free, and on a Jetson, whose memory is the
/// machine's, what the machine and the control group leave.
fn available(gpu: &Gpu) -> Result<u64, LoadError> {
    let (free, _) = gpu.memory().map_err(device)?;
    let integrated = gpu.is_integrated().map_err(device)?;
    let host = memory::available().filter(|_| integrated);
    Ok(host.map_or(free, |host| host.min(free)))
}

/// Refuses with the arithmetic what does not fit.
fn fits(weights: u64, rest: Option<(&Geometry, Need)>, available: u64) -> Result<(), LoadError> {
    let need = match rest {
        Some((geometry, need)) => memory::Need {
            weights,
            kv_cache: need.cache,
            slots: geometry.slots,
            context_tokens: geometry.capacity,
            compute: need.step(),
        },
        None => memory::Need {
            weights,
            slots: 1,
            ..memory::Need::default()
        },
    };
    need.check(available).map_err(LoadError::Memory)
}

/// Kernels kept by an earlier start. Whether they fit, TensorRT checks by itself.
fn read_kernels(path: &Path) -> Vec<u8> {
    match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "kept kernels cannot be read");
            Vec::new()
        }
    }
}

/// Keeps kernels for the next start, which works without them, only later.
fn keep_kernels(path: &Path, kernels: &[u8]) {
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let kept = folder.and_then(|()| atomic::write(path, kernels));
    if let Err(error) = kept {
        tracing::info!(path = %path.display(), %error, "compiled kernels are not kept");
    }
}

fn model(error: impl std::fmt::Display) -> LoadError {
    LoadError::Model(error.to_string())
}

fn device(error: CudaError) -> LoadError {
    match error {
        CudaError::Memory { .. } => LoadError::Memory(error.to_string()),
        other => LoadError::Model(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orin() -> BuiltFor {
        BuiltFor {
            tensorrt: "10.3.0.30".into(),
            sm: Sm::new(8, 7),
            platform: Platform::L4t,
        }
    }

    #[test]
    fn an_engine_for_another_machine_is_refused_with_every_difference() {
        assert!(orin().compare(&orin()).is_ok());
        let here = BuiltFor {
            tensorrt: "rtx-1.6.1.120".into(),
            sm: Sm::new(9, 0),
            platform: Platform::X86,
        };
        let error = orin().compare(&here).unwrap_err().to_string();
        for part in [
            "10.3.0.30, here is rtx-1.6.1.120",
            "8.7, here is 9.0",
            "Jetson Linux, here is Linux on x86-64",
            "build it again on this machine",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let near = BuiltFor {
            tensorrt: "10.3.0.26".into(),
            ..orin()
        };
        let error = orin().compare(&near).unwrap_err().to_string();
        assert!(!error.contains("compute capability"), "{error}");
    }

    #[test]
    fn kept_kernels_come_back_and_are_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache").join("kernels");
        assert!(read_kernels(&path).is_empty());
        keep_kernels(&path, b"kernels");
        assert_eq!(read_kernels(&path), b"kernels");
        keep_kernels(Path::new("/proc/nowhere/kernels"), b"kernels");
    }
}
