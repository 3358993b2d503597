// libenginewright_trt.so: TensorRT's C++ interface as a C ABI; enginewright_trt.h has the contract.
// It decides nothing: it checks numbers, calls, and keeps exceptions and C++ objects on this side.
#include "support.hpp"

void ew_describe(ew_info* info) noexcept {
    if (info == nullptr) return;
    uint32_t capabilities = 0;
    if (EW_AT_LEAST(10, 15)) capabilities |= EW_HAS_LLM_LAYERS;
    if (EW_AT_LEAST(10, 13)) capabilities |= EW_HAS_STREAM_WRITER;
    capabilities |= EW_RTX ? EW_HAS_RUNTIME_CACHE | EW_HAS_TARGETS : EW_HAS_TIMING_CACHE;
    *info = {EW_ABI_VERSION, EW_RTX, capabilities,
        {NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, NV_TENSORRT_BUILD}};
}

char const* ew_message() noexcept { return message.c_str(); }
void ew_set_log(ew_log log) noexcept {
    try { logger().callback = log; } catch (...) {}
}

int32_t ew_open(char const* path, ew_library** library, int32_t found[4]) noexcept {
    return guarded([&]() -> int32_t {
        auto& to = given(library, "library");
        void* const handle = dlopen(&given(path, "path"), RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            char const* const why = dlerror();
            fail(EW_NOT_FOUND, why == nullptr ? "it cannot be opened" : why);
        }
        // Not unloaded on failure either: its static objects are running already.
        auto const symbol = [&](char const* name) {
            void* const address = dlsym(handle, name);
            if (address == nullptr) fail(EW_VERSION, std::string("it is no TensorRT: it has no ") + name);
            return address;
        };
        using Number = int32_t (*)() noexcept;
        char const* const names[] = {"getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion",
            "getInferLibBuildVersion"};
        int32_t const expected[] = {NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, NV_TENSORRT_BUILD};
        bool same = true;
        for (int at = 0; at < 4; ++at) {
            auto const number = reinterpret_cast<Number>(symbol(names[at]))();
            same = same && number == expected[at];
            if (found != nullptr) found[at] = number;
        }
        if (!same) fail(EW_VERSION, "it is not the TensorRT that this shim was compiled for");
        using Make = void* (*)(void*, int32_t) noexcept;
        to = new ew_library{reinterpret_cast<Make>(symbol("createInferBuilder_INTERNAL")),
            reinterpret_cast<Make>(symbol("createInferRuntime_INTERNAL"))};
        return EW_OK;
    });
}
void ew_close(ew_library* library) noexcept { delete library; }


// ---- building

ew_build* ew_build_new(ew_library* library, ew_build_options const* options) noexcept {
    return guarded([&]() -> ew_build* {
        auto const& wanted = given(options, "options");
        auto build = std::make_unique<ew_build>();
        build->builder.reset(&made(static_cast<IBuilder*>(given(library, "library").makeBuilder(&logger(), NV_TENSORRT_VERSION)), "a builder"));
        // Strongly typed: types are ours, TensorRT does not choose them. RTX knows nothing else.
        uint32_t const flags = EW_RTX ? 0U : 1U << 1;
        build->network.reset(&made(build->builder->createNetworkV2(flags), "a network"));
        build->config.reset(&made(build->builder->createBuilderConfig(), "a configuration"));
        auto& config = *build->config;
        if (wanted.workspace_bytes > 0) config.setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, wanted.workspace_bytes);
        if (wanted.tactic_bytes > 0) config.setMemoryPoolLimit(MemoryPoolType::kTACTIC_DRAM, wanted.tactic_bytes);
        if (wanted.threads > 0) check(build->builder->setMaxThreads(wanted.threads), "the number of threads was refused");
        if (wanted.optimization >= 0) config.setBuilderOptimizationLevel(wanted.optimization);
        if (wanted.detailed != 0) config.setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
        config.setMaxAuxStreams(0);  // one stream: what is captured as a CUDA graph is all there is
#if EW_RTX
        if (wanted.target_sm > 0) {
            check(config.setNbComputeCapabilities(1), "a target was refused");
            check(config.setComputeCapability(static_cast<ComputeCapability>(wanted.target_sm), 0), "this TensorRT-RTX has no such target");
        }
#endif
        return build.release();
    });
}
void ew_build_free(ew_build* build) noexcept { delete build; }

