// The C ABI of libenginewright_trt.so: what Enginewright asks of TensorRT, and nothing else.
//
// One library is compiled for one TensorRT, from that TensorRT's headers. TensorRT's own interface is
// C++ objects with virtual tables whose layout differs between versions and that no call checks, so
// ew_open refuses every library whose four-part version is not the one of the headers.
//
// Rules, the same for all functions:
// * No exception leaves a function. A call that fails returns a negative ew_status (or the null
//   pointer); ew_message() then says why, with what TensorRT logged, until this thread's next call.
// * Enumerations are ours: the numbers of TensorRT's differ between versions.
// * Tensors are numbers that are valid for the ew_build that gave them; any other number is refused.
// * Dimensions are at most EW_MAX_DIMS; -1 is one that a profile bounds.
// * Nothing here allocates on the GPU except TensorRT itself; addresses given are not kept alive.
// * An object is used by one thread at a time, different objects by different threads.
#ifndef ENGINEWRIGHT_TRT_H
#define ENGINEWRIGHT_TRT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define EW_NOEXCEPT noexcept
#else
#define EW_NOEXCEPT
#endif

#define EW_API __attribute__((visibility("default")))

// Raised with every change of this file: the program refuses a library of another number.
#define EW_ABI_VERSION 1
#define EW_MAX_DIMS 8

typedef enum {
    EW_OK = 0,
    EW_FAILED = -1,       // TensorRT refused; see ew_message
    EW_CANCELLED = -2,    // the progress callback said stop
    EW_UNSUPPORTED = -3,  // this TensorRT has no such thing
    EW_ARGUMENT = -4,     // a number out of range, a null pointer
    EW_VERSION = -5,      // the library is not the one the headers describe
    EW_NOT_FOUND = -6,    // the library cannot be opened
    EW_WRITE = -7,        // the write callback failed
    EW_MEMORY = -8        // no memory
} ew_status;

// What this TensorRT can do (ew_info.capabilities).
#define EW_HAS_LLM_LAYERS 1u     // KV-cache update, attention, rotary embedding
#define EW_HAS_STREAM_WRITER 2u  // the plan is written in pieces while it is made
#define EW_HAS_TIMING_CACHE 4u
#define EW_HAS_RUNTIME_CACHE 8u  // kernels compiled on the device can be kept (RTX)
#define EW_HAS_TARGETS 16u       // builds for a named compute capability, also without a GPU (RTX)

typedef enum { EW_F32, EW_F16, EW_BF16, EW_I8, EW_I4, EW_I32, EW_I64, EW_BOOL, EW_OTHER } ew_type;
typedef enum { EW_ADD, EW_SUB, EW_MUL, EW_DIV, EW_MIN, EW_MAX, EW_POW, EW_LESS, EW_GREATER, EW_EQUAL, EW_AND, EW_OR } ew_elementwise_op;
typedef enum { EW_EXP, EW_LOG, EW_SQRT, EW_RECIP, EW_NEG, EW_ABS, EW_SIN, EW_COS, EW_NOT } ew_unary_op;
typedef enum { EW_SIGMOID, EW_TANH, EW_RELU } ew_activation_op;
typedef enum { EW_REDUCE_SUM, EW_REDUCE_MAX, EW_REDUCE_MEAN } ew_reduce_op;
typedef enum { EW_MIN_SHAPE, EW_OPT_SHAPE, EW_MAX_SHAPE } ew_selector;

typedef struct {
    uint32_t abi;           // EW_ABI_VERSION of the library
    uint32_t rtx;           // 1: TensorRT-RTX, 0: TensorRT
    uint32_t capabilities;  // EW_HAS_*
    int32_t version[4];     // of the headers: major, minor, patch, build
} ew_info;

// severity: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose. From any thread.
typedef void (*ew_log)(int32_t severity, char const* message);
// Returns 0 when all bytes were taken.
typedef int32_t (*ew_write)(void* user, void const* bytes, uint64_t count);

typedef struct {
    void* user;
    void (*start)(void* user, char const* phase, char const* parent, int32_t steps);
    int32_t (*step)(void* user, char const* phase, int32_t step);  // 0: go on, else: stop the build
    void (*finish)(void* user, char const* phase);
} ew_progress;

typedef struct ew_library ew_library;
typedef struct ew_build ew_build;
typedef struct ew_engine ew_engine;
typedef struct ew_context ew_context;

