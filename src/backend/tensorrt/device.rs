//! What runs: an engine with its memory, sessions and graphs on one stream. It does what a
//! [`Pass`] says and decides nothing but when a graph is recorded.

use std::collections::BTreeMap;
use std::time::Instant;

use super::plan::cache::BoxCopy;
use super::plan::memory::{Inputs, logits_bytes};
use super::plan::patience::Patience;
use super::plan::recent::Recent;
use super::plan::{Form, Geometry, Pass, Shape};
use super::ports::Ports;
use super::sessions::{Sessions, shapes};
use crate::tensorrt::{
    CudaError, DeviceBox, DeviceMemory, Engine, Event, Filing, FilingShape, Flavour, Gpu, Graph,
    PinnedMemory, Session, SessionError, Stream, Wait,
};

/// Recorded chunks of prompts that are kept: each has the size, the context and the slot it is for. One
/// takes some 5 MB of host memory (measured with 390 nodes).
const MOST_CHUNKS: usize = 128;

/// The memory of a device, allocated once.
struct Memory {
    /// Keys and values: tensors × slots × heads × capacity × head length.
    cache: DeviceMemory,
    /// New keys and values of one step (split form).
    fresh: DeviceMemory,
    /// The integers of a pass, and the same in pinned memory.
    inputs: DeviceMemory,
    given: PinnedMemory,
    /// Logits, and the same in pinned memory.
    logits: DeviceMemory,
    taken: PinnedMemory,
    /// 0, 1, 2, … capacity.
    context: DeviceMemory,
    /// TensorRT's scratch space.
    activations: DeviceMemory,
}

/// An engine that can run.
pub(super) struct Device {
    // Fields are dropped in this order: graphs, sessions, then the engine, then memory.
    /// Shapes that were met, with their graphs; `None`: it could not be recorded.
    known: BTreeMap<Shape, Option<Graph>>,
    /// Those of them that are chunks of prompts.
    chunks: Recent,
    /// Whether chunks of prompts are recorded too. TensorRT-RTX leaves some 200 KiB of host memory
    /// behind for every plain run with other sizes than the one before it; what is recorded leaves
    /// nothing.
    records_chunks: bool,
    /// By profile. All graphs of a profile are recorded from its one session: a graph holds what
    /// the session was when it was recorded, as TensorRT-LLM relies on too, and a session costs
    /// more than a hundred MiB of host memory.
    sessions: Sessions,
    filing: Option<Filing>,
    _engine: Engine,
    memory: Memory,
    pub(super) geometry: Geometry,
    ports: Ports,
    wait: Wait,
    patience: Patience,
    /// The step that was started last and when, until it was waited for.
    started: Option<(Shape, Instant)>,
    stream: Stream,
    gpu: Gpu,
}

impl Device {
    /// Allocates everything, clears the KV cache, and compiles our kernel where it is needed.
    pub(super) fn new(
        (gpu, mut stream): (Gpu, Stream),
        engine: Engine,
        (ports, geometry): (Ports, Geometry),
        need: super::plan::memory::Need,
        sessions: Sessions,
        wait: Wait,
    ) -> Result<Self, CudaError> {
        let logits = logits_bytes(&geometry);
        let integers = largest_inputs(&geometry);
        let capacity = 4 * u64::from(geometry.capacity);
        let memory = Memory {
            cache: gpu.allocate(need.cache, "the KV cache")?,
            fresh: gpu.allocate(need.fresh, "new keys and values")?,
            inputs: gpu.allocate(integers, "inputs")?,
            given: gpu.pin(integers, "inputs")?,
            logits: gpu.allocate(logits, "logits")?,
            taken: gpu.pin(logits, "logits")?,
            context: gpu.allocate(capacity, "positions of the context")?,
            activations: gpu.allocate(need.activations, "activations")?,
        };
        // What is not a number stays one however little it counts: the cache must hold numbers.
        stream.clear(&memory.cache, 0, need.cache)?;
        let mut positions = gpu.pin(capacity, "positions of the context")?;
        let count = geometry.capacity as usize;
        for (cell, position) in stream
            .write::<i32>(&mut positions, 0, count)?
            .iter_mut()
            .zip(0..)
        {
            *cell = position;
        }
        stream.upload(&positions, &memory.context, 0, capacity)?;
        stream.synchronize()?;
        let filing = match geometry.form {
            Form::Split => Some(Filing::new(&gpu)?),
            Form::Native => None,
        };
        Ok(Self {
            known: BTreeMap::new(),
            chunks: Recent::new(MOST_CHUNKS),
            records_chunks: engine.library().flavour() == Flavour::Rtx,
            sessions,
            filing,
            _engine: engine,
            memory,
            geometry,
            ports,
            wait,
            patience: Patience::default(),
            started: None,
            stream,
            gpu,
        })
    }

