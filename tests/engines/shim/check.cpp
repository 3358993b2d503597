// Drives the shim as a C program would, so that the sanitizers see it without Rust around it.
//   check SHIM-LINKED: check /path/to/libtensorrt_rtx.so.1 /path/to/another-version.so
// Ends with 0 when everything was as the header says; names what was not.
#include "../../../src/tensorrt/shim/enginewright_trt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define EXPECT(condition)                                                              \
    do {                                                                               \
        if (!(condition)) {                                                            \
            std::printf("line %d: %s: %s\n", __LINE__, #condition, ew_message());      \
            std::exit(1);                                                              \
        }                                                                              \
    } while (false)

namespace {

struct Bytes {
    std::string all;
    uint64_t limit = ~0ULL;
};
int32_t take(void* user, void const* bytes, uint64_t count) {
    auto& to = *static_cast<Bytes*>(user);
    if (to.all.size() + count > to.limit) return 1;
    to.all.append(static_cast<char const*>(bytes), count);
    return 0;
}

struct Seen {
    int phases = 0, steps = 0, stop_after = -1;
};
void start(void* user, char const*, char const*, int32_t) { ++static_cast<Seen*>(user)->phases; }
int32_t step(void* user, char const*, int32_t) {
    auto& seen = *static_cast<Seen*>(user);
    return ++seen.steps > seen.stop_after && seen.stop_after >= 0;
}
void finish(void*, char const*) {}

int logged = 0;
void log(int32_t, char const*) { ++logged; }

// y = x w; `weights` must outlive the build.
ew_build* network(ew_library* library, std::vector<float> const& weights) {
    ew_build_options const options{1 << 28, 0, 1, -1, 0, 1};
    auto* const build = ew_build_new(library, &options);
    EXPECT(build != nullptr);
    int64_t const in[] = {-1, 64}, square[] = {64, 64};
    auto const x = ew_input(build, "x", EW_F32, in, 2);
    auto const w = ew_constant(build, EW_F32, weights.data(), 64 * 64, square, 2);
    EXPECT(x == 0 && w == 1);
    auto const y = ew_matmul(build, x, 0, w, 1);
    EXPECT(y == 2);
    EXPECT(ew_name_layer(build, y, "product") == EW_OK);
    EXPECT(ew_output(build, y, "y") == EW_OK);
    int32_t type = -1;
    int64_t dims[EW_MAX_DIMS] = {};
    EXPECT(ew_tensor(build, y, &type, dims) == 2 && type == EW_F32 && dims[0] == -1 && dims[1] == 64);
    auto const profile = ew_profile_new(build);
    int64_t const least[] = {1, 64}, best[] = {4, 64}, most[] = {8, 64};
    EXPECT(ew_profile_shape(build, profile, "x", EW_MIN_SHAPE, least, 2) == EW_OK);
    EXPECT(ew_profile_shape(build, profile, "x", EW_OPT_SHAPE, best, 2) == EW_OK);
    EXPECT(ew_profile_shape(build, profile, "x", EW_MAX_SHAPE, most, 2) == EW_OK);
    EXPECT(ew_profile_add(build, profile) == EW_OK);
    return build;
}

void wrong_arguments(ew_library* library) {
    std::vector<float> const weights(64 * 64, 0.5F);
    auto* const build = network(library, weights);
    int64_t const dims[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    EXPECT(ew_build_new(nullptr, nullptr) == nullptr);
    EXPECT(ew_input(nullptr, "a", EW_F32, dims, 1) == EW_ARGUMENT);
    EXPECT(ew_input(build, nullptr, EW_F32, dims, 1) == EW_ARGUMENT);
    EXPECT(ew_input(build, "a", 99, dims, 1) == EW_ARGUMENT);
    EXPECT(ew_input(build, "a", EW_F32, dims, 9) == EW_ARGUMENT);
    EXPECT(ew_input(build, "a", EW_F32, nullptr, 2) == EW_ARGUMENT);
    EXPECT(ew_constant(build, EW_F32, nullptr, 1, dims, 1) == EW_ARGUMENT);
    for (int32_t const bad : {-1, 3, 1 << 30}) {
        EXPECT(ew_matmul(build, 0, 0, bad, 0) == EW_ARGUMENT);
        EXPECT(ew_unary(build, EW_EXP, bad) == EW_ARGUMENT);
        EXPECT(ew_output(build, bad, "z") == EW_ARGUMENT);
        EXPECT(ew_concat(build, &bad, 1, 0) == EW_ARGUMENT);
    }
    EXPECT(ew_unary(build, 99, 0) == EW_ARGUMENT);
    EXPECT(ew_profile_add(build, 7) == EW_ARGUMENT);
    EXPECT(ew_profile_shape(build, 0, "x", 5, dims, 2) == EW_ARGUMENT);
    EXPECT(std::strlen(ew_message()) > 0);
    EXPECT(ew_build_run(build, nullptr, nullptr, nullptr) == EW_ARGUMENT);
    EXPECT(ew_engine_load(library, nullptr, 5) == nullptr);
    EXPECT(ew_engine_tensors(nullptr) == EW_ARGUMENT);
    EXPECT(ew_context_enqueue(nullptr, nullptr) == EW_ARGUMENT);
    ew_build_free(build);
    ew_build_free(nullptr);
    ew_engine_free(nullptr);
    ew_context_free(nullptr);
}

std::string built(ew_library* library, Seen& seen, uint64_t limit, int32_t expected) {
    std::vector<float> const weights(64 * 64, 0.25F);
    auto* const build = network(library, weights);
    ew_progress const progress{&seen, start, step, finish};
    Bytes plan;
    plan.limit = limit;
    EXPECT(ew_build_run(build, &progress, take, &plan) == expected);
    // The network is spent.
    EXPECT(ew_layer_count(build) == EW_ARGUMENT);
    EXPECT(ew_build_run(build, &progress, take, &plan) == EW_ARGUMENT);
    ew_build_free(build);
    return plan.all;
}

}  // namespace

int main(int, char** arguments) {
    ew_set_log(log);
    ew_info info;
    ew_describe(&info);
    EXPECT(info.abi == EW_ABI_VERSION);
    ew_library* library = nullptr;
    int32_t found[4] = {};
    EXPECT(ew_open("libthere_is_none.so", &library, found) == EW_NOT_FOUND && library == nullptr);
    EXPECT(ew_open("libm.so.6", &library, found) == EW_VERSION && library == nullptr);
    EXPECT(ew_open(arguments[2], &library, found) == EW_VERSION && library == nullptr && found[0] == 10);
    EXPECT(ew_open(nullptr, &library, found) == EW_ARGUMENT);
    EXPECT(ew_open(arguments[1], &library, found) == EW_OK && library != nullptr);
    EXPECT(std::memcmp(found, info.version, sizeof found) == 0);
    wrong_arguments(library);
    Seen seen, stopped, again;
    stopped.stop_after = 0;
    auto const plan = built(library, seen, ~0ULL, EW_OK);
    EXPECT(plan.size() > 1000 && seen.phases > 0 && seen.steps > 0);
    built(library, stopped, ~0ULL, EW_CANCELLED);
    built(library, again, 100, EW_WRITE);
    // Without a GPU the plan cannot be loaded; with one it can. Neither ends the process.
    auto* const engine = ew_engine_load(library, plan.data(), plan.size());
    if (engine == nullptr) EXPECT(std::strlen(ew_message()) > 0);
    ew_engine_free(engine);
    EXPECT(logged > 0);
    ew_close(library);
    std::printf("as the header says: %d phases, %d steps, a plan of %zu bytes\n", seen.phases, seen.steps, plan.size());
    return 0;
}