// ---- library
EW_API void ew_describe(ew_info* info) EW_NOEXCEPT;
EW_API char const* ew_message(void) EW_NOEXCEPT;
EW_API void ew_set_log(ew_log log) EW_NOEXCEPT;
// Opens TensorRT (a path, or a name for the dynamic linker) and checks its version; `found` gets it.
// The library is never unloaded: TensorRT does not survive that.
EW_API int32_t ew_open(char const* path, ew_library** library, int32_t found[4]) EW_NOEXCEPT;
EW_API void ew_close(ew_library* library) EW_NOEXCEPT;

// ---- building: one object that owns builder, network, configuration and profiles
typedef struct {
    uint64_t workspace_bytes;  // device memory of one layer's scratch; 0: TensorRT's default
    uint64_t tactic_bytes;     // device memory while kernels are tried; 0: default
    int32_t threads;           // 0: default
    int32_t optimization;      // 0 to 5; -1: default
    int32_t target_sm;         // 87 is 8.7; 0: any that the library builds for, or this GPU
    int32_t detailed;          // 1: layers keep their names for ew_engine_inspect
} ew_build_options;
EW_API ew_build* ew_build_new(ew_library* library, ew_build_options const* options) EW_NOEXCEPT;
EW_API void ew_build_free(ew_build* build) EW_NOEXCEPT;
EW_API int32_t ew_input(ew_build* build, char const* name, int32_t type, int64_t const* dims, int32_t count) EW_NOEXCEPT;
// `bytes` must stay valid and unchanged until the build is freed. `values` counts elements.
EW_API int32_t ew_constant(ew_build* build, int32_t type, void const* bytes, int64_t values, int64_t const* dims, int32_t count) EW_NOEXCEPT;
EW_API int32_t ew_matmul(ew_build* build, int32_t a, int32_t transpose_a, int32_t b, int32_t transpose_b) EW_NOEXCEPT;
EW_API int32_t ew_elementwise(ew_build* build, int32_t op, int32_t a, int32_t b) EW_NOEXCEPT;
EW_API int32_t ew_unary(ew_build* build, int32_t op, int32_t a) EW_NOEXCEPT;
EW_API int32_t ew_activation(ew_build* build, int32_t op, int32_t a) EW_NOEXCEPT;
EW_API int32_t ew_reduce(ew_build* build, int32_t op, int32_t a, uint32_t axes, int32_t keep) EW_NOEXCEPT;
EW_API int32_t ew_softmax(ew_build* build, int32_t a, uint32_t axes) EW_NOEXCEPT;
EW_API int32_t ew_cast(ew_build* build, int32_t a, int32_t type) EW_NOEXCEPT;
EW_API int32_t ew_shape(ew_build* build, int32_t a) EW_NOEXCEPT;
EW_API int32_t ew_gather(ew_build* build, int32_t data, int32_t indices, int32_t axis) EW_NOEXCEPT;
EW_API int32_t ew_select(ew_build* build, int32_t condition, int32_t a, int32_t b) EW_NOEXCEPT;
EW_API int32_t ew_concat(ew_build* build, int32_t const* inputs, int32_t count, int32_t axis) EW_NOEXCEPT;
// first (may be null) permutes, then dims (may be null; -1 once: what is left, 0: copied) reshapes,
// then second (may be null) permutes. `shape` >= 0: a tensor that gives the shape instead of dims.
EW_API int32_t ew_shuffle(ew_build* build, int32_t a, int32_t const* first, int32_t first_count, int64_t const* dims, int32_t count, int32_t shape, int32_t const* second, int32_t second_count) EW_NOEXCEPT;
// Strides of 1. `start_tensor`, `size_tensor` >= 0: tensors that replace start and size.
EW_API int32_t ew_slice(ew_build* build, int32_t a, int64_t const* start, int64_t const* size, int32_t count, int32_t start_tensor, int32_t size_tensor) EW_NOEXCEPT;
// axis < 0: the scale has as many dimensions as `a` (blocks) or one value.
EW_API int32_t ew_dequantize(ew_build* build, int32_t a, int32_t scale, int32_t axis, int32_t type) EW_NOEXCEPT;
// The best `k` along one axis: returns the values' tensor, `indices` gets the other.
EW_API int32_t ew_topk(ew_build* build, int32_t a, int32_t k, uint32_t axes, int32_t* indices) EW_NOEXCEPT;
EW_API int32_t ew_rotary(ew_build* build, int32_t a, int32_t cosines, int32_t sines, int32_t positions) EW_NOEXCEPT;
EW_API int32_t ew_kv_update(ew_build* build, int32_t cache, int32_t update, int32_t indices) EW_NOEXCEPT;
EW_API int32_t ew_attention(ew_build* build, int32_t q, int32_t k, int32_t v, int32_t mask) EW_NOEXCEPT;
// Names the tensor's layer, for inspection and error messages.
EW_API int32_t ew_name_layer(ew_build* build, int32_t a, char const* name) EW_NOEXCEPT;
EW_API int32_t ew_output(ew_build* build, int32_t a, char const* name) EW_NOEXCEPT;
// What TensorRT thinks of a tensor: returns its number of dimensions; -1 in dims is not known yet.
EW_API int32_t ew_tensor(ew_build* build, int32_t a, int32_t* type, int64_t dims[EW_MAX_DIMS]) EW_NOEXCEPT;
EW_API int32_t ew_layer_count(ew_build* build) EW_NOEXCEPT;
// A new profile; returns its index. Shapes are set before ew_profile_add.
EW_API int32_t ew_profile_new(ew_build* build) EW_NOEXCEPT;
EW_API int32_t ew_profile_shape(ew_build* build, int32_t profile, char const* input, int32_t selector, int64_t const* dims, int32_t count) EW_NOEXCEPT;
EW_API int32_t ew_profile_add(ew_build* build, int32_t profile) EW_NOEXCEPT;
// Empty bytes start an empty cache.
EW_API int32_t ew_timing_cache_load(ew_build* build, void const* bytes, uint64_t count) EW_NOEXCEPT;
EW_API int32_t ew_timing_cache_save(ew_build* build, ew_write write, void* user) EW_NOEXCEPT;
// Builds, once: the network is spent afterwards. `progress` may be null.
EW_API int32_t ew_build_run(ew_build* build, ew_progress const* progress, ew_write write, void* user) EW_NOEXCEPT;

