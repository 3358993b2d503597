//! The shim, and TensorRT behind it.

use std::ffi::{CStr, CString, c_char};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::raw::{ABI, Api, CANCELLED, Info, MEMORY, RawLibrary, UNSUPPORTED, VERSION, WRITE};
use crate::tensorrt::{Capabilities, Flavour, TensorRtError, Version};

/// `ew_describe`, the one function that is the same in every version of the shim.
type Describe = unsafe extern "C" fn(*mut Info);

/// A shim that is loaded, before its TensorRT is.
pub(in crate::tensorrt) struct Shim {
    api: Api,
    info: Info,
    path: PathBuf,
    /// Never unloaded: TensorRT keeps the shim's logger.
    _library: ManuallyDrop<libloading::Library>,
}

/// A TensorRT that is open, of the very build that its shim was compiled for. Clones are the same one.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    shim: Shim,
    raw: *mut RawLibrary,
    path: String,
}

// SAFETY: the shim's library object is two function addresses that are never written after
// `ew_open`; TensorRT's factories for builders and runtimes may be called from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `ew_open`, nothing else frees it, and every object made from it
        // holds an `Arc` of this, so none is left.
        unsafe { (self.shim.api.ew_close)(self.raw) };
    }
}

impl Library {
    /// Loads the shim at `path`.
    ///
    /// # Errors
    /// When it cannot be loaded, or is another library, or of another version of this program.
    pub(in crate::tensorrt) fn open_shim(path: &Path) -> Result<Shim, TensorRtError> {
        let wrong = |why: String| TensorRtError::WrongShim {
            path: path.to_owned(),
            why,
        };
        // SAFETY: loading runs the file's constructors. The file is one that the user named or that
        // lies beside this program or in a system folder: it is as trusted as the program is.
        let library = unsafe { libloading::Library::new(path) };
        let library = ManuallyDrop::new(library.map_err(|error| wrong(error.to_string()))?);
        let mut info = Info::default();
        // SAFETY: a library with a function of this name is a shim, and this function has had the
        // same signature in every version: it is what tells them apart.
        unsafe {
            let describe = library.get::<Describe>("ew_describe\0");
            describe.map_err(|error| wrong(error.to_string()))?(&raw mut info);
        }
        if info.abi != ABI {
            return Err(wrong(format!("its interface is {}, not {ABI}", info.abi)));
        }
        // SAFETY: the interface's number says that the signatures are those of `raw`; the library
        // is never unloaded (`ManuallyDrop`).
        let api = unsafe { Api::load(&library) }.map_err(|error| wrong(error.to_string()))?;
        // SAFETY: `log` neither unwinds nor keeps the message, and is never unloaded.
        unsafe { (api.ew_set_log)(log) };
        Ok(Shim {
            api,
            info,
            path: path.to_owned(),
            _library: library,
        })
    }

    pub(super) fn api(&self) -> &Api {
        &self.inner.shim.api
    }

    pub(super) fn raw(&self) -> *mut RawLibrary {
        self.inner.raw
    }

    /// Its version, to the build number.
    pub fn version(&self) -> Version {
        self.inner.shim.version()
    }

    /// TensorRT or TensorRT-RTX.
    pub fn flavour(&self) -> Flavour {
        self.inner.shim.flavour()
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.inner.shim.info.capabilities)
    }

    /// The version as an engine's key has it.
    pub fn version_in_key(&self) -> String {
        self.flavour().in_key(self.version())
    }

    /// The library that was opened, as it was asked for.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// The shim that was loaded.
    pub fn shim_path(&self) -> &Path {
        &self.inner.shim.path
    }

    /// What a status of the shim means; `what` was asked for.
    pub(super) fn error(&self, status: i64, what: &str) -> TensorRtError {
        let what = what.to_owned();
        let why = self.inner.shim.message();
        match i32::try_from(status).unwrap_or_default() {
            CANCELLED => TensorRtError::Cancelled,
            UNSUPPORTED => TensorRtError::Unsupported { what, why },
            MEMORY => TensorRtError::Memory { what },
            WRITE => TensorRtError::Write(std::io::Error::other(why)),
            _ => TensorRtError::Refused { what, why },
        }
    }

    /// A count or index that the shim returned, or the error that it stands for.
    pub(super) fn checked(&self, status: i32, what: &str) -> Result<i32, TensorRtError> {
        if status < 0 {
            Err(self.error(status.into(), what))
        } else {
            Ok(status)
        }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.flavour().name();
        write!(formatter, "{name} {} ({})", self.version(), self.path())
    }
}

impl Shim {
    pub(in crate::tensorrt) fn flavour(&self) -> Flavour {
        if self.info.rtx == 0 {
            Flavour::Enterprise
        } else {
            Flavour::Rtx
        }
    }

    fn version(&self) -> Version {
        version(self.info.version)
    }

    fn message(&self) -> String {
        // SAFETY: the shim returns a string that is valid until this thread's next call of it.
        unsafe { text((self.api.ew_message)()) }
    }

    /// Opens the first of `candidates` that can be opened.
    ///
    /// # Errors
    /// When none can, or the first that can is of another version.
    pub(in crate::tensorrt) fn open_tensorrt(
        self,
        candidates: &[PathBuf],
    ) -> Result<Library, TensorRtError> {
        let mut tried = Vec::new();
        for path in candidates {
            let shown = path.display().to_string();
            let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
                continue;
            };
            let mut raw = std::ptr::null_mut();
            let mut found = [0; 4];
            // SAFETY: the pointers are valid for the call; `found` has the four elements that the
            // header asks for. TensorRT's constructors run: see `open_shim` on trust.
            let status =
                unsafe { (self.api.ew_open)(name.as_ptr(), &raw mut raw, found.as_mut_ptr()) };
            if status == 0 {
                let inner = Inner {
                    shim: self,
                    raw,
                    path: shown,
                };
                return Ok(Library {
                    inner: Arc::new(inner),
                });
            }
            if status == VERSION && found != [0; 4] {
                return Err(TensorRtError::WrongVersion {
                    path: shown,
                    found: version(found),
                    expected: self.version(),
                });
            }
            tried.push(format!("{shown} ({})", self.message()));
        }
        Err(TensorRtError::NotFound {
            flavour: self.flavour(),
            tried: tried.join(", "),
        })
    }
}

fn version(numbers: [i32; 4]) -> Version {
    Version(numbers.map(|number| u32::try_from(number).unwrap_or_default()))
}

/// # Safety
/// `pointer` is null or a C string that stays valid during the call.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_string_lossy().into_owned()
}

/// TensorRT's log lines, into ours. Called from its threads.
unsafe extern "C" fn log(severity: i32, message: *const c_char) {
    // SAFETY: the shim passes a C string that lives during the call.
    let message = unsafe { text(message) };
    // A panic must not reach C++. Nothing here is known to panic but a subscriber might.
    let _lost = std::panic::catch_unwind(|| match severity {
        ..=1 => tracing::error!(target: "tensorrt", "{message}"),
        2 => tracing::warn!(target: "tensorrt", "{message}"),
        3 => tracing::debug!(target: "tensorrt", "{message}"),
        _ => tracing::trace!(target: "tensorrt", "{message}"),
    });
}
