//! The one queue of work for the device. Everything that gives it work borrows the stream mutably;
//! everything that looks at pinned memory borrows it too, after waiting.

use std::rc::Rc;

use bytemuck::Pod;

use super::api::{Copy3d, DEVICE_MEMORY, Handle};
use super::memory::{DeviceInner, PinnedInner};
use super::{Context, CudaError, DeviceMemory, Gpu, Graph, PinnedMemory};

/// `CU_STREAM_NON_BLOCKING`: no ordering with the legacy default stream.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_BLOCKING_SYNC`.
const EVENT_BLOCKING: u32 = 1;

/// `CUDA_ERROR_NOT_READY`: no error.
const NOT_READY: i32 = 600;

/// What a recorded graph uses and must keep.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) device: Vec<Rc<DeviceInner>>,
    pub(super) pinned: Vec<Rc<PinnedInner>>,
}

/// The queue. There is one per device.
pub struct Stream {
    pub(super) context: Rc<Context>,
    pub(super) handle: Handle,
    /// Set while a graph is recorded.
    pub(super) recording: Option<Kept>,
}

/// A box of equal rows within one piece of device memory, copied to another place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBox {
    /// First byte read.
    pub from: u64,
    /// First byte written.
    pub to: u64,
    /// Bytes of a row that are copied.
    pub width: u64,
    /// Bytes from one row to the next.
    pub row_pitch: u64,
    /// Rows that are copied of each plane.
    pub rows: u64,
    /// Rows from one plane to the next.
    pub plane_rows: u64,
    /// Planes.
    pub planes: u64,
}

impl DeviceBox {
    /// Bytes from the first to the one after the last.
    fn extent(&self) -> Option<u64> {
        let rows = self
            .plane_rows
            .checked_mul(self.planes.checked_sub(1)?)?
            .checked_add(self.rows.checked_sub(1)?)?;
        rows.checked_mul(self.row_pitch)?.checked_add(self.width)
    }
}