// ---- an engine: owns TensorRT's runtime and the deserialised engine
typedef struct {
    char const* name;  // valid as long as the engine
    int32_t type;
    int32_t is_input;
    int32_t on_host;   // the address must be host memory (shape tensors)
    int32_t count;     // of dims
    int64_t dims[EW_MAX_DIMS];
} ew_tensor_info;
EW_API ew_engine* ew_engine_load(ew_library* library, void const* plan, uint64_t count) EW_NOEXCEPT;
EW_API void ew_engine_free(ew_engine* engine) EW_NOEXCEPT;
EW_API int32_t ew_engine_tensors(ew_engine* engine) EW_NOEXCEPT;
EW_API int32_t ew_engine_tensor(ew_engine* engine, int32_t index, ew_tensor_info* info) EW_NOEXCEPT;
EW_API int32_t ew_engine_profiles(ew_engine* engine) EW_NOEXCEPT;
// Returns the number of dimensions.
EW_API int32_t ew_engine_profile_shape(ew_engine* engine, char const* input, int32_t profile, int32_t selector, int64_t dims[EW_MAX_DIMS]) EW_NOEXCEPT;
// Bytes of activation memory that a context needs for the largest shapes of a profile.
EW_API int64_t ew_engine_memory(ew_engine* engine, int32_t profile) EW_NOEXCEPT;
EW_API int32_t ew_engine_inspect(ew_engine* engine, ew_write write, void* user) EW_NOEXCEPT;

// ---- a context: owns its configuration; must be freed before its engine
typedef struct {
    int32_t own_memory;        // 1: TensorRT allocates the activation memory, 0: the caller does
    int32_t eager;             // RTX: 1 compiles kernels for new shapes at once, 0 later, -1 never
    void const* cache;         // RTX: runtime cache, may be null
    uint64_t cache_bytes;
} ew_context_options;
EW_API ew_context* ew_context_new(ew_engine* engine, ew_context_options const* options) EW_NOEXCEPT;
EW_API void ew_context_free(ew_context* context) EW_NOEXCEPT;
// Device memory of at least ew_engine_memory bytes for the profile in use.
EW_API int32_t ew_context_memory(ew_context* context, uint64_t address, int64_t bytes) EW_NOEXCEPT;
// Bytes needed for the input shapes set now; at most ew_engine_memory.
EW_API int64_t ew_context_memory_needed(ew_context* context) EW_NOEXCEPT;
EW_API int32_t ew_context_profile(ew_context* context, int32_t profile, void* stream) EW_NOEXCEPT;
EW_API int32_t ew_context_shape(ew_context* context, char const* input, int64_t const* dims, int32_t count) EW_NOEXCEPT;
// The shape of any tensor with the input shapes set now; returns the number of dimensions.
EW_API int32_t ew_context_shape_of(ew_context* context, char const* tensor, int64_t dims[EW_MAX_DIMS]) EW_NOEXCEPT;
EW_API int32_t ew_context_address(ew_context* context, char const* tensor, uint64_t address) EW_NOEXCEPT;
EW_API int32_t ew_context_enqueue(ew_context* context, void* stream) EW_NOEXCEPT;
EW_API int32_t ew_context_cache(ew_context* context, ew_write write, void* user) EW_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