    /// Starts a pass. Its logits are there once [`Device::wait`] or [`Device::logits`] returns.
    pub(super) fn run(&mut self, pass: &Pass) -> Result<(), SessionError> {
        self.give(pass)?;
        self.started = Some((pass.shape, Instant::now()));
        if self.is_recorded(pass.shape)
            && !pass.shape.is_answer()
            && let Some(old) = self.chunks.used(pass.shape)
        {
            self.known.remove(&old);
        }
        if let Some(Some(graph)) = self.known.get(&pass.shape) {
            return Ok(self.stream.launch(graph)?);
        }
        let record = self.is_recorded(pass.shape) && !self.known.contains_key(&pass.shape);
        self.run_plainly(pass.shape, record)
    }

    /// The logits of row `row` of the pass started last.
    pub(super) fn logits(&self, row: u32) -> Result<&[f32], CudaError> {
        let vocabulary = self.geometry.vocabulary;
        let at = 4 * u64::from(row) * u64::from(vocabulary);
        self.stream
            .read(&self.memory.taken, at, vocabulary as usize)
    }

    /// Whether a recorded graph is worth its memory.
    fn is_recorded(&self, shape: Shape) -> bool {
        shape.is_answer() || self.records_chunks
    }

    /// Waits for everything that was started.
    pub(super) fn wait(&mut self) -> Result<(), CudaError> {
        let Some((shape, begun)) = self.started.take() else {
            return self.stream.synchronize();
        };
        let overslept = self.wait == Wait::Expect && self.watch(shape, begun)?;
        self.stream.synchronize()?;
        self.patience.learn(shape, begun.elapsed(), overslept);
        Ok(())
    }

