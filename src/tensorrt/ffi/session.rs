//! A context together with the device memory that its tensors lie in: what makes running an engine
//! safe. It checks that every tensor has memory, and enough of it, before a run; and it keeps that
//! memory for as long as the context may use it.

use std::collections::BTreeMap;

use super::context::{Context, ContextOptions, Specialise};
use super::cuda::{CudaError, DeviceMemory, Stream};
use super::engine::{Engine, EngineTensor};
use crate::tensorrt::TensorRtError;

/// Why a run could not be set up or started.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// TensorRT refused.
    #[error(transparent)]
    TensorRt(#[from] TensorRtError),
    /// The driver refused.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A tensor without memory, or with too little.
    #[error("the tensor {name} needs {needed} bytes of device memory, it was given {given}")]
    Memory {
        /// The tensor.
        name: String,
        /// What its sizes need.
        needed: u64,
        /// What it was given.
        given: u64,
    },
    /// A tensor that is not the engine's, or lies in host memory.
    #[error("the tensor {0} cannot be given device memory")]
    Tensor(String),
}

/// One run-time state of an engine. Dropped before the memory it uses.
pub struct Session {
    context: Context,
    tensors: BTreeMap<String, EngineTensor>,
    /// Scratch space and memory of each tensor, since the sizes were set last.
    scratch: Option<DeviceMemory>,
    bound: BTreeMap<String, DeviceMemory>,
}

impl Session {
    /// A state for `profile` of `engine`.
    ///
    /// # Errors
    /// When TensorRT refuses.
    pub fn new(
        engine: &Engine,
        profile: u32,
        runtime_cache: &[u8],
        stream: &mut Stream,
    ) -> Result<Self, SessionError> {
        let mut context = engine.context(&ContextOptions {
            own_memory: false,
            // Otherwise a recorded graph keeps the general kernels for ever.
            specialise: Specialise::AtOnce,
            runtime_cache,
        })?;
        // SAFETY: the stream is the device's that TensorRT uses, the primary context's.
        unsafe { context.set_profile(profile, stream.raw())? };
        let tensors = engine.tensors()?.into_iter();
        Ok(Self {
            context,
            tensors: tensors
                .map(|tensor| (tensor.name.clone(), tensor))
                .collect(),
            scratch: None,
            bound: BTreeMap::new(),
        })
    }

    /// Sets sizes of inputs; scratch space and tensors must be given memory again. Returns the bytes
    /// of scratch space that runs of these sizes need.
    ///
    /// # Errors
    /// When the profile does not allow them.
    pub fn set_shapes<'a>(
        &mut self,
        shapes: impl IntoIterator<Item = (&'a str, Vec<i64>)>,
    ) -> Result<u64, SessionError> {
        self.bound.clear();
        self.scratch = None;
        for (name, dims) in shapes {
            self.context.set_shape(name, &dims)?;
        }
        Ok(self.context.activation_bytes()?)
    }

    /// Gives it scratch space, which may be shared with other sessions on the same stream, whose
    /// runs follow each other.
    ///
    /// # Errors
    /// When it is too small for the sizes that are set.
    pub fn set_scratch(&mut self, memory: &DeviceMemory) -> Result<(), SessionError> {
        let needed = self.context.activation_bytes()?;
        if needed > memory.bytes() {
            return Err(SessionError::Memory {
                name: "activations".to_owned(),
                needed,
                given: memory.bytes(),
            });
        }
        // SAFETY: as large as TensorRT says that these sizes need, and kept in `self`. Other
        // sessions use it too, but on the one stream, so one run after the other.
        unsafe { self.context.set_memory(memory.address(), memory.bytes())? };
        self.scratch = Some(memory.share());
        Ok(())
    }

    /// Lays the tensor `name` into `memory`, from byte `at` on.
    ///
    /// # Errors
    /// When it does not fit there with the sizes that are set.
    pub fn bind(&mut self, name: &str, memory: &DeviceMemory, at: u64) -> Result<(), SessionError> {
        let tensor = self.tensors.get(name).filter(|tensor| !tensor.on_host);
        let tensor = tensor.ok_or_else(|| SessionError::Tensor(name.to_owned()))?;
        let dims = self.context.shape(name)?;
        let needed = bytes(tensor, &dims).unwrap_or(u64::MAX);
        let given = memory.bytes().saturating_sub(at);
        if needed > given {
            let name = name.to_owned();
            return Err(SessionError::Memory {
                name,
                needed,
                given,
            });
        }
        // SAFETY: device memory, large enough for the sizes that are set, and kept in `self` until
        // it is replaced; freeing it waits for the runs that use it.
        unsafe { self.context.set_address(name, memory.address() + at)? };
        self.bound.insert(name.to_owned(), memory.share());
        Ok(())
    }

    /// Puts a run on the stream, or into the graph that it records.
    ///
    /// # Errors
    /// When a tensor has no memory, or TensorRT refuses.
    pub fn enqueue(&mut self, stream: &mut Stream) -> Result<(), SessionError> {
        let unbound = self
            .tensors
            .keys()
            .find(|name| !self.bound.contains_key(*name));
        if let Some(name) = unbound {
            return Err(SessionError::Memory {
                name: name.clone(),
                needed: 1,
                given: 0,
            });
        }
        let Some(scratch) = &self.scratch else {
            return Err(SessionError::Tensor("activations".to_owned()));
        };
        if stream.is_recording() {
            for memory in self.bound.values().chain([scratch]) {
                stream.keep(memory);
            }
        }
        // SAFETY: the stream is the engine's device's; every tensor has memory of its size, which
        // this session (and a graph, where one is recorded) keeps.
        unsafe { self.context.enqueue(stream.raw())? };
        Ok(())
    }

    /// The kernels that were compiled so far (RTX); `None` where there is no such thing.
    pub fn runtime_cache(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let saved = self.context.save_runtime_cache(&mut bytes);
        saved.is_ok().then_some(bytes)
    }
}

/// Bytes of a tensor; `None`: a size is not known, or too large.
fn bytes(tensor: &EngineTensor, dims: &[i64]) -> Option<u64> {
    let sizes = dims.iter().map(|size| u64::try_from(*size).ok());
    let elements = sizes
        .into_iter()
        .try_fold(1_u64, |product, size| product.checked_mul(size?))?;
    let bits = elements.checked_mul(tensor.kind.bits()?)?;
    Some(bits.div_ceil(8))
}