int32_t ew_input(ew_build* build, char const* name, int32_t type, int64_t const* dims, int32_t count) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addInput(&given(name, "name"), typeOf(type), dimensions(dims, count)), nullptr); });
}
int32_t ew_constant(ew_build* build, int32_t type, void const* bytes, int64_t values, int64_t const* dims, int32_t count) noexcept {
    return operation(build, [&](ew_build& b) {
        present(bytes, "bytes");
        return b.keep(b.net().addConstant(dimensions(dims, count), Weights{typeOf(type), bytes, values}), "a constant");
    });
}
int32_t ew_matmul(ew_build* build, int32_t x, int32_t transpose_x, int32_t y, int32_t transpose_y) noexcept {
    auto const how = [](int32_t transpose) { return transpose != 0 ? MatrixOperation::kTRANSPOSE : MatrixOperation::kNONE; };
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addMatrixMultiply(b.tensor(x), how(transpose_x), b.tensor(y), how(transpose_y)), "a matrix product"); });
}
int32_t ew_elementwise(ew_build* build, int32_t op, int32_t x, int32_t y) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addElementWise(b.tensor(x), b.tensor(y), mapped(kElementwise, op, "element-wise operation")), "an element-wise operation"); });
}
int32_t ew_unary(ew_build* build, int32_t op, int32_t x) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addUnary(b.tensor(x), mapped(kUnary, op, "unary operation")), "a unary operation"); });
}
int32_t ew_activation(ew_build* build, int32_t op, int32_t x) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addActivation(b.tensor(x), mapped(kActivation, op, "activation")), "an activation"); });
}
int32_t ew_reduce(ew_build* build, int32_t op, int32_t x, uint32_t axes, int32_t keep) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addReduce(b.tensor(x), mapped(kReduce, op, "reduction"), axes, keep != 0), "a reduction"); });
}
int32_t ew_softmax(ew_build* build, int32_t x, uint32_t axes) noexcept {
    return operation(build, [&](ew_build& b) {
        auto& layer = made(b.net().addSoftMax(b.tensor(x)), "a softmax");
        layer.setAxes(axes);
        return b.keep(&layer, "a softmax");
    });
}
int32_t ew_cast(ew_build* build, int32_t x, int32_t type) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addCast(b.tensor(x), typeOf(type)), "a cast"); });
}
int32_t ew_shape(ew_build* build, int32_t x) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addShape(b.tensor(x)), "a shape"); });
}
int32_t ew_gather(ew_build* build, int32_t data, int32_t indices, int32_t axis) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addGather(b.tensor(data), b.tensor(indices), axis), "a gather"); });
}
int32_t ew_select(ew_build* build, int32_t condition, int32_t x, int32_t y) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addSelect(b.tensor(condition), b.tensor(x), b.tensor(y)), "a select"); });
}
int32_t ew_concat(ew_build* build, int32_t const* inputs, int32_t count, int32_t axis) noexcept {
    return operation(build, [&](ew_build& b) {
        if (inputs == nullptr || count < 1) fail(EW_ARGUMENT, "nothing to join");
        std::vector<ITensor*> all;
        for (int32_t at = 0; at < count; ++at) all.push_back(&b.tensor(inputs[at]));
        auto& layer = made(b.net().addConcatenation(all.data(), count), "a concatenation");
        layer.setAxis(axis);
        return b.keep(&layer, "a concatenation");
    });
}
int32_t ew_shuffle(ew_build* build, int32_t x, int32_t const* first, int32_t first_count, int64_t const* dims, int32_t count, int32_t shape, int32_t const* second, int32_t second_count) noexcept {
    return operation(build, [&](ew_build& b) {
        auto& layer = made(b.net().addShuffle(b.tensor(x)), "a shuffle");
        if (first != nullptr) layer.setFirstTranspose(permutation(first, first_count));
        if (dims != nullptr) layer.setReshapeDimensions(dimensions(dims, count));
        if (shape >= 0) layer.setInput(1, b.tensor(shape));
        if (second != nullptr) layer.setSecondTranspose(permutation(second, second_count));
        return b.keep(&layer, "a shuffle");
    });
}
int32_t ew_slice(ew_build* build, int32_t x, int64_t const* start, int64_t const* size, int32_t count, int32_t start_tensor, int32_t size_tensor) noexcept {
    return operation(build, [&](ew_build& b) {
        int64_t const ones[EW_MAX_DIMS] = {1, 1, 1, 1, 1, 1, 1, 1};
        auto& layer = made(b.net().addSlice(b.tensor(x), dimensions(start, count), dimensions(size, count), dimensions(ones, count)), "a slice");
        if (start_tensor >= 0) layer.setInput(1, b.tensor(start_tensor));
        if (size_tensor >= 0) layer.setInput(2, b.tensor(size_tensor));
        return b.keep(&layer, "a slice");
    });
}
int32_t ew_dequantize(ew_build* build, int32_t x, int32_t scale, int32_t axis, int32_t type) noexcept {
    return operation(build, [&](ew_build& b) {
        auto& layer = made(b.net().addDequantize(b.tensor(x), b.tensor(scale), typeOf(type)), "a dequantisation");
        if (axis >= 0) layer.setAxis(axis);
        return b.keep(&layer, "a dequantisation");
    });
}
int32_t ew_topk(ew_build* build, int32_t x, int32_t k, uint32_t axes, int32_t* indices) noexcept {
    return operation(build, [&](ew_build& b) {
#if EW_AT_LEAST(10, 14)
        auto& layer = made(b.net().addTopK(b.tensor(x), TopKOperation::kMAX, k, axes, DataType::kINT32), "a top-k");
#else
        auto& layer = made(b.net().addTopK(b.tensor(x), TopKOperation::kMAX, k, axes), "a top-k");
#endif
        given(indices, "indices") = b.keep(layer.getOutput(1), &layer);
        return b.keep(&layer, "a top-k");
    });
}
#if EW_AT_LEAST(10, 15)
int32_t ew_rotary(ew_build* build, int32_t x, int32_t cosines, int32_t sines, int32_t positions) noexcept {
    return operation(build, [&](ew_build& b) {
        auto& layer = made(b.net().addRotaryEmbedding(b.tensor(x), b.tensor(cosines), b.tensor(sines), false, 0), "a rotary embedding");
        layer.setInput(3, b.tensor(positions));
        return b.keep(&layer, "a rotary embedding");
    });
}
int32_t ew_kv_update(ew_build* build, int32_t cache, int32_t update, int32_t indices) noexcept {
    return operation(build, [&](ew_build& b) { return b.keep(b.net().addKVCacheUpdate(b.tensor(cache), b.tensor(update), b.tensor(indices), KVCacheMode::kLINEAR), "a KV-cache update"); });
}
int32_t ew_attention(ew_build* build, int32_t q, int32_t k, int32_t v, int32_t mask) noexcept {
    return operation(build, [&](ew_build& b) {
#if EW_RTX_AT_LEAST(5) || NV_TENSORRT_MAJOR >= 11
        auto* const attention = b.net().addAttentionV2(b.tensor(q), b.tensor(k), b.tensor(v), AttentionNormalizationOp::kSOFTMAX, CausalMaskKind::kNONE);
#else
        auto* const attention = b.net().addAttention(b.tensor(q), b.tensor(k), b.tensor(v), AttentionNormalizationOp::kSOFTMAX, false);
#endif
        auto& made_attention = made(attention, "an attention");
        if (mask >= 0) check(made_attention.setMask(b.tensor(mask)), "the attention mask was refused");
        check(made_attention.setDecomposable(true), "the attention cannot be decomposed");
        return b.keep(made_attention.getOutput(0), nullptr);
    });
}
#else
static int32_t absent() noexcept {
    return guarded([]() -> int32_t { fail(EW_UNSUPPORTED, "this TensorRT has no layers for language models (from 10.15 on)"); });
}
int32_t ew_rotary(ew_build*, int32_t, int32_t, int32_t, int32_t) noexcept { return absent(); }
int32_t ew_kv_update(ew_build*, int32_t, int32_t, int32_t) noexcept { return absent(); }
int32_t ew_attention(ew_build*, int32_t, int32_t, int32_t, int32_t) noexcept { return absent(); }
#endif
int32_t ew_name_layer(ew_build* build, int32_t x, char const* name) noexcept {
    return operation(build, [&](ew_build& b) {
        b.tensor(x);
        if (auto* const layer = b.layers[static_cast<std::size_t>(x)]) layer->setName(&given(name, "name"));
        return EW_OK;
    });
}
int32_t ew_output(ew_build* build, int32_t x, char const* name) noexcept {
    return operation(build, [&](ew_build& b) {
        b.tensor(x).setName(&given(name, "name"));
        b.net().markOutput(b.tensor(x));
        return EW_OK;
    });
}
int32_t ew_tensor(ew_build* build, int32_t x, int32_t* type, int64_t* dims) noexcept {
    return operation(build, [&](ew_build& b) {
        given(type, "type") = codeOf(b.tensor(x).getType());
        return spread(b.tensor(x).getDimensions(), dims);
    });
}
int32_t ew_layer_count(ew_build* build) noexcept {
    return operation(build, [&](ew_build& b) { return b.net().getNbLayers(); });
}
int32_t ew_profile_new(ew_build* build) noexcept {
    return operation(build, [&](ew_build& b) {
        b.profiles.push_back(&made(b.builder->createOptimizationProfile(), "a profile"));
        return static_cast<int32_t>(b.profiles.size() - 1);
    });
}
int32_t ew_profile_shape(ew_build* build, int32_t profile, char const* input, int32_t selector, int64_t const* dims, int32_t count) noexcept {
    return operation(build, [&](ew_build& b) {
        check(b.profile(profile).setDimensions(&given(input, "input"), mapped(kSelector, selector, "selector"), dimensions(dims, count)), "the profile refused a shape");
        return EW_OK;
    });
}
int32_t ew_profile_add(ew_build* build, int32_t profile) noexcept {
    return operation(build, [&](ew_build& b) {
        check(b.profile(profile).isValid(), "the profile is incomplete: an input has no shape, or minimum, optimum and maximum are not in order");
        check(b.config->addOptimizationProfile(&b.profile(profile)) >= 0, "the profile was refused");
        return EW_OK;
    });
}

