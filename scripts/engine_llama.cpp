// Pooled activations by llama.cpp, for scripts/peer_engines.py: sums of a block's residual over the masked tokens.
//
// Usage: engine_llama MODEL.gguf ROWS SUMS LAYER THREADS bf16|fp32. ROWS is int32: the number of rows, then for each
// its length, token ids and mask (scripts/engine_rows.py has cut unpooled ends off). The first line of standard output
// is the version of ggml. Each line "SHARE BATCH_SIZE" on standard input is one run with or without prefix reuse and at
// most BATCH_SIZE rows a batch. It writes SUMS, float32 [rows, hidden size], and prints "done". Sorting, grouping and
// the pass over each prefix are part of a run; contexts are kept.
//
// The callback of the evaluation reads the residual and ends the graph there, so that no later block and no head is
// computed.
#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace {

// Tokens of a batch. With prefix reuse all rows share one cache, and attention reads the whole of it, so that large
// batches are slow.
constexpr int MAX_TOKENS_WHOLE = 1024;
constexpr int MAX_TOKENS_SHARED = 512;
// As in scripts/engine_rows.py.
constexpr size_t MIN_SHARING_ROWS = 4;

[[noreturn]] void fail(const std::string & reason) {
    fprintf(stderr, "%s\n", reason.c_str());
    exit(1);
}

struct Row {
    std::vector<llama_token> ids;
    std::vector<int> mask;
    bool pooled() const { return std::count(mask.begin(), mask.end(), 1) > 0; }
    size_t first() const { return std::find(mask.begin(), mask.end(), 1) - mask.begin(); }
};

std::vector<Row> read_rows(const char * path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<int32_t> values(bytes.size() / sizeof(int32_t));
    memcpy(values.data(), bytes.data(), values.size() * sizeof(int32_t));
    size_t at = 0;
    auto next = [&]() -> int32_t { return at < values.size() ? values[at++] : (fail("ROWS ends early"), 0); };
    std::vector<Row> rows(next());
    for (auto & row : rows) {
        const int length = next();
        for (int i = 0; i < length; i++) row.ids.push_back(next());
        for (int i = 0; i < length; i++) row.mask.push_back(next());
    }
    return rows;
}

// Adds the residuals of the batch in flight to the sums of their rows.
struct Pool {
    std::string name;
    int hidden = 0;
    std::vector<float> sums;
    std::vector<int> row_of_token;  // -1: not pooled
    size_t seen = 0;

    void begin() {
        row_of_token.clear();
        seen = 0;
    }

    bool take(const ggml_tensor * tensor) {
        if (tensor->type != GGML_TYPE_F32 || tensor->ne[0] != hidden) fail("the residual has another shape or type");
        for (int64_t i = 0; i < tensor->ne[1]; i++, seen++) {
            if (seen >= row_of_token.size()) fail("more tokens than the batch has");
            if (row_of_token[seen] < 0) continue;
            auto * from = reinterpret_cast<const float *>(static_cast<const char *>(tensor->data) + i * tensor->nb[1]);
            float * to = &sums[size_t(row_of_token[seen]) * hidden];
            for (int k = 0; k < hidden; k++) to[k] += from[k];
        }
        return false;
    }

    static bool callback(ggml_tensor * tensor, bool ask, void * self) {
        auto & pool = *static_cast<Pool *>(self);
        const bool is_wanted = pool.name == tensor->name;
        if (ask || !is_wanted) return ask ? is_wanted : true;
        return pool.take(tensor);
    }
};

struct Engine {
    llama_model * model = nullptr;
    std::vector<Row> rows;
    Pool pool;
    int threads = 1;
    ggml_type cache_type = GGML_TYPE_F16;
    int longest = 1;
    std::map<std::pair<bool, int>, llama_context *> contexts;

    int max_tokens(bool share) const { return std::max(longest, share ? MAX_TOKENS_SHARED : MAX_TOKENS_WHOLE); }

    llama_context * context(bool share, int batch_size) {
        llama_context *& found = contexts[{share, batch_size}];
        if (found != nullptr) return found;
        auto params = llama_context_default_params();
        const int of_row = (longest + 31) / 32 * 32;
        const int tokens = share ? max_tokens(true) + longest : batch_size * of_row;
        params.n_ctx = (tokens + 255) / 256 * 256;
        params.n_batch = params.n_ubatch = max_tokens(share);
        params.n_seq_max = batch_size;
        // Only rows that share a prefix share a cache.
        params.kv_unified = share;
        params.n_threads = params.n_threads_batch = threads;
        params.flash_attn_type = share ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
        params.type_k = params.type_v = cache_type;
        params.cb_eval = Pool::callback;
        params.cb_eval_user_data = &pool;
        found = llama_init_from_model(model, params);
        if (found == nullptr) fail("llama.cpp cannot create a context");
        return found;
    }

