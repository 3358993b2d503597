// llama.cpp on the same GPU under the same load as `gpu speed`: prompts alone in a slot, then one token
// for each of 1, 4, 8 slots behind a context, logits on the host. JSON, one object a line, with the
// names that `gpu speed` gives. scripts/gpu-proof builds it with CUDA.
//
//   gpu-proof-llama MODEL.gguf CONTEXT
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "ggml-backend.h"
#include "llama.h"

namespace {
constexpr int kSteps = 64, kMostSlots = 8, kChunk = 512;

double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double processor() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    auto const ms = [](timeval const& t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; };
    return ms(used.ru_utime) + ms(used.ru_stime);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values.at(values.size() / 2);
}

size_t gpu_used() {
    size_t free = 0, total = 0;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        auto* const device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU) ggml_backend_dev_memory(device, &free, &total);
    }
    return (total - free) >> 20;
}

void put(llama_batch& batch, llama_token token, int position, int slot, bool logits) {
    int const i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = slot;
    batch.logits[i] = logits ? 1 : 0;
}

// Runs a batch and waits until its logits are on the host.
float const* run(llama_context* context, llama_batch& batch) {
    if (llama_decode(context, batch) != 0) {
        std::fprintf(stderr, "llama_decode failed\n");
        std::exit(1);
    }
    llama_synchronize(context);
    return llama_get_logits_ith(context, -1);
}

std::vector<llama_token> random_tokens(int count, int vocabulary) {
    std::mt19937 source(count);
    std::uniform_int_distribution<int> any(10, std::min(vocabulary, 40000) - 1);
    std::vector<llama_token> tokens(count);
    for (auto& token : tokens) token = any(source);
    return tokens;
}

void prefill(llama_context* context, llama_batch& batch, std::vector<llama_token> const& tokens, int slot) {
    llama_memory_seq_rm(llama_get_memory(context), slot, -1, -1);
    int const count = static_cast<int>(tokens.size());
    for (int at = 0; at < count;) {
        batch.n_tokens = 0;
        for (int end = std::min(count, at + kChunk); at < end; ++at) put(batch, tokens[at], at, slot, at == count - 1);
        run(context, batch);
    }
}
}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    int const each = std::atoi(argv[2]);
    llama_log_set([](ggml_log_level level, char const* text, void*) { if (level >= GGML_LOG_LEVEL_WARN) std::fputs(text, stderr); }, nullptr);
    ggml_backend_load_all();
    auto model_options = llama_model_default_params();
    model_options.n_gpu_layers = 999;
    double const begun = now();
    auto* const model = llama_model_load_from_file(argv[1], model_options);
    if (model == nullptr) return 1;
    auto options = llama_context_default_params();
    options.n_ctx = each * kMostSlots;
    options.n_seq_max = kMostSlots;
    options.n_batch = options.n_ubatch = kChunk;
    options.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    options.n_threads = options.n_threads_batch = 4;
    auto* const context = llama_init_from_model(model, options);
    if (context == nullptr) return 1;
    int const vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    auto batch = llama_batch_init(kChunk, 0, 1);
    auto const warm = random_tokens(64, vocabulary);
    prefill(context, batch, warm, 0);
    std::printf("{\"step\":\"load\",\"of\":\"llama.cpp\",\"seconds\":%.2f,\"slots\":%d,\"contextTokens\":%d,\"gpuUsedMib\":%zu}\n",
                (now() - begun) / 1e3, kMostSlots, each, gpu_used());
    for (int const asked : {128, 1024, 4096}) {
        int const length = std::min(asked, each - kSteps - 2);
        auto const tokens = random_tokens(length, vocabulary);
        std::vector<double> times;
        for (int i = 0; i < 6; ++i) {
            double const start = now();
            prefill(context, batch, tokens, 0);
            times.push_back(now() - start);
        }
        double const first = times.front();
        times.erase(times.begin());
        double const middle = median(times);
        std::printf("{\"step\":\"prompt\",\"of\":\"llama.cpp\",\"tokens\":%d,\"firstMs\":%.3f,\"medianMs\":%.3f,\"tokensPerSecond\":%.0f}\n",
                    length, first, middle, length / middle * 1e3);
        for (int const slots : {1, 4, 8}) {
            for (int slot = 0; slot < slots; ++slot) prefill(context, batch, tokens, slot);
            auto const answer = random_tokens(kSteps, vocabulary);
            std::vector<double> steps;
            double const wall = now(), spent = processor();
            float kept = 0;
            for (int i = 0; i < kSteps; ++i) {
                double const start = now();
                batch.n_tokens = 0;
                for (int slot = 0; slot < slots; ++slot) put(batch, answer[i], length + i, slot, true);
                kept += run(context, batch)[0];
                steps.push_back(now() - start);
            }
            double const took = now() - wall;
            std::printf("{\"step\":\"answer\",\"of\":\"llama.cpp\",\"context\":%d,\"slots\":%d,\"stepMs\":%.4f,\"tokensPerSecond\":%.1f,"
                        "\"processorMsPerToken\":%.4f,\"gpuUsedMib\":%zu,\"sum\":%.3f}\n",
                        length, slots, median(steps), slots * kSteps / took * 1e3, (processor() - spent) / kSteps / slots, gpu_used(), kept);
            std::fflush(stdout);
        }
    }
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