#if EW_RTX
int32_t ew_timing_cache_load(ew_build*, void const*, uint64_t) noexcept { return EW_UNSUPPORTED; }
int32_t ew_timing_cache_save(ew_build*, ew_write, void*) noexcept { return EW_UNSUPPORTED; }
#else
int32_t ew_timing_cache_load(ew_build* build, void const* bytes, uint64_t count) noexcept {
    return operation(build, [&](ew_build& b) {
        b.timing.reset(&made(b.config->createTimingCache(bytes, count), "the timing cache"));
        // A cache of another device is refused here; what it says would be wrong.
        check(b.config->setTimingCache(*b.timing, false), "the timing cache is of another TensorRT or device");
        return EW_OK;
    });
}
int32_t ew_timing_cache_save(ew_build* build, ew_write write, void* user) noexcept {
    return operation(build, [&](ew_build& b) {
        auto const* const cache = b.config->getTimingCache();
        if (cache == nullptr) fail(EW_UNSUPPORTED, "no timing cache was loaded");
        std::unique_ptr<IHostMemory> const bytes(&made(cache->serialize(), "to write the timing cache"));
        deliver(write, user, bytes->data(), bytes->size());
        return EW_OK;
    });
}
#endif

int32_t ew_build_run(ew_build* build, ew_progress const* progress, ew_write write, void* user) noexcept {
    return operation(build, [&](ew_build& b) -> int32_t {
        if (write == nullptr) fail(EW_ARGUMENT, "write is null");
        b.net();
        Monitor monitor(progress == nullptr ? ew_progress{} : *progress);
        b.config->setProgressMonitor(&monitor);
        logger().takeErrors();
#if EW_AT_LEAST(10, 13)
        Writer writer(write, user);
        bool const done = b.builder->buildSerializedNetworkToStream(*b.network, *b.config, writer);
        bool const unwritten = writer.failed;
#else
        std::unique_ptr<IHostMemory> const plan(b.builder->buildSerializedNetwork(*b.network, *b.config));
        bool const done = plan != nullptr;
        bool const unwritten = done && write(user, plan->data(), plan->size()) != 0;
#endif
        b.config->setProgressMonitor(nullptr);
        b.tensors.clear();
        b.layers.clear();
        b.network.reset();
        if (monitor.cancelled) fail(EW_CANCELLED, "the build was stopped");
        if (unwritten) fail(EW_WRITE, "the plan could not be written");
        check(done, "the build failed");
        return EW_OK;
    });
}

