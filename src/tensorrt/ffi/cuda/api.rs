//! The functions of the CUDA driver that are used, found at run time. Decides nothing: signatures
//! as in `cuda.h` of CUDA 12 and 13, by the names that both export.

use std::ffi::{c_char, c_int, c_uint, c_void};

use libloading::Library;

use super::CudaError;

/// An opaque handle of the driver: context, stream, event, graph, module or function.
pub(super) type Handle = *mut c_void;
/// An address in device memory.
pub(super) type Address = u64;
/// `CUresult`.
pub(super) type Status = c_int;

/// Names the library is looked for under: the first comes with every driver, JetPack's included.
pub(super) const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// `CUDA_MEMCPY3D_v2`.
#[repr(C)]
pub(super) struct Copy3d {
    pub(super) src_x: usize,
    pub(super) src_y: usize,
    pub(super) src_z: usize,
    pub(super) src_lod: usize,
    pub(super) src_type: c_uint,
    pub(super) src_host: *const c_void,
    pub(super) src_device: Address,
    pub(super) src_array: Handle,
    pub(super) reserved0: *mut c_void,
    pub(super) src_pitch: usize,
    pub(super) src_height: usize,
    pub(super) dst_x: usize,
    pub(super) dst_y: usize,
    pub(super) dst_z: usize,
    pub(super) dst_lod: usize,
    pub(super) dst_type: c_uint,
    pub(super) dst_host: *mut c_void,
    pub(super) dst_device: Address,
    pub(super) dst_array: Handle,
    pub(super) reserved1: *mut c_void,
    pub(super) dst_pitch: usize,
    pub(super) dst_height: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
}

/// `CU_MEMORYTYPE_DEVICE`.
pub(super) const DEVICE_MEMORY: c_uint = 2;

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*);)*) => {
        /// The driver's functions; the library stays open as long as they do.
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> Status,)*
            _library: Library,
        }

        impl Api {
            fn bind(library: Library) -> Result<Self, CudaError> {
                $(
                    // SAFETY: the symbol is the driver's function of that name, whose signature in
                    // `cuda.h` is the field's type; the pointer is kept beside the library.
                    let $field = unsafe { library.get(concat!($symbol, "\0").as_bytes()) }
                        .map(|symbol| *symbol)
                        .map_err(|_| CudaError::Symbol($symbol))?;
                )*
                Ok(Self { $($field,)* _library: library })
            }
        }
    };
}

functions! {
    init = "cuInit" (c_uint);
    driver_version = "cuDriverGetVersion" (*mut c_int);
    error_name = "cuGetErrorName" (Status, *mut *const c_char);
    error_text = "cuGetErrorString" (Status, *mut *const c_char);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    primary_flags = "cuDevicePrimaryCtxSetFlags_v2" (c_int, c_uint);
    primary_retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    primary_release = "cuDevicePrimaryCtxRelease_v2" (c_int);
    set_current = "cuCtxSetCurrent" (Handle);
    synchronize_context = "cuCtxSynchronize" ();
    memory_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut Address, usize);
    free = "cuMemFree_v2" (Address);
    allocate_host = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    free_host = "cuMemFreeHost" (*mut c_void);
    fill = "cuMemsetD8Async" (Address, u8, usize, Handle);
    upload = "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
    copy_3d = "cuMemcpy3DAsync_v2" (*const Copy3d, Handle);
    stream_create = "cuStreamCreate" (*mut Handle, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Handle);
    stream_synchronize = "cuStreamSynchronize" (Handle);
    stream_query = "cuStreamQuery" (Handle);
    begin_capture = "cuStreamBeginCapture_v2" (Handle, c_uint);
    end_capture = "cuStreamEndCapture" (Handle, *mut Handle);
    graph_instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    graph_nodes = "cuGraphGetNodes" (Handle, *mut Handle, *mut usize);
    graph_launch = "cuGraphLaunch" (Handle, Handle);
    graph_exec_destroy = "cuGraphExecDestroy" (Handle);
    graph_destroy = "cuGraphDestroy" (Handle);
    event_create = "cuEventCreate" (*mut Handle, c_uint);
    event_destroy = "cuEventDestroy_v2" (Handle);
    event_record = "cuEventRecord" (Handle, Handle);
    event_synchronize = "cuEventSynchronize" (Handle);
    event_elapsed = "cuEventElapsedTime" (*mut f32, Handle, Handle);
    module_load = "cuModuleLoadData" (*mut Handle, *const c_void);
    module_unload = "cuModuleUnload" (Handle);
    module_function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    launch_kernel = "cuLaunchKernel" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void,
        *mut *mut c_void
    );
}

impl Api {
    /// Opens the driver and initialises it.
    pub(super) fn open() -> Result<Self, CudaError> {
        let mut why = String::new();
        for name in NAMES {
            // SAFETY: the driver's constructors have no preconditions.
            match unsafe { Library::new(name) } {
                Ok(library) => {
                    let api = Self::bind(library)?;
                    // SAFETY: the flags must be 0, and are.
                    api.check("cuInit", unsafe { (api.init)(0) })?;
                    return Ok(api);
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(CudaError::NoDriver { why })
    }

    /// An error code as an error.
    pub(super) fn check(&self, call: &'static str, status: Status) -> Result<(), CudaError> {
        if status == 0 {
            return Ok(());
        }
        let name = Self::words(self.error_name, status);
        let text = Self::words(self.error_text, status);
        Err(CudaError::Call {
            call,
            code: status,
            name,
            text,
        })
    }

    fn words(
        of: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
        status: Status,
    ) -> String {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the function writes one pointer, null or to a static string.
        let known = unsafe { of(status, &raw mut text) } == 0 && !text.is_null();
        if !known {
            return "unknown".to_owned();
        }
        // SAFETY: not null, so a static string that ends with a zero.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        text.to_string_lossy().into_owned()
    }
}
