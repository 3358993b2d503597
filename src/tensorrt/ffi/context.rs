//! A context: one run-time state of an engine.
//!
//! Giving it device memory and starting it is `unsafe` and meant for the module beside this one that
//! owns that memory; the rest is safe.

use std::ffi::c_void;
use std::io::Write;

use super::builder::{c_string, length, some_dims};
use super::callback::{self, Sink};
use super::engine::Engine;
use super::raw::{MAX_DIMS, RawContext, RawContextOptions};
use crate::tensorrt::TensorRtError;

/// TensorRT-RTX: when kernels for exactly the sizes in use are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Specialise {
    /// While general ones already run.
    #[default]
    Later,
    /// Before the first run with new sizes.
    AtOnce,
    /// General ones always.
    Never,
}

/// How a context is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextOptions<'a> {
    /// TensorRT allocates the activation memory; else [`Context::set_memory`] gives it.
    pub own_memory: bool,
    /// When kernels are compiled (RTX).
    pub specialise: Specialise,
    /// Kernels from an earlier run (RTX); empty: none. One that does not fit is ignored.
    pub runtime_cache: &'a [u8],
}

impl Engine {
    /// A context to run it with.
    ///
    /// # Errors
    /// As TensorRT says: kernels are compiled here (RTX), or memory is short.
    pub fn context(&self, options: &ContextOptions<'_>) -> Result<Context, TensorRtError> {
        let cache = options.runtime_cache;
        let options = RawContextOptions {
            own_memory: options.own_memory.into(),
            eager: match options.specialise {
                Specialise::Later => 0,
                Specialise::AtOnce => 1,
                Specialise::Never => -1,
            },
            cache: cache.as_ptr().cast(),
            cache_bytes: cache.len() as u64,
        };
        let library = self.library();
        // SAFETY: `raw` is alive while `self` is; the options and the cache they point to are
        // valid for the call, which copies what it keeps.
        let raw =
            self.with(|raw| unsafe { (library.api().ew_context_new)(raw, &raw const options) });
        if raw.is_null() {
            return Err(library.error(-1, "a context"));
        }
        Ok(Context {
            raw,
            engine: self.clone(),
        })
    }
}

/// One run-time state of an engine: sizes, addresses, activation memory. Keeps its engine alive.
pub struct Context {
    raw: *mut RawContext,
    // After `raw` is freed in `drop`.
    engine: Engine,
}

// SAFETY: the context has no thread-local state; all that changes it takes `&mut self`.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `ew_context_new` and is freed only here, before its engine.
        unsafe { (self.engine.library().api().ew_context_free)(self.raw) };
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Context({:?})", self.engine)
    }
}

impl Context {
    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn done(&self, status: i32, what: &str) -> Result<(), TensorRtError> {
        self.engine.library().checked(status, what).map(drop)
    }

    /// Sizes of an input for the next runs.
    ///
    /// # Errors
    /// When the profile in use does not allow them, or there is no such input.
    pub fn set_shape(&mut self, input: &str, dims: &[i64]) -> Result<(), TensorRtError> {
        let named = c_string(input)?;
        let (api, count) = (self.engine.library().api(), length(dims.len()));
        // SAFETY: `raw` is alive; name and dims are valid for the call, which copies them.
        let status =
            unsafe { (api.ew_context_shape)(self.raw, named.as_ptr(), dims.as_ptr(), count) };
        self.done(status, &format!("the sizes {dims:?} of {input}"))
    }