// ---- running

ew_engine* ew_engine_load(ew_library* library, void const* plan, uint64_t count) noexcept {
    return guarded([&]() -> ew_engine* {
        present(plan, "plan");
        auto engine = std::make_unique<ew_engine>();
        engine->runtime.reset(&made(static_cast<IRuntime*>(given(library, "library").makeRuntime(&logger(), NV_TENSORRT_VERSION)), "a runtime"));
        engine->engine.reset(&made(engine->runtime->deserializeCudaEngine(plan, count), "the plan"));
        return engine.release();
    });
}
void ew_engine_free(ew_engine* engine) noexcept { delete engine; }
int32_t ew_engine_tensors(ew_engine* engine) noexcept {
    return guarded([&]() -> int32_t { return given(engine, "engine").engine->getNbIOTensors(); });
}
int32_t ew_engine_tensor(ew_engine* engine, int32_t index, ew_tensor_info* info) noexcept {
    return guarded([&]() -> int32_t {
        auto const& one = *given(engine, "engine").engine;
        if (index < 0 || index >= one.getNbIOTensors()) fail(EW_ARGUMENT, "no such tensor");
        char const* const name = one.getIOTensorName(index);
        auto& to = given(info, "info");
        to = {};
        to.name = name;
        to.type = codeOf(one.getTensorDataType(name));
        to.is_input = one.getTensorIOMode(name) == TensorIOMode::kINPUT ? 1 : 0;
        to.on_host = one.getTensorLocation(name) == TensorLocation::kHOST ? 1 : 0;
        to.count = spread(one.getTensorShape(name), to.dims);
        return EW_OK;
    });
}
int32_t ew_engine_profiles(ew_engine* engine) noexcept {
    return guarded([&]() -> int32_t { return given(engine, "engine").engine->getNbOptimizationProfiles(); });
}
int32_t ew_engine_profile_shape(ew_engine* engine, char const* input, int32_t profile, int32_t selector, int64_t* dims) noexcept {
    return guarded([&]() -> int32_t {
        auto const& one = given(engine, "engine");
        return spread(one.engine->getProfileShape(one.known(input), one.profile(profile), mapped(kSelector, selector, "selector")), dims);
    });
}
int64_t ew_engine_memory(ew_engine* engine, int32_t profile) noexcept {
    return guarded([&]() -> int64_t {
        auto const& one = given(engine, "engine");
        return one.engine->getDeviceMemorySizeForProfileV2(one.profile(profile));
    });
}
int32_t ew_engine_inspect(ew_engine* engine, ew_write write, void* user) noexcept {
    return guarded([&]() -> int32_t {
        std::unique_ptr<IEngineInspector> const inspector(&made(given(engine, "engine").engine->createEngineInspector(), "to inspect"));
        auto const& text = made(inspector->getEngineInformation(LayerInformationFormat::kJSON), "to inspect");
        deliver(write, user, &text, std::strlen(&text));
        return EW_OK;
    });
}

