//! The shim's functions as `shim/enginewright_trt.h` declares them. Every change there is one here, and a
//! new `EW_ABI_VERSION`.

use std::ffi::{c_char, c_int, c_void};

/// `EW_ABI_VERSION` that this file was written for.
pub(super) const ABI: u32 = 1;
/// `EW_MAX_DIMS`.
pub(super) const MAX_DIMS: usize = 8;

/// `ew_status`.
pub(super) const CANCELLED: i32 = -2;
pub(super) const UNSUPPORTED: i32 = -3;
pub(super) const VERSION: i32 = -5;
pub(super) const WRITE: i32 = -7;
pub(super) const MEMORY: i32 = -8;

macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        pub(super) struct $name {
            _private: [u8; 0],
        }
    )*};
}
opaque!(RawLibrary, RawBuild, RawEngine, RawContext);

#[repr(C)]
#[derive(Default)]
pub(super) struct Info {
    pub abi: u32,
    pub rtx: u32,
    pub capabilities: u32,
    pub version: [i32; 4],
}

#[repr(C)]
pub(super) struct BuildOptions {
    pub workspace_bytes: u64,
    pub tactic_bytes: u64,
    pub threads: i32,
    pub optimization: i32,
    pub target_sm: i32,
    pub detailed: i32,
}

#[repr(C)]
pub(super) struct ProgressCalls {
    pub user: *mut c_void,
    pub start: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, i32),
    pub step: unsafe extern "C" fn(*mut c_void, *const c_char, i32) -> i32,
    pub finish: unsafe extern "C" fn(*mut c_void, *const c_char),
}

#[repr(C)]
pub(super) struct TensorInfo {
    pub name: *const c_char,
    pub kind: i32,
    pub is_input: i32,
    pub on_host: i32,
    pub count: i32,
    pub dims: [i64; MAX_DIMS],
}

#[repr(C)]
pub(super) struct RawContextOptions {
    pub own_memory: i32,
    pub eager: i32,
    pub cache: *const c_void,
    pub cache_bytes: u64,
}

pub(super) type Log = unsafe extern "C" fn(i32, *const c_char);
pub(super) type Write = unsafe extern "C" fn(*mut c_void, *const c_void, u64) -> i32;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Addresses of the shim's functions; valid as long as the shim is loaded, which is for ever.
        pub(super) struct Api {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// # Safety
            /// `shim` has functions of these names with these very signatures, and is never unloaded.
            pub(super) unsafe fn load(shim: &libloading::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the caller vouches for the signatures; the copied address stays valid
                    // because the shim is never unloaded.
                    $($name: *unsafe { shim.get(concat!(stringify!($name), "\0"))? },)*
                })
            }
        }
    };
}

type Dims = *const i64;

functions! {
    ew_message() -> *const c_char;
    ew_set_log(Log);
    ew_open(*const c_char, *mut *mut RawLibrary, *mut i32) -> i32;
    ew_close(*mut RawLibrary);
    ew_build_new(*mut RawLibrary, *const BuildOptions) -> *mut RawBuild;
    ew_build_free(*mut RawBuild);
    ew_input(*mut RawBuild, *const c_char, i32, Dims, i32) -> i32;
    ew_constant(*mut RawBuild, i32, *const c_void, i64, Dims, i32) -> i32;
    ew_matmul(*mut RawBuild, i32, i32, i32, i32) -> i32;
    ew_elementwise(*mut RawBuild, i32, i32, i32) -> i32;
    ew_unary(*mut RawBuild, i32, i32) -> i32;
    ew_activation(*mut RawBuild, i32, i32) -> i32;
    ew_reduce(*mut RawBuild, i32, i32, u32, i32) -> i32;
    ew_softmax(*mut RawBuild, i32, u32) -> i32;
    ew_cast(*mut RawBuild, i32, i32) -> i32;
    ew_shape(*mut RawBuild, i32) -> i32;
    ew_gather(*mut RawBuild, i32, i32, i32) -> i32;
    ew_select(*mut RawBuild, i32, i32, i32) -> i32;
    ew_concat(*mut RawBuild, *const i32, i32, i32) -> i32;
    ew_shuffle(*mut RawBuild, i32, *const i32, i32, Dims, i32, i32, *const i32, i32) -> i32;
    ew_slice(*mut RawBuild, i32, Dims, Dims, i32, i32, i32) -> i32;
    ew_dequantize(*mut RawBuild, i32, i32, i32, i32) -> i32;
    ew_topk(*mut RawBuild, i32, i32, u32, *mut i32) -> i32;
    ew_rotary(*mut RawBuild, i32, i32, i32, i32) -> i32;
    ew_kv_update(*mut RawBuild, i32, i32, i32) -> i32;
    ew_attention(*mut RawBuild, i32, i32, i32, i32) -> i32;
    ew_name_layer(*mut RawBuild, i32, *const c_char) -> i32;
    ew_output(*mut RawBuild, i32, *const c_char) -> i32;
    ew_tensor(*mut RawBuild, i32, *mut i32, *mut i64) -> i32;
    ew_layer_count(*mut RawBuild) -> i32;
    ew_profile_new(*mut RawBuild) -> i32;
    ew_profile_shape(*mut RawBuild, i32, *const c_char, i32, Dims, i32) -> i32;
    ew_profile_add(*mut RawBuild, i32) -> i32;
    ew_timing_cache_load(*mut RawBuild, *const c_void, u64) -> i32;
    ew_timing_cache_save(*mut RawBuild, Write, *mut c_void) -> i32;
    ew_build_run(*mut RawBuild, *const ProgressCalls, Write, *mut c_void) -> i32;
    ew_engine_load(*mut RawLibrary, *const c_void, u64) -> *mut RawEngine;
    ew_engine_free(*mut RawEngine);
    ew_engine_tensors(*mut RawEngine) -> i32;
    ew_engine_tensor(*mut RawEngine, i32, *mut TensorInfo) -> i32;
    ew_engine_profiles(*mut RawEngine) -> i32;
    ew_engine_profile_shape(*mut RawEngine, *const c_char, i32, i32, *mut i64) -> c_int;
    ew_engine_memory(*mut RawEngine, i32) -> i64;
    ew_engine_inspect(*mut RawEngine, Write, *mut c_void) -> i32;
    ew_context_new(*mut RawEngine, *const RawContextOptions) -> *mut RawContext;
    ew_context_free(*mut RawContext);
    ew_context_memory(*mut RawContext, u64, i64) -> i32;
    ew_context_memory_needed(*mut RawContext) -> i64;
    ew_context_profile(*mut RawContext, i32, *mut c_void) -> i32;
    ew_context_shape(*mut RawContext, *const c_char, Dims, i32) -> i32;
    ew_context_shape_of(*mut RawContext, *const c_char, *mut i64) -> i32;
    ew_context_address(*mut RawContext, *const c_char, u64) -> i32;
    ew_context_enqueue(*mut RawContext, *mut c_void) -> i32;
    ew_context_cache(*mut RawContext, Write, *mut c_void) -> i32;
}