    /// Sizes of a tensor with the input sizes set now; -1: not known.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn shape(&self, tensor: &str) -> Result<Vec<i64>, TensorRtError> {
        let (library, named) = (self.engine.library(), c_string(tensor)?);
        let mut dims = [0; MAX_DIMS];
        // SAFETY: `raw` is alive; `dims` has the `EW_MAX_DIMS` elements that the shim may write.
        let rank = unsafe {
            (library.api().ew_context_shape_of)(self.raw, named.as_ptr(), dims.as_mut_ptr())
        };
        let rank = library.checked(rank, &format!("the sizes of {tensor}"))?;
        Ok(some_dims(&dims, rank))
    }

    /// Bytes of activation memory for the sizes set now.
    ///
    /// # Errors
    /// When sizes are missing.
    pub fn activation_bytes(&mut self) -> Result<u64, TensorRtError> {
        let library = self.engine.library();
        // SAFETY: `raw` is alive.
        let bytes = unsafe { (library.api().ew_context_memory_needed)(self.raw) };
        u64::try_from(bytes).map_err(|_| library.error(bytes, "the activation memory"))
    }

    /// Writes the kernels that were compiled so far (RTX), for [`ContextOptions::runtime_cache`].
    ///
    /// # Errors
    /// [`TensorRtError::Unsupported`] for other than RTX; when it cannot be written.
    pub fn save_runtime_cache(&mut self, to: &mut (dyn Write + Send)) -> Result<(), TensorRtError> {
        let library = self.engine.library();
        let sink = Sink::new(to);
        // SAFETY: `raw` is alive; the sink lives during the call.
        let status =
            unsafe { (library.api().ew_context_cache)(self.raw, callback::write, sink.user()) };
        if status >= 0 {
            return Ok(());
        }
        let error = library.error(status.into(), "the run-time cache");
        Err(sink.error().map_or(error, TensorRtError::Write))
    }

    /// Activation memory on the device.
    ///
    /// # Safety
    /// `address` is `bytes` of device memory, at least as many as the profile needs, that nothing
    /// else uses and that stays allocated until the context is dropped or given other memory, and
    /// no run uses it any more.
    ///
    /// # Errors
    /// As TensorRT says.
    pub unsafe fn set_memory(&mut self, address: u64, bytes: u64) -> Result<(), TensorRtError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // SAFETY: `raw` is alive; the caller vouches for the memory.
        let status =
            unsafe { (self.engine.library().api().ew_context_memory)(self.raw, address, bytes) };
        self.done(status, "the activation memory")
    }

    /// Uses another profile for the next runs, from this point of `stream` on.
    ///
    /// # Safety
    /// `stream` is a CUDA stream of the device the engine is on (null: the default stream).
    ///
    /// # Errors
    /// When there is no such profile, or another context uses it.
    pub unsafe fn set_profile(
        &mut self,
        profile: u32,
        stream: *mut c_void,
    ) -> Result<(), TensorRtError> {
        let index = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: `raw` is alive; the caller vouches for the stream.
        let status =
            unsafe { (self.engine.library().api().ew_context_profile)(self.raw, index, stream) };
        self.done(status, &format!("the profile {profile}"))
    }

    /// Where a tensor lies.
    ///
    /// # Safety
    /// `address` is memory of the right kind (device, or host for `EngineTensor::on_host`), large
    /// enough for every shape that will be used, and stays so until it is replaced or the context
    /// dropped, and no run uses it any more.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub unsafe fn set_address(&mut self, tensor: &str, address: u64) -> Result<(), TensorRtError> {
        let named = c_string(tensor)?;
        let api = self.engine.library().api();
        // SAFETY: `raw` is alive, the name valid for the call; the caller vouches for the address.
        let status = unsafe { (api.ew_context_address)(self.raw, named.as_ptr(), address) };
        self.done(status, &format!("the address of {tensor}"))
    }

    /// Puts a run on `stream`; it reads and writes the addresses set when the stream gets there.
    ///
    /// # Safety
    /// `stream` is a CUDA stream of the engine's device; all addresses were set, and what they point
    /// to stays allocated until the run is over.
    ///
    /// # Errors
    /// As TensorRT says: an address or a size is missing, a kernel cannot be started.
    pub unsafe fn enqueue(&mut self, stream: *mut c_void) -> Result<(), TensorRtError> {
        // SAFETY: `raw` is alive; the caller vouches for stream and memory.
        let status = unsafe { (self.engine.library().api().ew_context_enqueue)(self.raw, stream) };
        self.done(status, "a run")
    }
}