ew_context* ew_context_new(ew_engine* engine, ew_context_options const* options) noexcept {
    return guarded([&]() -> ew_context* {
        auto& one = given(engine, "engine");
        auto const& wanted = given(options, "options");
        auto context = std::make_unique<ew_context>();
        context->engine = engine;
        auto const strategy = wanted.own_memory != 0 ? ExecutionContextAllocationStrategy::kSTATIC : ExecutionContextAllocationStrategy::kUSER_MANAGED;
#if EW_AT_LEAST(10, 13)
        context->config.reset(&made(one.engine->createRuntimeConfig(), "a run-time configuration"));
        context->config->setExecutionContextAllocationStrategy(strategy);
#if EW_RTX
        using Specialise = DynamicShapesKernelSpecializationStrategy;
        context->config->setDynamicShapesKernelSpecializationStrategy(wanted.eager > 0 ? Specialise::kEAGER : wanted.eager < 0 ? Specialise::kNONE : Specialise::kLAZY);
        context->cache.reset(&made(context->config->createRuntimeCache(), "a run-time cache"));
        // A cache that is not this engine's, or is damaged, costs a compilation and no more.
        if (wanted.cache != nullptr && wanted.cache_bytes > 0 && !context->cache->deserialize(wanted.cache, wanted.cache_bytes))
            context->cache->reset();
        check(context->config->setRuntimeCache(*context->cache), "the run-time cache was refused");
#endif
        context->context.reset(&made(one.engine->createExecutionContext(context->config.get()), "a context"));
#else
        context->context.reset(&made(one.engine->createExecutionContext(strategy), "a context"));
#endif
        return context.release();
    });
}
void ew_context_free(ew_context* context) noexcept { delete context; }
int32_t ew_context_memory(ew_context* context, uint64_t address, int64_t bytes) noexcept {
    return with(context, [&](ew_context&, IExecutionContext& one) -> int32_t {
        one.setDeviceMemoryV2(reinterpret_cast<void*>(address), bytes);
        return EW_OK;
    });
}
int64_t ew_context_memory_needed(ew_context* context) noexcept {
    return with(context, [&](ew_context&, IExecutionContext& one) -> int64_t { return static_cast<int64_t>(one.updateDeviceMemorySizeForShapes()); });
}
int32_t ew_context_profile(ew_context* context, int32_t profile, void* stream) noexcept {
    return with(context, [&](ew_context& c, IExecutionContext& one) -> int32_t {
        check(one.setOptimizationProfileAsync(c.engine->profile(profile), static_cast<cudaStream_t>(stream)), "the profile was refused");
        return EW_OK;
    });
}
int32_t ew_context_shape(ew_context* context, char const* input, int64_t const* dims, int32_t count) noexcept {
    return with(context, [&](ew_context& c, IExecutionContext& one) -> int32_t {
        check(one.setInputShape(c.engine->known(input), dimensions(dims, count)), "the profile does not allow the shape");
        return EW_OK;
    });
}
int32_t ew_context_shape_of(ew_context* context, char const* tensor, int64_t* dims) noexcept {
    return with(context, [&](ew_context& c, IExecutionContext& one) -> int32_t { return spread(one.getTensorShape(c.engine->known(tensor)), dims); });
}
int32_t ew_context_address(ew_context* context, char const* tensor, uint64_t address) noexcept {
    return with(context, [&](ew_context& c, IExecutionContext& one) -> int32_t {
        check(one.setTensorAddress(c.engine->known(tensor), reinterpret_cast<void*>(address)), "the address was refused");
        return EW_OK;
    });
}
int32_t ew_context_enqueue(ew_context* context, void* stream) noexcept {
    return with(context, [&](ew_context&, IExecutionContext& one) -> int32_t {
        check(one.enqueueV3(static_cast<cudaStream_t>(stream)), "the step could not be enqueued");
        return EW_OK;
    });
}
int32_t ew_context_cache(ew_context* context, ew_write write, void* user) noexcept {
#if EW_RTX
    return with(context, [&](ew_context& c, IExecutionContext&) -> int32_t {
        std::unique_ptr<IHostMemory> const bytes(&made(c.cache->serialize(), "to write the run-time cache"));
        deliver(write, user, bytes->data(), bytes->size());
        return EW_OK;
    });
#else
    static_cast<void>(context), static_cast<void>(write), static_cast<void>(user);
    return EW_UNSUPPORTED;
#endif
}
