//! A built engine, and what can be asked of it.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::builder::{c_string, some_dims};
use super::callback::{self, Sink};
use super::library::{Library, text};
use super::raw::{MAX_DIMS, RawEngine, TensorInfo};
use super::types::{Selector, Type};
use crate::tensorrt::TensorRtError;

/// The bytes of a plan that were just seen to have the digest that a manifest states. An engine is
/// native code: no others are given to TensorRT.
#[derive(Clone, Copy, Debug)]
pub struct TrustedPlan<'a> {
    bytes: &'a [u8],
}

impl<'a> TrustedPlan<'a> {
    /// Hashes the bytes and compares.
    ///
    /// # Errors
    /// [`TensorRtError::Untrusted`] when the digest is another.
    pub fn check(bytes: &'a [u8], sha256: &str) -> Result<Self, TensorRtError> {
        let found = hex::encode(Sha256::digest(bytes));
        if found == sha256 {
            return Ok(Self { bytes });
        }
        Err(TensorRtError::Untrusted {
            found,
            stated: sha256.to_owned(),
        })
    }
}

/// An input or output of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineTensor {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub kind: Type,
    /// An input, else an output.
    pub is_input: bool,
    /// Its address must be host memory.
    pub on_host: bool,
    /// Sizes; -1: differs from run to run.
    pub dims: Vec<i64>,
}

/// A deserialised engine. Clones are the same one.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    /// TensorRT allows queries from several threads, but does not say so of each; one at a time is
    /// no loss here.
    raw: Mutex<*mut RawEngine>,
    library: Library,
}

// SAFETY: the engine has no thread-local state, and the mutex lets one thread at a time use it.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        let raw = self.raw.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `raw` came from `ew_engine_load` and is freed only here. Every context holds an
        // `Arc` of this and frees itself before letting go of it, so none is left.
        unsafe { (self.library.api().ew_engine_free)(*raw) };
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Engine({:?})", self.inner.library)
    }
}

impl Engine {
    /// Deserialises a plan: weights go to the GPU. The bytes are not needed afterwards.
    ///
    /// # Errors
    /// When TensorRT refuses the plan, or there is no GPU or too little memory on it.
    pub fn load(library: &Library, plan: TrustedPlan<'_>) -> Result<Self, TensorRtError> {
        let (at, count) = (plan.bytes.as_ptr().cast(), plan.bytes.len() as u64);
        // SAFETY: the library is alive, the bytes valid during the call. They are native code;
        // `TrustedPlan` says that they are the bytes that were built.
        let raw = unsafe { (library.api().ew_engine_load)(library.raw(), at, count) };
        if raw.is_null() {
            return Err(library.error(-1, "the engine's plan"));
        }
        let inner = Inner {
            raw: Mutex::new(raw),
            library: library.clone(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The TensorRT that it runs on.
    pub fn library(&self) -> &Library {
        &self.inner.library
    }

    pub(super) fn with<T>(&self, call: impl FnOnce(*mut RawEngine) -> T) -> T {
        // A panic while it was held left nothing half-done: the lock protects C++ calls only.
        let raw = self
            .inner
            .raw
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        call(*raw)
    }

    /// All inputs and outputs.
    ///
    /// # Errors
    /// As TensorRT says; so for all queries.
    pub fn tensors(&self) -> Result<Vec<EngineTensor>, TensorRtError> {
        let library = self.library();
        self.with(|raw| {
            // SAFETY: `raw` is alive while `self` is.
            let count = unsafe { (library.api().ew_engine_tensors)(raw) };
            let count = library.checked(count, "the engine's tensors")?;
            (0..count).map(|index| self.tensor(raw, index)).collect()
        })
    }

    fn tensor(&self, raw: *mut RawEngine, index: i32) -> Result<EngineTensor, TensorRtError> {
        let mut info = TensorInfo {
            name: std::ptr::null(),
            kind: 0,
            is_input: 0,
            on_host: 0,
            count: 0,
            dims: [0; MAX_DIMS],
        };
        let library = self.library();
        // SAFETY: `raw` is alive; `info` is valid for the call.
        let status = unsafe { (library.api().ew_engine_tensor)(raw, index, &raw mut info) };
        library.checked(status, "an engine's tensor")?;
        Ok(EngineTensor {
            // SAFETY: the shim gave a C string that lives as long as the engine.
            name: unsafe { text(info.name) },
            kind: Type::from_code(info.kind),
            is_input: info.is_input != 0,
            on_host: info.on_host != 0,
            dims: some_dims(&info.dims, info.count),
        })
    }

    /// Number of profiles.
    #[expect(clippy::missing_errors_doc, reason = "see `tensors`")]
    pub fn profiles(&self) -> Result<u32, TensorRtError> {
        let library = self.library();
        // SAFETY: `raw` is alive while `self` is.
        let count = self.with(|raw| unsafe { (library.api().ew_engine_profiles)(raw) });
        let count = library.checked(count, "the engine's profiles")?;
        Ok(count.unsigned_abs())
    }

    /// Smallest, best or largest sizes of an input in a profile.
    #[expect(clippy::missing_errors_doc, reason = "see `tensors`")]
    pub fn profile_shape(
        &self,
        input: &str,
        profile: u32,
        selector: Selector,
    ) -> Result<Vec<i64>, TensorRtError> {
        let (library, named) = (self.library(), c_string(input)?);
        let profile = i32::try_from(profile).unwrap_or(i32::MAX);
        let mut dims = [0; MAX_DIMS];
        // SAFETY: `raw` is alive while `self` is; name and dims are valid for the call, and `dims`
        // has the `EW_MAX_DIMS` elements that the shim may write.
        let rank = self.with(|raw| unsafe {
            let call = library.api().ew_engine_profile_shape;
            call(
                raw,
                named.as_ptr(),
                profile,
                selector as i32,
                dims.as_mut_ptr(),
            )
        });
        let rank = library.checked(rank, &format!("the profile's sizes of {input}"))?;
        Ok(some_dims(&dims, rank))
    }

    /// Bytes of activation memory for the largest sizes of a profile.
    #[expect(clippy::missing_errors_doc, reason = "see `tensors`")]
    pub fn activation_bytes(&self, profile: u32) -> Result<u64, TensorRtError> {
        let library = self.library();
        let profile = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: `raw` is alive while `self` is.
        let bytes = self.with(|raw| unsafe { (library.api().ew_engine_memory)(raw, profile) });
        u64::try_from(bytes).map_err(|_| library.error(bytes, "the activation memory"))
    }

    /// TensorRT's own description of the layers, JSON.
    #[expect(clippy::missing_errors_doc, reason = "see `tensors`")]
    pub fn inspect(&self) -> Result<String, TensorRtError> {
        let library = self.library();
        let mut text = Vec::new();
        let sink = Sink::new(&mut text);
        // SAFETY: `raw` is alive while `self` is; the sink lives during the call.
        let status = self.with(|raw| unsafe {
            (library.api().ew_engine_inspect)(raw, callback::write, sink.user())
        });
        drop(sink);
        library.checked(status, "the engine's layers")?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
