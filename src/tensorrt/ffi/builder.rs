//! A network in the making and the engine that comes of it.

use std::ffi::CString;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::MappedFile;
use super::callback::{self, Progress, ProgressTarget, Sink};
use super::library::Library;
use super::raw::{BuildOptions, MAX_DIMS, RawBuild};
use super::types::{Selector, Type};
use crate::tensorrt::TensorRtError;

/// What limits a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuilderOptions {
    /// Device memory for the scratch of one layer, in bytes; `None`: TensorRT's default, all there is.
    pub workspace_bytes: Option<u64>,
    /// Device memory while kernels are tried, in bytes.
    pub tactic_bytes: Option<u64>,
    /// Threads of the builder.
    pub threads: Option<u32>,
    /// How long to look for fast kernels, 0 to 5.
    pub optimization: Option<u8>,
    /// Compute capability to build for, where [`crate::tensorrt::Capabilities::targets`]: 87 is 8.7.
    pub target_sm: Option<u32>,
    /// Layers keep their names in the engine, for [`super::Engine::inspect`].
    pub detailed: bool,
}

/// Bytes of a constant. They are kept until the build is over: TensorRT reads them then.
#[derive(Debug)]
pub enum Constant {
    /// Bytes of its own.
    Owned(Vec<u8>),
    /// Bytes that others have too.
    Shared(Arc<[u8]>),
    /// A part of a mapped file: offset and length in bytes.
    Mapped(Arc<MappedFile>, usize, usize),
}

impl Constant {
    /// The bytes; none where a range lies outside its file.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Mapped(file, offset, length) => {
                let end = offset.saturating_add(*length);
                file.bytes().get(*offset..end).unwrap_or_default()
            }
        }
    }
}

/// A tensor of one [`Builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    builder: u64,
    index: i32,
}

/// Numbers of builders, so that a tensor of another one is refused.
static BUILDERS: AtomicU64 = AtomicU64::new(1);

/// A network in the making: owns builder, network, configuration, profiles and all constants.
///
/// TensorRT checks shapes and types as operations are added; what it does not like is an error with
/// its own words. Sizes that differ from run to run are -1.
#[derive(Debug)]
pub struct Builder {
    pub(super) raw: *mut RawBuild,
    number: u64,
    // After `raw` is freed in `drop`: TensorRT reads the constants until then.
    constants: Vec<Constant>,
    pub(super) library: Library,
}

// SAFETY: the shim's build object has no thread-local state; it is used by one thread at a time
// because every call needs `&mut self` or consumes it.
unsafe impl Send for Builder {}

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `ew_build_new` and is freed only here; the constants and the
        // library it uses are dropped after this.
        unsafe { (self.library.api().ew_build_free)(self.raw) };
    }
}

impl Builder {
    /// An empty network.
    ///
    /// # Errors
    /// When TensorRT cannot make one: on a machine without a GPU, other than TensorRT-RTX cannot.
    pub fn new(library: &Library, options: &BuilderOptions) -> Result<Self, TensorRtError> {
        let number = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
        let options = BuildOptions {
            workspace_bytes: options.workspace_bytes.unwrap_or_default(),
            tactic_bytes: options.tactic_bytes.unwrap_or_default(),
            threads: number(options.threads).unwrap_or_default(),
            optimization: options.optimization.map_or(-1, i32::from),
            target_sm: number(options.target_sm).unwrap_or_default(),
            detailed: options.detailed.into(),
        };
        // SAFETY: the library's object is alive; the options are valid for the call.
        let raw = unsafe { (library.api().ew_build_new)(library.raw(), &raw const options) };
        if raw.is_null() {
            return Err(library.error(-1, "a builder"));
        }
        Ok(Self {
            raw,
            number: BUILDERS.fetch_add(1, Ordering::Relaxed),
            constants: Vec::new(),
            library: library.clone(),
        })
    }

    pub(super) fn made(&self, status: i32, what: &str) -> Result<Tensor, TensorRtError> {
        Ok(Tensor {
            builder: self.number,
            index: self.library.checked(status, what)?,
        })
    }

