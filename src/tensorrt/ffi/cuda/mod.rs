//! The CUDA driver: one device, one stream, memory, graphs. Found at run time, so that the program
//! starts on machines without one; nothing is decided here.
//!
//! There is one [`Stream`] per [`Gpu`], and it is borrowed mutably by everything that gives work to
//! the device. A slice of pinned memory borrows it too and waits for it first, so that while the
//! slice lives nothing can run on the device that reads or writes it.
//!
//! All values belong to the thread that called [`Gpu::open`].

mod api;
mod graph;
mod kernel;
mod memory;
mod stream;

use std::ffi::{CStr, c_char, c_int};
use std::rc::Rc;

pub use graph::Graph;
pub use kernel::{Filing, FilingShape};
pub use memory::{DeviceMemory, PinnedMemory};
pub use stream::{DeviceBox, Event, Stream};

use api::Api;

use crate::hardware::Sm;

/// Why a call of the driver failed. After [`CudaError::Call`] nothing on the device can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// No driver on this machine.
    #[error(
        "the CUDA driver is not here ({why}): on a Jetson it is part of JetPack; in a container it \
         comes from the host through the nvidia runtime (runtimeClassName: nvidia)"
    )]
    NoDriver {
        /// What the dynamic linker said.
        why: String,
    },
    /// A driver too old or too new.
    #[error("the CUDA driver has no function {0}: CUDA 12 or 13 is needed")]
    Symbol(&'static str),
    /// No device of that number.
    #[error("there is no CUDA device {ordinal}: the driver sees {count}")]
    NoDevice {
        /// Which one was asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// The device has too little memory.
    #[error("the device has no {bytes} bytes of memory for {what}; {free} of {total} are free")]
    Memory {
        /// What for.
        what: &'static str,
        /// What was asked for.
        bytes: u64,
        /// What is free.
        free: u64,
        /// What the device has.
        total: u64,
    },
    /// A range outside of a piece of memory: a mistake of the caller.
    #[error("bytes {start} to {end} of {what} were asked for, which has {bytes}")]
    Range {
        /// Of what.
        what: &'static str,
        /// First byte.
        start: u64,
        /// Byte after the last.
        end: u64,
        /// Bytes there are.
        bytes: u64,
    },
    /// A call failed.
    #[error("{call} failed: {name} ({code}): {text}")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// Its result.
        code: i32,
        /// The name of the result.
        name: String,
        /// What the driver says about it.
        text: String,
    },
}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
const OUT_OF_MEMORY: i32 = 2;

/// How a thread waits for the device. Says what the driver does in [`Stream::synchronize`]; when else to
/// look is up to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// The thread sleeps until shortly before the expected end and looks from there on: within some
    /// microseconds of [`Wait::Spin`] at a tenth of its processor time.
    #[default]
    Expect,
    /// The thread sleeps until the device interrupts: least processor time, and some hundred
    /// microseconds later.
    Block,
    /// The thread burns a processor and hears of the end some microseconds earlier.
    Spin,
}

impl Wait {
    /// `CU_CTX_SCHED_*`.
    const fn flags(self) -> u32 {
        match self {
            Self::Expect | Self::Block => 4,
            Self::Spin => 1,
        }
    }
}

impl std::str::FromStr for Wait {
    type Err = String;

    /// `expect`, `sleep` or `spin`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "expect" => Ok(Self::Expect),
            "sleep" => Ok(Self::Block),
            "spin" => Ok(Self::Spin),
            _ => Err("must be `expect`, `sleep` or `spin`".to_owned()),
        }
    }
}

/// What a device is, for the engine key and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name, such as `Orin`.
    pub name: String,
    /// Compute capability.
    pub sm: Sm,
    /// The newest CUDA the driver speaks, such as 12060.
    pub driver: u32,
    /// Bytes of memory in all.
    pub memory: u64,
}

/// The primary context of a device, current on the thread that opened it: what TensorRT uses too.
struct Context {
    api: Api,
    device: c_int,
}

impl Context {
    /// A driver call as a result.
    fn check(&self, call: &'static str, status: api::Status) -> Result<(), CudaError> {
        self.api.check(call, status)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `Gpu::open`; everything made in it holds this value and is gone.
        let _ = unsafe { (self.api.primary_release)(self.device) };
    }
}

/// A device; clones are the same one.
#[derive(Clone)]
pub struct Gpu(Rc<Context>);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Gpu").field(&self.0.device).finish()
    }
}

