// What every function of the shim needs: messages, the guard against exceptions, checks of what comes
// in, our enumerations as TensorRT's, callbacks as TensorRT's interfaces. Included by shim.cpp alone.
#ifndef ENGINEWRIGHT_TRT_SUPPORT_HPP
#define ENGINEWRIGHT_TRT_SUPPORT_HPP
#include "enginewright_trt.h"

#include <NvInfer.h>
#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(TRT_MAJOR_RTX)
#define EW_RTX 1
#else
#define EW_RTX 0
#endif
// From here on in TensorRT; TensorRT-RTX 1.3 and later have them all.
#define EW_AT_LEAST(major, minor) \
    (EW_RTX || NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))
#define EW_RTX_AT_LEAST(minor) (EW_RTX && (NV_TENSORRT_MAJOR > 1 || NV_TENSORRT_MINOR >= (minor)))

using namespace nvinfer1;

namespace {

thread_local std::string message;

// What failed and how; becomes the return value and ew_message().
struct Failure : std::runtime_error {
    int32_t status;
    Failure(int32_t status, std::string const& what) : std::runtime_error(what), status(status) {}
};

// TensorRT's explanations come through its logger, from whichever thread found out: the last few
// errors are kept and added to the message of the call that fails.
class Log : public ILogger {
public:
    std::atomic<ew_log> callback{nullptr};

    void log(Severity severity, char const* text) noexcept override {
        try {
            if (severity <= Severity::kERROR) {
                std::lock_guard<std::mutex> guard(mMutex);
                mErrors.emplace_back(text);
                if (mErrors.size() > 8) mErrors.pop_front();
            }
            if (auto const call = callback.load()) call(static_cast<int32_t>(severity), text);
        } catch (...) {  // no memory for a log line: the line is lost
        }
    }

    std::string takeErrors() {
        std::lock_guard<std::mutex> guard(mMutex);
        std::string all;
        for (auto const& error : mErrors) all += (all.empty() ? "" : "; ") + error;
        mErrors.clear();
        return all;
    }

private:
    std::mutex mMutex;
    std::deque<std::string> mErrors;
};

// One for the process: TensorRT keeps the first logger it is given, whatever comes later.
Log& logger() {
    static auto* const one = new Log;  // never destroyed: TensorRT logs while the process ends
    return *one;
}

int32_t failed(int32_t status, std::string const& what) {
    message = what;
    auto const errors = logger().takeErrors();
    if (!errors.empty()) message += " (TensorRT: " + errors + ")";
    return status;
}

// Runs `body`; whatever is thrown becomes a status and a message.
template <typename Body>
auto guarded(Body body) noexcept -> decltype(body()) {
    using Result = decltype(body());
    int32_t status = EW_FAILED;
    try {
        message.clear();
        return body();
    } catch (Failure const& failure) {
        try { status = failed(failure.status, failure.what()); } catch (...) { status = failure.status; }
    } catch (std::bad_alloc const&) {
        status = EW_MEMORY;
        try { message = "no memory"; } catch (...) {}
    } catch (std::exception const& error) {
        try { status = failed(EW_FAILED, error.what()); } catch (...) {}
    } catch (...) {
        try { status = failed(EW_FAILED, "an unknown C++ exception"); } catch (...) {}
    }
    if constexpr (std::is_pointer_v<Result>) return nullptr;
    else return static_cast<Result>(status);
}

[[noreturn]] void fail(int32_t status, std::string const& what) { throw Failure(status, what); }
void check(bool good, char const* what) { if (!good) fail(EW_FAILED, what); }
void present(void const* pointer, char const* what) {
    if (pointer == nullptr) fail(EW_ARGUMENT, std::string(what) + " is null");
}
template <typename T> T& given(T* pointer, char const* what) {
    present(pointer, what);
    return *pointer;
}
template <typename T> T& made(T* pointer, char const* what) {
    if (pointer == nullptr) fail(EW_FAILED, std::string("TensorRT refused ") + what);
    return *pointer;
}

Dims dimensions(int64_t const* dims, int32_t count) {
    if (count < 0 || count > EW_MAX_DIMS || (dims == nullptr && count > 0)) fail(EW_ARGUMENT, "bad dimensions");
    Dims result{};
    result.nbDims = count;
    for (int32_t at = 0; at < count; ++at) result.d[at] = dims[at];
    return result;
}

Permutation permutation(int32_t const* order, int32_t count) {
    if (count < 0 || count > EW_MAX_DIMS) fail(EW_ARGUMENT, "bad permutation");
    Permutation result{};
    for (int32_t at = 0; at < count; ++at) result.order[at] = order[at];
    return result;
}

int32_t spread(Dims const& from, int64_t* to) {
    for (int32_t at = 0; at < from.nbDims && at < EW_MAX_DIMS; ++at) given(to, "dims") = from.d[at], ++to;
    return from.nbDims;
}

template <typename T, std::size_t N> T mapped(T const (&table)[N], int32_t code, char const* what) {
    if (code < 0 || static_cast<std::size_t>(code) >= N) fail(EW_ARGUMENT, std::string("no such ") + what);
    return table[code];
}

constexpr DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8, DataType::kINT4,
    DataType::kINT32, DataType::kINT64, DataType::kBOOL};
DataType typeOf(int32_t code) { return mapped(kTypes, code, "type"); }
int32_t codeOf(DataType type) {
    int32_t code = 0;
    for (auto const one : kTypes) {
        if (one == type) return code;
        ++code;
    }
    return EW_OTHER;
}