    /// The tensor's number here; one that no network has for a tensor of another builder, which the
    /// shim refuses.
    pub(super) fn id(&self, tensor: Tensor) -> i32 {
        if tensor.builder == self.number {
            tensor.index
        } else {
            i32::MAX
        }
    }

    /// A tensor from outside.
    ///
    /// # Errors
    /// As TensorRT says.
    pub fn input(&mut self, name: &str, kind: Type, dims: &[i64]) -> Result<Tensor, TensorRtError> {
        let named = c_string(name)?;
        let count = length(dims.len());
        // SAFETY: `raw` is alive, name and dims are valid for the call, which copies them.
        let status = unsafe {
            (self.library.api().ew_input)(
                self.raw,
                named.as_ptr(),
                kind as i32,
                dims.as_ptr(),
                count,
            )
        };
        self.made(status, &format!("the input {name}"))
    }

    /// Numbers that are part of the network.
    ///
    /// # Errors
    /// When there are not exactly as many bytes as type and dimensions say, or as TensorRT says.
    pub fn constant(
        &mut self,
        kind: Type,
        dims: &[i64],
        bytes: Constant,
    ) -> Result<Tensor, TensorRtError> {
        let refused = |why: String| TensorRtError::Refused {
            what: format!("a constant of {kind:?} {dims:?}"),
            why,
        };
        let values = dims.iter().try_fold(1_i64, |product, size| {
            (*size > 0).then(|| product.checked_mul(*size)).flatten()
        });
        let values = values.ok_or_else(|| refused("its dimensions are no sizes".to_owned()))?;
        let bits = kind.bits().unwrap_or_default();
        let wanted = u64::try_from(values)
            .ok()
            .and_then(|values| values.checked_mul(bits));
        let wanted = wanted.map(|bits| bits.div_ceil(8));
        let found = bytes.bytes().len();
        if wanted != Some(found as u64) {
            let why = format!("needs {wanted:?} bytes, but has {found}");
            return Err(refused(why));
        }
        let (at, count) = (bytes.bytes().as_ptr(), length(dims.len()));
        // Kept whatever comes: TensorRT may have looked at the address even when it refuses.
        self.constants.push(bytes);
        // SAFETY: `at` points to exactly the bytes that type and dimensions need (checked above).
        // They stay where they are until the build object is freed: the constant is moved into
        // `self.constants`, which moves the owner and not what it points to, is never changed, and
        // is dropped after `raw` is freed or when the network is spent.
        let status = unsafe {
            (self.library.api().ew_constant)(
                self.raw,
                kind as i32,
                at.cast(),
                values,
                dims.as_ptr(),
                count,
            )
        };
        self.made(status, &format!("a constant of {kind:?} {dims:?}"))
    }

