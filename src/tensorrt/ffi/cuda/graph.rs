//! Work recorded once and given to the device as a whole: one call per token instead of hundreds.

use std::rc::Rc;

use super::api::Handle;
use super::stream::Kept;
use super::{Context, CudaError, Stream};

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads may allocate meanwhile.
const THREAD_LOCAL: u32 = 1;

/// A recorded piece of work. It holds the memory that was named while it was recorded.
pub struct Graph {
    context: Rc<Context>,
    recording: Handle,
    executable: Handle,
    nodes: usize,
    _kept: Kept,
}

impl Stream {
    /// Records what `body` gives to the stream, without doing it.
    ///
    /// # Errors
    /// What `body` returns, or what the driver says: something in it cannot be recorded.
    pub fn capture<E: From<CudaError>>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let context = Rc::clone(&self.context);
        // SAFETY: the handle is valid and not recording: only this function starts it.
        let begun = unsafe { (context.api.begin_capture)(self.handle, THREAD_LOCAL) };
        context.check("cuStreamBeginCapture", begun)?;
        self.recording = Some(Kept::default());
        let outcome = body(self);
        let kept = self.recording.take().unwrap_or_default();
        let mut graph = std::ptr::null_mut();
        // SAFETY: writes one handle, null when the recording is void.
        let ended = unsafe { (context.api.end_capture)(self.handle, &raw mut graph) };
        let recorded = Recorded {
            context: Rc::clone(&context),
            graph,
        };
        outcome?;
        context.check("cuStreamEndCapture", ended)?;
        Ok(recorded.instantiate(kept)?)
    }
}

/// The recording, until it is executable.
struct Recorded {
    context: Rc<Context>,
    graph: Handle,
}

impl Recorded {
    fn instantiate(mut self, kept: Kept) -> Result<Graph, CudaError> {
        let api = &self.context.api;
        let mut nodes = 0_usize;
        // SAFETY: with a null array only the number is written.
        self.context.check("cuGraphGetNodes", unsafe {
            (api.graph_nodes)(self.graph, std::ptr::null_mut(), &raw mut nodes)
        })?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the recording is valid; writes one handle.
        self.context.check("cuGraphInstantiate", unsafe {
            (api.graph_instantiate)(&raw mut executable, self.graph, 0)
        })?;
        let graph = std::mem::replace(&mut self.graph, std::ptr::null_mut());
        Ok(Graph {
            context: Rc::clone(&self.context),
            recording: graph,
            executable,
            nodes,
            _kept: kept,
        })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: from `end_capture`, and not handed on.
            let _ = unsafe { (self.context.api.graph_destroy)(self.graph) };
        }
    }
}

impl Graph {
    /// Kernels and copies in it.
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    pub(super) fn launch_on(&self, stream: Handle) -> Result<(), CudaError> {
        // SAFETY: both handles are valid; the memory named while recording is held by `self`, and
        // no slice of it is alive: the caller borrows the stream mutably.
        self.context.check("cuGraphLaunch", unsafe {
            (self.context.api.graph_launch)(self.executable, stream)
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: both were made in `instantiate` and are destroyed only here; work in flight is
        // finished first, because the memory it uses goes next.
        unsafe {
            let _ = (self.context.api.synchronize_context)();
            let _ = (self.context.api.graph_exec_destroy)(self.executable);
            let _ = (self.context.api.graph_destroy)(self.recording);
        }
    }
}