    void decode(llama_context * ctx, const llama_batch & batch) {
        pool.seen = 0;
        // The graph ends in the callback, so the status says nothing; the number of residuals does.
        (void) llama_decode(ctx, batch);
        if (pool.seen != pool.row_of_token.size()) fail("llama_decode did not reach the block");
    }

    // Rows that share `prefix` (none where it is empty), sorted by length.
    void run_group(llama_context * ctx, llama_batch & batch, const std::vector<llama_token> & prefix,
                   const std::vector<int> & group, int batch_size) {
        auto * memory = llama_get_memory(ctx);
        const size_t start = prefix.size();
        llama_memory_clear(memory, false);
        auto add = [&](llama_token token, size_t position, int first_sequence, int sequences, int row) {
            const int at = batch.n_tokens++;
            batch.token[at] = token;
            batch.pos[at] = llama_pos(position);
            batch.n_seq_id[at] = sequences;
            for (int i = 0; i < sequences; i++) batch.seq_id[at][i] = first_sequence + i;
            batch.logits[at] = 0;
            pool.row_of_token.push_back(row);
        };
        auto begin = [&]() {
            batch.n_tokens = 0;
            pool.begin();
        };
        if (start > 0) {
            begin();
            for (size_t i = 0; i < start; i++) add(prefix[i], i, 0, batch_size, -1);
            decode(ctx, batch);
        }
        for (size_t next = 0; next < group.size();) {
            if (start > 0) {
                for (int i = 0; i < batch_size; i++) llama_memory_seq_rm(memory, i, llama_pos(start), -1);
            } else {
                llama_memory_clear(memory, false);
            }
            begin();
            const size_t length = rows[group[next]].ids.size();
            for (int sequence = 0; sequence < batch_size && next < group.size(); sequence++, next++) {
                const Row & row = rows[group[next]];
                const int more = int(row.ids.size() - start);
                if (sequence > 0 && batch.n_tokens + more > max_tokens(start > 0)) break;
                // llama.cpp would split unequal rows of separate caches into batches of its own.
                if (start == 0 && row.ids.size() != length) break;
                for (size_t i = start; i < row.ids.size(); i++) {
                    add(row.ids[i], i, sequence, 1, row.mask[i] ? group[next] : -1);
                }
            }
            decode(ctx, batch);
        }
    }

    void run(bool share, int batch_size) {
        std::fill(pool.sums.begin(), pool.sums.end(), 0.0f);
        std::vector<int> order(rows.size());
        std::iota(order.begin(), order.end(), 0);
        auto is_shorter = [&](int a, int b) { return rows[a].ids.size() < rows[b].ids.size(); };
        std::stable_sort(order.begin(), order.end(), is_shorter);
        std::map<std::vector<llama_token>, std::vector<int>> groups;
        for (int row : order) {
            if (!rows[row].pooled()) continue;
            const auto begin = rows[row].ids.begin();
            groups[std::vector<llama_token>(begin, begin + (share ? rows[row].first() : 0))].push_back(row);
        }
        std::vector<int> whole;
        llama_batch batch = llama_batch_init(max_tokens(false), 0, batch_size);
        for (const auto & [prefix, group] : groups) {
            if (prefix.empty() || group.size() < MIN_SHARING_ROWS) {
                whole.insert(whole.end(), group.begin(), group.end());
            } else {
                run_group(context(true, batch_size), batch, prefix, group, batch_size);
            }
        }
        std::stable_sort(whole.begin(), whole.end(), is_shorter);
        if (!whole.empty()) run_group(context(false, batch_size), batch, {}, whole, batch_size);
        llama_batch_free(batch);
    }
};

}  // namespace

int main(int argc, char ** argv) {
    if (argc != 7) fail("usage: engine_llama MODEL.gguf ROWS SUMS LAYER THREADS bf16|fp32");
    llama_log_set(
        [](ggml_log_level level, const char * text, void *) {
            if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
        },
        nullptr);
    llama_backend_init();
    Engine engine;
    engine.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (engine.model == nullptr) fail("llama.cpp cannot load the model");
    engine.rows = read_rows(argv[2]);
    for (const auto & row : engine.rows) engine.longest = std::max(engine.longest, int(row.ids.size()));
    engine.pool.name = std::string("l_out-") + argv[4];
    engine.pool.hidden = llama_model_n_embd(engine.model);
    engine.pool.sums.resize(engine.rows.size() * engine.pool.hidden);
    engine.threads = atoi(argv[5]);
    engine.cache_type = strcmp(argv[6], "fp32") == 0 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    printf("ggml %s, commit %s\n", ggml_version(), ggml_commit());
    fflush(stdout);
    for (int share, batch_size; std::cin >> share >> batch_size;) {
        engine.run(share != 0, batch_size);
        std::ofstream file(argv[3], std::ios::binary);
        file.write(reinterpret_cast<const char *>(engine.pool.sums.data()), engine.pool.sums.size() * sizeof(float));
        file.close();
        if (!file) fail("SUMS cannot be written");
        puts("done");
        fflush(stdout);
    }
    return 0;
}
