//! The [`Backend`] itself: books, passes, device, in this order.

use super::device::Device;
use super::plan::pass::{first_shapes, idle};
use super::plan::{Refusal, Shape, Slots, cache, passes};
use crate::backend::{Backend, BackendError, Capabilities, Run, SlotId};
use crate::tensorrt::SessionError;

/// The name in headers, logs and metrics.
pub const NAME: &str = "TensorRT";

/// Every chunk of a prompt is a pass over the network, which takes as long for few tokens as for a
/// hundred: the oldest prompt gets on, and a short one past it.
const PROMPTS_PER_STEP: u32 = 2;

/// An engine, ready to run.
pub struct TensorRt {
    device: Device,
    slots: Slots,
}

/// What the recorded shapes and the device's memory are, for measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Recorded shapes with the nodes of their graphs.
    pub recorded: Vec<(Shape, usize)>,
    /// Bytes free on the device.
    pub free: u64,
    /// Bytes the device has.
    pub total: u64,
}

impl From<Refusal> for BackendError {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(refusal.to_string())
    }
}

impl From<SessionError> for BackendError {
    fn from(error: SessionError) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl From<crate::tensorrt::CudaError> for BackendError {
    fn from(error: crate::tensorrt::CudaError) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl TensorRt {
    pub(super) fn new(device: Device) -> Self {
        let slots = Slots::new(&device.geometry);
        Self { device, slots }
    }

    /// Meets the shapes that the first requests will need, so that none of them waits for it.
    pub(super) fn warm(&mut self) -> Result<(), BackendError> {
        for shape in first_shapes(&self.device.geometry) {
            let pass = idle(&self.device.geometry, shape);
            self.device.run(&pass)?;
        }
        Ok(self.device.wait()?)
    }

    /// Kernels compiled for this device, to be kept for the next start.
    pub(super) fn kernels(&mut self) -> Option<Vec<u8>> {
        self.device.kernels()
    }

    /// What there is to measure.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn inside(&self) -> Result<Inside, BackendError> {
        let (free, total) = self.device.free_memory()?;
        let recorded = self.device.recorded().collect();
        Ok(Inside {
            recorded,
            free,
            total,
        })
    }

    /// Milliseconds of the device for each of `count` replays of a recorded shape, one right after
    /// the other, with the inputs of the last step: the floor of a step. Empty when the shape is not
    /// recorded. What the slots hold is undefined afterwards; they are emptied.
    ///
    /// # Errors
    /// When the device fails.
    pub fn replay(&mut self, shape: Shape, count: usize) -> Result<Vec<f32>, BackendError> {
        let milliseconds = self.device.replay(shape, count)?;
        self.slots = Slots::new(&self.device.geometry);
        Ok(milliseconds)
    }
}

impl Backend for TensorRt {
    fn capabilities(&self) -> Capabilities {
        let geometry = &self.device.geometry;
        Capabilities {
            name: NAME,
            slots: geometry.slots,
            context_tokens: geometry.context_tokens(),
            max_batch_tokens: self.slots.limit(),
            prompts_per_step: PROMPTS_PER_STEP,
            vocabulary: geometry.vocabulary,
        }
    }

    fn forward(
        &mut self,
        runs: &[Run],
        row: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), BackendError> {
        self.slots.check(runs)?;
        for pass in passes(&self.device.geometry, self.slots.lengths(), runs) {
            self.device.run(&pass)?;
            // What failed on the device must be known now, also where no row is wanted.
            self.device.wait()?;
            for wanted in &pass.wanted {
                row(wanted.run, wanted.token, self.device.logits(wanted.row)?);
            }
        }
        for run in runs {
            let tokens = u32::try_from(run.tokens.len()).unwrap_or(u32::MAX);
            self.slots.extend(run.slot, tokens);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: SlotId, len: u32) -> Result<(), BackendError> {
        Ok(self.slots.truncate(slot, len)?)
    }

    fn copy_prefix(&mut self, from: SlotId, to: SlotId, len: u32) -> Result<(), BackendError> {
        self.slots.copy_prefix(from, to, len)?;
        let copy = cache::prefix(&self.device.geometry, from.0, to.0, len);
        Ok(self.device.copy(copy)?)
    }
}
