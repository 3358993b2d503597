//! Memory of the device, and memory of the host that the device reads and writes by itself.

use std::ffi::c_void;
use std::rc::Rc;

use super::{Context, CudaError, Gpu, OUT_OF_MEMORY};

/// `CU_MEMHOSTALLOC_PORTABLE`.
const PORTABLE: u32 = 1;

/// Device memory, freed when the last owner is gone: a recorded graph is one.
pub(super) struct DeviceInner {
    context: Rc<Context>,
    pub(super) address: u64,
    pub(super) bytes: u64,
    what: &'static str,
}

impl Drop for DeviceInner {
    fn drop(&mut self) {
        // SAFETY: allocated in `Gpu::allocate` and freed only here; the driver waits for the work
        // that uses it.
        let _ = unsafe { (self.context.api.free)(self.address) };
    }
}

/// A piece of device memory.
pub struct DeviceMemory(pub(super) Rc<DeviceInner>);

impl DeviceMemory {
    /// Where it lies.
    pub fn address(&self) -> u64 {
        self.0.address
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// The same memory, owned once more.
    pub(in crate::tensorrt) fn share(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// Checks that a range lies in it; returns its address.
    pub(super) fn range(&self, at: u64, bytes: u64) -> Result<u64, CudaError> {
        let end = at.checked_add(bytes);
        if end.is_none_or(|end| end > self.0.bytes) {
            return Err(CudaError::Range {
                what: self.0.what,
                start: at,
                end: end.unwrap_or(u64::MAX),
                bytes: self.0.bytes,
            });
        }
        Ok(self.0.address + at)
    }
}

/// Host memory, freed when the last owner is gone: a recorded graph is one.
pub(super) struct PinnedInner {
    context: Rc<Context>,
    pub(super) address: *mut c_void,
    pub(super) bytes: u64,
    what: &'static str,
}

impl Drop for PinnedInner {
    fn drop(&mut self) {
        // SAFETY: allocated in `Gpu::pin` and freed only here, after the device is done with all
        // work that may use it.
        unsafe {
            let _ = (self.context.api.synchronize_context)();
            let _ = (self.context.api.free_host)(self.address);
        }
    }
}

/// A piece of host memory that the device copies from and to without the processor.
pub struct PinnedMemory(pub(super) Rc<PinnedInner>);

impl PinnedMemory {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Checks that a range lies in it, aligned for `align`; returns its address.
    pub(super) fn range(&self, at: u64, bytes: u64, align: usize) -> Result<*mut u8, CudaError> {
        let end = at.checked_add(bytes);
        let aligned = usize::try_from(at).is_ok_and(|at| at % align == 0);
        if !aligned || end.is_none_or(|end| end > self.0.bytes) {
            return Err(CudaError::Range {
                what: self.0.what,
                start: at,
                end: end.unwrap_or(u64::MAX),
                bytes: self.0.bytes,
            });
        }
        let offset = usize::try_from(at).unwrap_or(0);
        // The sum stays in the allocation, which was checked above.
        Ok(self.0.address.cast::<u8>().wrapping_add(offset))
    }
}

impl Gpu {
    /// Allocates device memory. Its content is undefined.
    ///
    /// # Errors
    /// [`CudaError::Memory`] with the numbers when there is too little.
    pub fn allocate(&self, bytes: u64, what: &'static str) -> Result<DeviceMemory, CudaError> {
        let mut address = 0_u64;
        let size = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: writes one address.
        let status = unsafe { (self.0.api.allocate)(&raw mut address, size) };
        self.allocated("cuMemAlloc", status, bytes, what)?;
        let context = Rc::clone(&self.0);
        Ok(DeviceMemory(Rc::new(DeviceInner {
            context,
            address,
            bytes,
            what,
        })))
    }

    /// Allocates pinned host memory and fills it with zeros.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn pin(&self, bytes: u64, what: &'static str) -> Result<PinnedMemory, CudaError> {
        let mut address = std::ptr::null_mut();
        let size = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: writes one pointer.
        let status = unsafe { (self.0.api.allocate_host)(&raw mut address, size, PORTABLE) };
        self.allocated("cuMemHostAlloc", status, bytes, what)?;
        // SAFETY: the driver allocated `size` bytes there, which nobody else knows of.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, size) };
        let context = Rc::clone(&self.0);
        Ok(PinnedMemory(Rc::new(PinnedInner {
            context,
            address,
            bytes,
            what,
        })))
    }

    fn allocated(
        &self,
        call: &'static str,
        status: i32,
        bytes: u64,
        what: &'static str,
    ) -> Result<(), CudaError> {
        if status == OUT_OF_MEMORY {
            let (free, total) = self.memory()?;
            return Err(CudaError::Memory {
                what,
                bytes,
                free,
                total,
            });
        }
        self.0.check(call, status)
    }
}