impl Gpu {
    /// Opens the device `ordinal` for this thread.
    ///
    /// # Errors
    /// When there is no driver or no such device.
    pub fn open(ordinal: u32, wait: Wait) -> Result<(Self, Stream), CudaError> {
        let api = Api::open()?;
        let mut count: c_int = 0;
        // SAFETY: writes one number.
        api.check("cuDeviceGetCount", unsafe {
            (api.device_count)(&raw mut count)
        })?;
        let count = u32::try_from(count).unwrap_or(0);
        let index = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let mut device: c_int = 0;
        // SAFETY: writes one number; the ordinal is in range.
        api.check("cuDeviceGet", unsafe {
            (api.device)(&raw mut device, index)
        })?;
        // SAFETY: a valid device; the flags are one of CU_CTX_SCHED_*.
        api.check("cuDevicePrimaryCtxSetFlags", unsafe {
            (api.primary_flags)(device, wait.flags())
        })?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle, which `Context` gives back.
        api.check("cuDevicePrimaryCtxRetain", unsafe {
            (api.primary_retain)(&raw mut handle, device)
        })?;
        let context = Rc::new(Context { api, device });
        // SAFETY: the handle was just retained.
        context.check("cuCtxSetCurrent", unsafe {
            (context.api.set_current)(handle)
        })?;
        let gpu = Self(context);
        let stream = Stream::new(&gpu)?;
        Ok((gpu, stream))
    }

    /// Name, compute capability, driver, memory.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn facts(&self) -> Result<DeviceFacts, CudaError> {
        let api = &self.0.api;
        let mut name = [0 as c_char; 256];
        // SAFETY: the driver writes at most as many bytes as it is told, the last one zero.
        self.0.check("cuDeviceGetName", unsafe {
            (api.device_name)(name.as_mut_ptr(), 256, self.0.device)
        })?;
        // SAFETY: ends with a zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let mut driver: c_int = 0;
        // SAFETY: writes one number.
        self.0.check("cuDriverGetVersion", unsafe {
            (api.driver_version)(&raw mut driver)
        })?;
        // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
        let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
        let sm = Sm::new(small(self.attribute(75)?), small(self.attribute(76)?));
        Ok(DeviceFacts {
            name: name.to_string_lossy().into_owned(),
            sm,
            driver: u32::try_from(driver).unwrap_or(0),
            memory: self.memory()?.1,
        })
    }

    /// Whether the device's memory is the machine's, as on a Jetson.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn is_integrated(&self) -> Result<bool, CudaError> {
        // CU_DEVICE_ATTRIBUTE_INTEGRATED.
        Ok(self.attribute(18)? != 0)
    }

    fn attribute(&self, which: c_int) -> Result<u32, CudaError> {
        let mut value: c_int = 0;
        // SAFETY: writes one number.
        self.0.check("cuDeviceGetAttribute", unsafe {
            (self.0.api.device_attribute)(&raw mut value, which, self.0.device)
        })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Bytes of memory: free, and in all. On a Jetson what the whole machine has.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: writes two numbers; the context is current on this thread.
        self.0.check("cuMemGetInfo", unsafe {
            (self.0.api.memory_info)(&raw mut free, &raw mut total)
        })?;
        Ok((free as u64, total as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a machine with a driver and a device this opens it; everywhere else it must say what is
    /// missing, and not crash.
    #[test]
    fn a_machine_without_a_device_is_told_what_is_missing() {
        match Gpu::open(0, Wait::Block) {
            Ok((gpu, _stream)) => assert!(gpu.facts().unwrap().sm.major >= 5),
            Err(error @ CudaError::NoDriver { .. }) => {
                let words = error.to_string();
                assert!(words.contains("JetPack") && words.contains("nvidia runtime"));
            }
            Err(error) => assert!(
                matches!(error, CudaError::NoDevice { .. } | CudaError::Call { .. }),
                "{error}"
            ),
        }
    }

    #[test]
    fn a_way_to_wait_is_read_from_a_word() {
        assert_eq!("expect".parse(), Ok(Wait::default()));
        assert_eq!("sleep".parse(), Ok(Wait::Block));
        assert_eq!("spin".parse(), Ok(Wait::Spin));
        assert!("".parse::<Wait>().is_err() && "block".parse::<Wait>().is_err());
    }

    #[test]
    fn a_device_that_cannot_be_there_is_refused() {
        assert!(Gpu::open(u32::MAX, Wait::Spin).is_err());
    }
}