    /// Sleeps, then looks, until the step is over or has become too late. Returns whether it was over
    /// before it was looked for.
    fn watch(&mut self, shape: Shape, begun: Instant) -> Result<bool, CudaError> {
        let vigil = self.patience.vigil(shape, begun.elapsed());
        if !vigil.sleep.is_zero() {
            let before = Instant::now();
            std::thread::sleep(vigil.sleep);
            self.patience.slept(vigil.sleep, before.elapsed());
            if self.stream.is_done()? {
                return Ok(true);
            }
        }
        let open = Instant::now();
        while open.elapsed() < vigil.look && !self.stream.is_done()? {
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Copies a prefix within the KV cache.
    pub(super) fn copy(&mut self, copy: BoxCopy) -> Result<(), CudaError> {
        let BoxCopy {
            from,
            to,
            width,
            row_pitch,
            rows,
            plane_rows,
            planes,
        } = copy;
        let area = DeviceBox {
            from,
            to,
            width,
            row_pitch,
            rows,
            plane_rows,
            planes,
        };
        self.stream.copy_box(&self.memory.cache, area)
    }

    /// Kernels compiled so far, to be kept for the next start; `None`: there is nothing to keep.
    pub(super) fn kernels(&mut self) -> Option<Vec<u8>> {
        let kept = self
            .sessions
            .values_mut()
            .filter_map(Session::runtime_cache);
        kept.max_by_key(Vec::len)
    }

    /// Bytes free on the device and in all.
    pub(super) fn free_memory(&self) -> Result<(u64, u64), CudaError> {
        self.gpu.memory()
    }

    /// Shapes that were recorded, with the nodes of their graphs; 0: could not be recorded.
    pub(super) fn recorded(&self) -> impl Iterator<Item = (Shape, usize)> {
        let nodes = |graph: &Option<Graph>| graph.as_ref().map_or(0, Graph::nodes);
        let known = self.known.iter();
        known.map(move |(shape, graph)| (*shape, nodes(graph)))
    }

    /// Milliseconds of the device for each of `count` runs of the recorded graph of `shape` with the
    /// inputs given last, one right after the other.
    pub(super) fn replay(&mut self, shape: Shape, count: usize) -> Result<Vec<f32>, CudaError> {
        let Some(Some(graph)) = self.known.get(&shape) else {
            return Ok(Vec::new());
        };
        let events: Result<Vec<_>, _> = (0..=count).map(|_| Event::new(&self.gpu)).collect();
        let events = events?;
        for (i, event) in events.iter().enumerate() {
            if i > 0 {
                self.stream.launch(graph)?;
            }
            self.stream.record(event)?;
        }
        let pairs = events.windows(2);
        pairs
            .map(|pair| pair[1].milliseconds_since(&pair[0]))
            .collect()
    }

    /// Lays the integers of a pass where the device takes them from.
    fn give(&mut self, pass: &Pass) -> Result<(), CudaError> {
        let layout = Inputs::new(pass.shape.tokens, pass.shape.rows);
        let count = usize::try_from(layout.bytes / 4).unwrap_or(usize::MAX);
        let given = self.stream.write::<i32>(&mut self.memory.given, 0, count)?;
        for (at, values) in [
            (layout.tokens, &pass.tokens),
            (layout.positions, &pass.positions),
            (layout.lengths, &pass.lengths),
            (layout.counts, &pass.counts),
            (layout.gather, &pass.gather),
        ] {
            let cells = given
                .iter_mut()
                .skip(usize::try_from(at / 4).unwrap_or(usize::MAX));
            for (cell, value) in cells.zip(values) {
                *cell = *value;
            }
        }
        Ok(())
    }

    /// Runs a shape through its profile's session, and records it for the next time. Recording
    /// comes second: what TensorRT does for sizes that are new to it cannot be recorded.
    fn run_plainly(&mut self, shape: Shape, record: bool) -> Result<(), SessionError> {
        let Some(mut session) = self.sessions.remove(&shape.profile) else {
            return Err(SessionError::Tensor(format!(
                "of profile {}",
                shape.profile
            )));
        };
        self.lay_out(&mut session, shape)?;
        let mut work = Work {
            memory: &mut self.memory,
            filing: self.filing.as_ref(),
            geometry: &self.geometry,
        };
        work.start(&mut session, shape, &mut self.stream)?;
        if record {
            self.stream.synchronize()?;
            let recorded = self
                .stream
                .capture(|stream| work.start(&mut session, shape, stream));
            let graph = match recorded {
                Ok(graph) => Some(graph),
                Err(error @ SessionError::Cuda(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, ?shape, "this step cannot be recorded; it is run plainly");
                    None
                }
            };
            self.known.insert(shape, graph);
        }
        self.sessions.insert(shape.profile, session);
        Ok(())
    }

    /// Sizes and addresses of every tensor.
    fn lay_out(&self, session: &mut Session, shape: Shape) -> Result<(), SessionError> {
        let (ports, geometry) = (&self.ports, &self.geometry);
        session.set_shapes(shapes(ports, geometry, shape))?;
        session.set_scratch(&self.memory.activations)?;
        let layout = Inputs::new(shape.tokens, shape.rows);
        let Memory {
            cache,
            fresh,
            inputs,
            logits,
            context,
            ..
        } = &self.memory;
        session.bind(&ports.tokens, inputs, layout.tokens)?;
        session.bind(&ports.positions, inputs, layout.positions)?;
        session.bind(&ports.lengths, inputs, layout.lengths)?;
        session.bind(&ports.rows, inputs, layout.gather)?;
        session.bind(&ports.context, context, 0)?;
        session.bind(&ports.logits, logits, 0)?;
        let fresh_tensor =
            geometry.fresh_bytes(shape.tokens, shape.rows) / u64::from(geometry.cache_tensors());
        for (tensor, port) in (0..).zip(&ports.cache) {
            let slot = u64::from(shape.first) * geometry.slot_bytes();
            let at = tensor * geometry.tensor_bytes() + slot;
            session.bind(&port.past, cache, at)?;
            match geometry.form {
                Form::Native => session.bind(&port.given, cache, at)?,
                Form::Split => session.bind(&port.given, fresh, tensor * fresh_tensor)?,
            }
        }
        Ok(())
    }
}

/// What a step needs beside its session and the stream.
struct Work<'a> {
    memory: &'a mut Memory,
    filing: Option<&'a Filing>,
    geometry: &'a Geometry,
}

impl Work<'_> {
    /// One step: integers in, the network, new keys and values filed, logits out.
    fn start(
        &mut self,
        session: &mut Session,
        shape: Shape,
        stream: &mut Stream,
    ) -> Result<(), SessionError> {
        let layout = Inputs::new(shape.tokens, shape.rows);
        let geometry = self.geometry;
        let memory = &mut *self.memory;
        stream.upload(&memory.given, &memory.inputs, 0, layout.bytes)?;
        session.enqueue(stream)?;
        if let Some(filing) = self.filing {
            let filed = FilingShape {
                tensors: geometry.cache_tensors(),
                slots: geometry.slots,
                heads: geometry.kv_heads,
                capacity: geometry.capacity,
                units: geometry.head_length / 8,
                first: shape.first,
                rows: shape.rows,
                tokens: shape.tokens,
            };
            let writes = (&memory.inputs, layout.lengths, layout.counts);
            filing.launch(stream, filed, &memory.cache, &memory.fresh, writes)?;
        }
        let bytes = 4 * u64::from(shape.rows) * u64::from(geometry.vocabulary);
        stream.download(&memory.logits, 0, &mut memory.taken, bytes)?;
        Ok(())
    }
}

/// Bytes of the integers of the largest pass.
fn largest_inputs(geometry: &Geometry) -> u64 {
    let rows = if geometry.chunks_alone() {
        1
    } else {
        geometry.slots
    };
    let chunk = Inputs::new(geometry.longest_chunk(), rows).bytes;
    chunk.max(Inputs::new(1, geometry.slots).bytes)
}