impl Stream {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let context = Rc::clone(&gpu.0);
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed in `drop`.
        context.check("cuStreamCreate", unsafe {
            (context.api.stream_create)(&raw mut handle, NON_BLOCKING)
        })?;
        Ok(Self {
            context,
            handle,
            recording: None,
        })
    }

    /// The driver's handle, for TensorRT.
    pub(in crate::tensorrt) const fn raw(&self) -> Handle {
        self.handle
    }

    /// Waits until the device has done everything it was given.
    ///
    /// # Errors
    /// What went wrong on the device since the last call.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: the handle is valid as long as `self`.
        self.context.check("cuStreamSynchronize", unsafe {
            (self.context.api.stream_synchronize)(self.handle)
        })
    }

    /// Whether the device has done everything it was given; does not wait.
    ///
    /// # Errors
    /// As [`Stream::synchronize`].
    pub fn is_done(&self) -> Result<bool, CudaError> {
        // SAFETY: the handle is valid as long as `self`.
        let status = unsafe { (self.context.api.stream_query)(self.handle) };
        if status == NOT_READY {
            return Ok(false);
        }
        self.context.check("cuStreamQuery", status).map(|()| true)
    }

    /// Waits, then shows what the device has written to `count` values at byte `at` of `memory`.
    ///
    /// # Errors
    /// What went wrong on the device, or a range outside of the memory.
    pub fn read<'a, T: Pod>(
        &'a self,
        memory: &'a PinnedMemory,
        at: u64,
        count: usize,
    ) -> Result<&'a [T], CudaError> {
        let start = memory.range(at, bytes_of::<T>(count), align_of::<T>())?;
        self.synchronize()?;
        // SAFETY: in range, aligned, initialised (zeroed when allocated), any bits are a `T`. The
        // device is idle, and stays so as long as `self` is borrowed; nobody else has a mutable
        // slice, because that would borrow `memory` mutably.
        Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>(), count) })
    }

    /// Waits, then lends `count` values at byte `at` of `memory` for writing.
    ///
    /// # Errors
    /// As [`Stream::read`].
    pub fn write<'a, T: Pod>(
        &'a self,
        memory: &'a mut PinnedMemory,
        at: u64,
        count: usize,
    ) -> Result<&'a mut [T], CudaError> {
        let start = memory.range(at, bytes_of::<T>(count), align_of::<T>())?;
        self.synchronize()?;
        // SAFETY: as in `read`; `memory` is borrowed mutably.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast::<T>(), count) })
    }

    /// Fills `bytes` bytes of device memory with zeros.
    ///
    /// # Errors
    /// When the driver refuses, or the range is not in the memory.
    pub fn clear(&mut self, memory: &DeviceMemory, at: u64, bytes: u64) -> Result<(), CudaError> {
        let address = memory.range(at, bytes)?;
        self.keep(memory);
        // SAFETY: the range lies in the allocation.
        self.context.check("cuMemsetD8Async", unsafe {
            (self.context.api.fill)(address, 0, size(bytes), self.handle)
        })
    }

    /// Copies the first `bytes` bytes of `from` to byte `at` of `to`.
    ///
    /// # Errors
    /// As [`Stream::clear`].
    pub fn upload(
        &mut self,
        from: &PinnedMemory,
        to: &DeviceMemory,
        at: u64,
        bytes: u64,
    ) -> Result<(), CudaError> {
        let (source, address) = (from.range(0, bytes, 1)?, to.range(at, bytes)?);
        self.keep(to);
        self.keep_pinned(from);
        // SAFETY: both ranges lie in their allocations, which outlive the copy: freeing waits.
        self.context.check("cuMemcpyHtoDAsync", unsafe {
            (self.context.api.upload)(address, source.cast(), size(bytes), self.handle)
        })
    }

    /// Copies `bytes` bytes from byte `at` of `from` to the beginning of `to`.
    ///
    /// # Errors
    /// As [`Stream::clear`].
    pub fn download(
        &mut self,
        from: &DeviceMemory,
        at: u64,
        to: &mut PinnedMemory,
        bytes: u64,
    ) -> Result<(), CudaError> {
        let (address, target) = (from.range(at, bytes)?, to.range(0, bytes, 1)?);
        self.keep(from);
        self.keep_pinned(to);
        // SAFETY: as in `upload`; no slice of `to` is alive while `self` is borrowed mutably.
        self.context.check("cuMemcpyDtoHAsync", unsafe {
            (self.context.api.download)(target.cast(), address, size(bytes), self.handle)
        })
    }

    /// Copies a box within `memory`.
    ///
    /// # Errors
    /// As [`Stream::clear`].
    pub fn copy_box(&mut self, memory: &DeviceMemory, area: DeviceBox) -> Result<(), CudaError> {
        if area.width == 0 || area.rows == 0 || area.planes == 0 {
            return Ok(());
        }
        let extent = area.extent().unwrap_or(u64::MAX);
        let (from, to) = (
            memory.range(area.from, extent)?,
            memory.range(area.to, extent)?,
        );
        self.keep(memory);
        let copy = Copy3d {
            src_x: 0,
            src_y: 0,
            src_z: 0,
            src_lod: 0,
            src_type: DEVICE_MEMORY,
            src_host: std::ptr::null(),
            src_device: from,
            src_array: std::ptr::null_mut(),
            reserved0: std::ptr::null_mut(),
            src_pitch: size(area.row_pitch),
            src_height: size(area.plane_rows),
            dst_x: 0,
            dst_y: 0,
            dst_z: 0,
            dst_lod: 0,
            dst_type: DEVICE_MEMORY,
            dst_host: std::ptr::null_mut(),
            dst_device: to,
            dst_array: std::ptr::null_mut(),
            reserved1: std::ptr::null_mut(),
            dst_pitch: size(area.row_pitch),
            dst_height: size(area.plane_rows),
            width: size(area.width),
            height: size(area.rows),
            depth: size(area.planes),
        };
        // SAFETY: the description is complete, and both boxes lie in the allocation.
        self.context.check("cuMemcpy3DAsync", unsafe {
            (self.context.api.copy_3d)(&raw const copy, self.handle)
        })
    }

    /// Whether a graph is recorded now.
    pub(in crate::tensorrt) const fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// While a graph is recorded: it will need this memory.
    pub(in crate::tensorrt) fn keep(&mut self, memory: &DeviceMemory) {
        if let Some(kept) = &mut self.recording {
            kept.device.push(Rc::clone(&memory.0));
        }
    }

    fn keep_pinned(&mut self, memory: &PinnedMemory) {
        if let Some(kept) = &mut self.recording {
            kept.pinned.push(Rc::clone(&memory.0));
        }
    }

    /// Gives the device a recorded graph.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn launch(&mut self, graph: &Graph) -> Result<(), CudaError> {
        graph.launch_on(self.handle)
    }

    /// Marks this place in the queue.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn record(&mut self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: both handles are valid.
        self.context.check("cuEventRecord", unsafe {
            (self.context.api.event_record)(event.handle, self.handle)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here; pending work is finished by the driver.
        let _ = unsafe { (self.context.api.stream_destroy)(self.handle) };
    }
}

/// A place in the queue, to measure the device's time between two of them.
pub struct Event {
    context: Rc<Context>,
    handle: Handle,
}

impl Event {
    /// A mark that is nowhere yet.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &Gpu) -> Result<Self, CudaError> {
        let context = Rc::clone(&gpu.0);
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, destroyed in `drop`.
        context.check("cuEventCreate", unsafe {
            (context.api.event_create)(&raw mut handle, EVENT_BLOCKING)
        })?;
        Ok(Self { context, handle })
    }

    /// Waits for both, then gives the milliseconds of the device between `earlier` and this one.
    ///
    /// # Errors
    /// When one was never recorded, or the device failed.
    pub fn milliseconds_since(&self, earlier: &Self) -> Result<f32, CudaError> {
        let mut milliseconds = 0.0_f32;
        // SAFETY: valid handles; writes one number.
        unsafe {
            let status = (self.context.api.event_synchronize)(self.handle);
            self.context.check("cuEventSynchronize", status)?;
            let status = (self.context.api.event_elapsed)(
                &raw mut milliseconds,
                earlier.handle,
                self.handle,
            );
            self.context.check("cuEventElapsedTime", status)?;
        }
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        let _ = unsafe { (self.context.api.event_destroy)(self.handle) };
    }
}

/// The allocation succeeded, so its length is a `usize`.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn bytes_of<T>(count: usize) -> u64 {
    (count as u64).saturating_mul(size_of::<T>() as u64)
}
