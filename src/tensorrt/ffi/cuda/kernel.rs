//! The one kernel of our own: it files the new keys and values of a step into the KV cache, for
//! engines whose network does not. Written in PTX, which the driver compiles for the device at
//! hand: no CUDA compiler is needed to build this program.

use std::ffi::c_void;
use std::rc::Rc;

use super::api::Handle;
use super::{Context, CudaError, DeviceMemory, Gpu, Stream};

/// The source, with the zero that the driver wants at its end.
const SOURCE: &str = concat!(include_str!("filing.ptx"), "\0");
/// Threads of a block.
const THREADS: u32 = 128;

/// The sizes of one filing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilingShape {
    /// Tensors of the cache: keys and values of each layer.
    pub tensors: u32,
    /// Slots of the cache.
    pub slots: u32,
    /// Heads of keys and values.
    pub heads: u32,
    /// Tokens per slot of the cache.
    pub capacity: u32,
    /// Units of 16 bytes per token and head.
    pub units: u32,
    /// The first slot written.
    pub first: u32,
    /// Sequences of the step.
    pub rows: u32,
    /// Tokens of each sequence in the step, padding included.
    pub tokens: u32,
}

impl FilingShape {
    fn cache_bytes(&self) -> u64 {
        self.bytes(self.slots, self.capacity)
    }

    fn fresh_bytes(&self) -> u64 {
        self.bytes(self.rows, self.tokens)
    }

    fn bytes(&self, rows: u32, tokens: u32) -> u64 {
        [self.tensors, rows, self.heads, tokens, self.units]
            .into_iter()
            .fold(16, |bytes, factor| bytes.saturating_mul(factor.into()))
    }
}

/// The compiled kernel.
pub struct Filing {
    context: Rc<Context>,
    module: Handle,
    function: Handle,
}

impl Filing {
    /// Compiles the kernel for the device.
    ///
    /// # Errors
    /// When the driver refuses the source: a device older than compute capability 7.5.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let context = Rc::clone(&gpu.0);
        let mut module = std::ptr::null_mut();
        // SAFETY: the source ends with a zero; writes one handle.
        context.check("cuModuleLoadData", unsafe {
            (context.api.module_load)(&raw mut module, SOURCE.as_ptr().cast())
        })?;
        let mut filing = Self {
            context,
            module,
            function: std::ptr::null_mut(),
        };
        // SAFETY: the name ends with a zero; writes one handle, valid as long as the module.
        filing.context.check("cuModuleGetFunction", unsafe {
            (filing.context.api.module_function)(
                &raw mut filing.function,
                filing.module,
                c"file_keys_and_values".as_ptr(),
            )
        })?;
        Ok(filing)
    }

    /// Files `fresh`, `[tensors, rows, heads, tokens, 16 × units]` bytes, into `cache`,
    /// `[tensors, slots, heads, capacity, 16 × units]` bytes. `writes` holds two columns of `rows`
    /// numbers: at byte `write_at` where in its slot each sequence begins, at byte `counts` how many
    /// of its tokens are real. A sequence that would not fit into its slot is left out.
    ///
    /// # Errors
    /// When a piece of memory is too small for the shape, or the driver refuses.
    pub fn launch(
        &self,
        stream: &mut Stream,
        shape: FilingShape,
        cache: &DeviceMemory,
        fresh: &DeviceMemory,
        (writes, write_at, counts): (&DeviceMemory, u64, u64),
    ) -> Result<(), CudaError> {
        let column = 4 * u64::from(shape.rows);
        let mut cache_at = cache.range(0, shape.cache_bytes())?;
        let mut fresh_at = fresh.range(0, shape.fresh_bytes())?;
        let mut write_at = writes.range(write_at, column)?;
        let mut counts = writes.range(counts, column)?;
        for memory in [cache, fresh, writes] {
            stream.keep(memory);
        }
        let FilingShape {
            tensors,
            mut slots,
            mut heads,
            mut capacity,
            mut units,
            mut first,
            mut rows,
            mut tokens,
        } = shape;
        let mut arguments: [*mut c_void; 11] = [
            (&raw mut cache_at).cast(),
            (&raw mut fresh_at).cast(),
            (&raw mut write_at).cast(),
            (&raw mut counts).cast(),
            (&raw mut first).cast(),
            (&raw mut rows).cast(),
            (&raw mut tokens).cast(),
            (&raw mut slots).cast(),
            (&raw mut heads).cast(),
            (&raw mut capacity).cast(),
            (&raw mut units).cast(),
        ];
        // SAFETY: eleven arguments of the types that the source declares, read before the call
        // returns; the kernel stays within the ranges checked above.
        self.context.check("cuLaunchKernel", unsafe {
            (self.context.api.launch_kernel)(
                self.function,
                rows * heads,
                tensors,
                1,
                THREADS,
                1,
                1,
                0,
                stream.raw(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}

impl Drop for Filing {
    fn drop(&mut self) {
        // SAFETY: loaded in `new`, unloaded only here.
        let _ = unsafe { (self.context.api.module_unload)(self.module) };
    }
}