using Elementwise = ElementWiseOperation;
constexpr Elementwise kElementwise[] = {Elementwise::kSUM, Elementwise::kSUB, Elementwise::kPROD, Elementwise::kDIV,
    Elementwise::kMIN, Elementwise::kMAX, Elementwise::kPOW, Elementwise::kLESS, Elementwise::kGREATER, Elementwise::kEQUAL,
    Elementwise::kAND, Elementwise::kOR};
using Unary = UnaryOperation;
constexpr Unary kUnary[] = {Unary::kEXP, Unary::kLOG, Unary::kSQRT, Unary::kRECIP, Unary::kNEG, Unary::kABS, Unary::kSIN,
    Unary::kCOS, Unary::kNOT};
constexpr ActivationType kActivation[] = {ActivationType::kSIGMOID, ActivationType::kTANH, ActivationType::kRELU};
constexpr ReduceOperation kReduce[] = {ReduceOperation::kSUM, ReduceOperation::kMAX, ReduceOperation::kAVG};
constexpr OptProfileSelector kSelector[] = {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};

// Hands bytes to the caller.
void deliver(ew_write write, void* user, void const* bytes, uint64_t count) {
    if (write == nullptr) fail(EW_ARGUMENT, "write is null");
    if (write(user, bytes, count) != 0) fail(EW_WRITE, "the bytes could not be written");
}

class Monitor : public IProgressMonitor {
public:
    explicit Monitor(ew_progress const& progress) : mProgress(progress) {}
    std::atomic<bool> cancelled{false};
    void phaseStart(char const* phase, char const* parent, int32_t steps) noexcept override {
        if (mProgress.start != nullptr) mProgress.start(mProgress.user, phase, parent == nullptr ? "" : parent, steps);
    }
    bool stepComplete(char const* phase, int32_t step) noexcept override {
        if (mProgress.step != nullptr && mProgress.step(mProgress.user, phase, step) != 0) cancelled = true;
        return !cancelled;
    }
    void phaseFinish(char const* phase) noexcept override {
        if (mProgress.finish != nullptr) mProgress.finish(mProgress.user, phase);
    }

private:
    ew_progress mProgress;
};

#if EW_AT_LEAST(10, 13)
class Writer : public IStreamWriter {
public:
    Writer(ew_write write, void* user) : mWrite(write), mUser(user) {}
    std::atomic<bool> failed{false};
    int64_t write(void const* bytes, int64_t count) override {
        if (count < 0 || failed || mWrite(mUser, bytes, static_cast<uint64_t>(count)) != 0) failed = true;
        return failed ? 0 : count;
    }

private:
    ew_write mWrite;
    void* mUser;
};
#endif

}  // namespace

struct ew_library {
    void* (*makeBuilder)(void*, int32_t) noexcept;
    void* (*makeRuntime)(void*, int32_t) noexcept;
};

// Members are destroyed from the last to the first: what depends comes after what it depends on.
struct ew_build {
    std::unique_ptr<IBuilder> builder;
    std::unique_ptr<INetworkDefinition> network;
    std::unique_ptr<IBuilderConfig> config;
#if !EW_RTX
    std::unique_ptr<ITimingCache> timing;
#endif
    std::vector<IOptimizationProfile*> profiles;  // the builder's
    std::vector<ITensor*> tensors;                // the network's
    std::vector<ILayer*> layers;                  // of the same tensor; null for inputs and attention

    ITensor& tensor(int32_t id) const {
        if (id < 0 || static_cast<std::size_t>(id) >= tensors.size()) fail(EW_ARGUMENT, "no such tensor");
        return *tensors[static_cast<std::size_t>(id)];
    }
    int32_t keep(ITensor* tensor, ILayer* layer) {
        tensors.push_back(&made(tensor, "a tensor"));
        layers.push_back(layer);
        return static_cast<int32_t>(tensors.size() - 1);
    }
    int32_t keep(ILayer* layer, char const* what) { return keep(made(layer, what).getOutput(0), layer); }
    IOptimizationProfile& profile(int32_t index) const {
        if (index < 0 || static_cast<std::size_t>(index) >= profiles.size()) fail(EW_ARGUMENT, "no such profile");
        return *profiles[static_cast<std::size_t>(index)];
    }
    INetworkDefinition& net() const {
        if (!network) fail(EW_ARGUMENT, "the network was built already");
        return *network;
    }
};

struct ew_engine {
    std::unique_ptr<IRuntime> runtime;
    std::unique_ptr<ICudaEngine> engine;

    // TensorRT logs and answers nonsense for a name it does not know; we refuse it.
    char const* known(char const* name) const {
        given(name, "name");
        for (int32_t at = 0; at < engine->getNbIOTensors(); ++at)
            if (std::strcmp(engine->getIOTensorName(at), name) == 0) return name;
        fail(EW_ARGUMENT, std::string("the engine has no tensor ") + name);
    }
    int32_t profile(int32_t index) const {
        if (index < 0 || index >= engine->getNbOptimizationProfiles()) fail(EW_ARGUMENT, "no such profile");
        return index;
    }
};

struct ew_context {
    ew_engine* engine;
#if EW_RTX
    std::unique_ptr<IRuntimeCache> cache;
#endif
#if EW_AT_LEAST(10, 13)
    std::unique_ptr<IRuntimeConfig> config;
#endif
    std::unique_ptr<IExecutionContext> context;
};

// All operations: `add` gets the build and returns the new tensor's number.
template <typename Add> static int32_t operation(ew_build* build, Add add) noexcept {
    return guarded([&]() -> int32_t { return add(given(build, "build")); });
}

// All functions of a context.
template <typename Call> static auto with(ew_context* context, Call call) noexcept -> decltype(call(*context, *context->context)) {
    return guarded([&] { return call(given(context, "context"), *given(context, "context").context); });
}

#endif