    /// Type and sizes of a tensor as TensorRT understands the network so far; -1: not known.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn describe(&mut self, a: Tensor) -> Result<(Type, Vec<i64>), TensorRtError> {
        let (mut kind, mut dims) = (0, [0; MAX_DIMS]);
        let id = self.id(a);
        // SAFETY: `raw` is alive; `dims` has the `EW_MAX_DIMS` elements that the shim may write.
        let status = unsafe {
            (self.library.api().ew_tensor)(self.raw, id, &raw mut kind, dims.as_mut_ptr())
        };
        let rank = self.library.checked(status, "a tensor")?;
        Ok((Type::from_code(kind), some_dims(&dims, rank)))
    }

    /// Layers so far.
    #[expect(clippy::missing_errors_doc, reason = "see `matmul`")]
    pub fn layers(&mut self) -> Result<u32, TensorRtError> {
        // SAFETY: `raw` is alive.
        let status = unsafe { (self.library.api().ew_layer_count)(self.raw) };
        let count = self.library.checked(status, "the number of layers")?;
        Ok(count.unsigned_abs())
    }

    /// Adds a profile: for each input its smallest, best and largest sizes.
    ///
    /// # Errors
    /// When an input is missing or unknown, the sizes are not in order, or as TensorRT says.
    pub fn profile(&mut self, inputs: &[(&str, [&[i64]; 3])]) -> Result<(), TensorRtError> {
        // SAFETY: `raw` is alive.
        let status = unsafe { (self.library.api().ew_profile_new)(self.raw) };
        let profile = self.library.checked(status, "a profile")?;
        for (name, shapes) in inputs {
            let named = c_string(name)?;
            for (selector, dims) in [Selector::Min, Selector::Optimum, Selector::Max]
                .iter()
                .zip(shapes)
            {
                let count = length(dims.len());
                // SAFETY: `raw` is alive, name and dims are valid for the call; the shim checks
                // the profile's number.
                let status = unsafe {
                    (self.library.api().ew_profile_shape)(
                        self.raw,
                        profile,
                        named.as_ptr(),
                        *selector as i32,
                        dims.as_ptr(),
                        count,
                    )
                };
                let what = format!("the profile's {selector:?} {dims:?} of {name}");
                self.library.checked(status, &what)?;
            }
        }
        // SAFETY: `raw` is alive; the shim checks the profile's number.
        let status = unsafe { (self.library.api().ew_profile_add)(self.raw, profile) };
        self.library.checked(status, "a profile").map(drop)
    }

    /// Uses what earlier builds measured; no bytes start an empty cache.
    ///
    /// # Errors
    /// [`TensorRtError::Unsupported`] where there is none; [`TensorRtError::Refused`] when the bytes
    /// are of another TensorRT or device.
    pub fn load_timing_cache(&mut self, bytes: &[u8]) -> Result<(), TensorRtError> {
        let count = bytes.len() as u64;
        // SAFETY: `raw` is alive, the bytes are valid for the call, which copies them.
        let status = unsafe {
            (self.library.api().ew_timing_cache_load)(self.raw, bytes.as_ptr().cast(), count)
        };
        self.library.checked(status, "the timing cache").map(drop)
    }

    /// Writes what this and earlier builds measured.
    ///
    /// # Errors
    /// As [`Builder::load_timing_cache`], and when it cannot be written.
    pub fn save_timing_cache(&mut self, to: &mut (dyn Write + Send)) -> Result<(), TensorRtError> {
        let sink = Sink::new(to);
        // SAFETY: `raw` is alive; the sink lives during the call, after which it is not used.
        let status = unsafe {
            (self.library.api().ew_timing_cache_save)(self.raw, callback::write, sink.user())
        };
        self.finished(status, sink, "the timing cache")
    }

    /// Builds the engine and writes its plan to `to`, in pieces where
    /// [`crate::tensorrt::Capabilities::stream_writer`]. The network is spent afterwards.
    ///
    /// # Errors
    /// [`TensorRtError::Cancelled`] when `progress` said so, [`TensorRtError::Write`] when the plan
    /// could not be written, or as TensorRT says.
    pub fn build(
        &mut self,
        progress: &dyn Progress,
        to: &mut (dyn Write + Send),
    ) -> Result<(), TensorRtError> {
        let target = ProgressTarget(progress);
        let calls = target.calls();
        let sink = Sink::new(to);
        // SAFETY: `raw` is alive, with every constant it points to; `target` and `sink` live during
        // the call, after which the shim uses neither: it takes its monitor out before it returns.
        let status = unsafe {
            (self.library.api().ew_build_run)(
                self.raw,
                &raw const calls,
                callback::write,
                sink.user(),
            )
        };
        let result = self.finished(status, sink, "the engine");
        // The shim has destroyed the network, whatever the outcome: nothing points to these now.
        self.constants.clear();
        result
    }

    fn finished(&self, status: i32, sink: Sink<'_>, what: &str) -> Result<(), TensorRtError> {
        if status >= 0 {
            return Ok(());
        }
        let error = self.library.error(status.into(), what);
        Err(sink.error().map_or(error, TensorRtError::Write))
    }
}

pub(super) fn c_string(text: &str) -> Result<CString, TensorRtError> {
    CString::new(text).map_err(|_| TensorRtError::Refused {
        what: format!("the name {text:?}"),
        why: "it has a zero byte".to_owned(),
    })
}

/// Ranks and axes are small; what is not is refused by the shim.
pub(super) fn length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

pub(super) fn some_dims(dims: &[i64; MAX_DIMS], rank: i32) -> Vec<i64> {
    let rank = usize::try_from(rank).unwrap_or_default();
    dims.iter().take(rank).copied().collect()
}
