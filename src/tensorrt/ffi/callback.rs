//! Rust closures as the C callbacks of the shim. A panic in one of them ends there.

use std::ffi::{c_char, c_void};
use std::io::Write;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::library::text;
use super::raw::ProgressCalls;

/// Hears how far a build is, from TensorRT's threads.
pub trait Progress: Sync {
    /// A phase of `steps` steps begins, within `parent` (empty: the whole build).
    fn started(&self, phase: &str, parent: &str, steps: u32);
    /// A step is done. `Break` stops the build.
    fn step(&self, phase: &str, step: u32) -> ControlFlow<()>;
    /// A phase is over, complete or not.
    fn finished(&self, phase: &str);
}

/// What the C side gets a pointer to, as long as it lives.
pub(super) struct ProgressTarget<'a>(pub(super) &'a dyn Progress);

impl ProgressTarget<'_> {
    /// The callbacks; they must not be called after `self` is gone.
    pub(super) fn calls(&self) -> ProgressCalls {
        ProgressCalls {
            user: std::ptr::from_ref(self).cast_mut().cast(),
            start,
            step,
            finish,
        }
    }
}

/// # Safety
/// `user` is the pointer of [`ProgressTarget::calls`], whose target still lives.
unsafe fn target<'a>(user: *mut c_void) -> &'a dyn Progress {
    // SAFETY: the caller's promise; the target is only read, and `Progress` is `Sync`.
    unsafe { &*user.cast::<ProgressTarget<'a>>() }.0
}

unsafe extern "C" fn start(
    user: *mut c_void,
    phase: *const c_char,
    parent: *const c_char,
    steps: i32,
) {
    // SAFETY: the shim passes the pointer back that `calls` gave it, during the build only, and C
    // strings that live during the call.
    let (progress, phase, parent) = unsafe { (target(user), text(phase), text(parent)) };
    let steps = u32::try_from(steps).unwrap_or_default();
    let _ended_here = catch_unwind(AssertUnwindSafe(|| {
        progress.started(&phase, &parent, steps);
    }));
}

unsafe extern "C" fn step(user: *mut c_void, phase: *const c_char, step: i32) -> i32 {
    // SAFETY: as in `start`.
    let (progress, phase) = unsafe { (target(user), text(phase)) };
    let step = u32::try_from(step).unwrap_or_default();
    let said = catch_unwind(AssertUnwindSafe(|| progress.step(&phase, step)));
    // Who panics cannot be asked again: the build is stopped.
    i32::from(!matches!(said, Ok(ControlFlow::Continue(()))))
}

unsafe extern "C" fn finish(user: *mut c_void, phase: *const c_char) {
    // SAFETY: as in `start`.
    let (progress, phase) = unsafe { (target(user), text(phase)) };
    let _ended_here = catch_unwind(AssertUnwindSafe(|| progress.finished(&phase)));
}

/// Where the shim's bytes go. TensorRT does not say which thread writes.
pub(super) struct Sink<'a> {
    state: Mutex<(&'a mut (dyn Write + Send), Option<std::io::Error>)>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(writer: &'a mut (dyn Write + Send)) -> Self {
        Self {
            state: Mutex::new((writer, None)),
        }
    }

    /// The pointer for [`write`]; it must not be used after `self` is gone.
    pub(super) fn user(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// What went wrong while writing.
    pub(super) fn error(self) -> Option<std::io::Error> {
        let state = self.state.into_inner();
        state.unwrap_or_else(std::sync::PoisonError::into_inner).1
    }

    fn take(&self, bytes: &[u8]) -> bool {
        let Ok(mut state) = self.state.lock() else {
            return false;
        };
        match state.0.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                state.1 = Some(error);
                false
            }
        }
    }
}

/// `ew_write` of a [`Sink`].
pub(super) unsafe extern "C" fn write(user: *mut c_void, bytes: *const c_void, count: u64) -> i32 {
    let Ok(count) = usize::try_from(count) else {
        return 1;
    };
    // SAFETY: the shim passes the pointer of `Sink::user` back while the sink lives.
    let sink = unsafe { &*user.cast::<Sink<'_>>() };
    let bytes = if count == 0 {
        &[]
    } else {
        // SAFETY: the shim passes `count` readable bytes that nobody writes during the call.
        unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) }
    };
    let taken = catch_unwind(AssertUnwindSafe(|| sink.take(bytes)));
    i32::from(!matches!(taken, Ok(true)))
}
