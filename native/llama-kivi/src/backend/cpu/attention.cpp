#include "backend/cpu/attention.h"

#include <algorithm>

#include "backend/cpu/attention_tile.h"

namespace lk::cpu {

namespace {

using kv::Side;
using kv::SideView;

// Number of query heads per KV head.
int head_group(const AttentionArgs& args) {
    return args.n_head / args.cache->config().n_head_kv;
}

// Whether the rows of two tokens of a segment read different tokens from pages. Without a ring, a row's own token is
// always the last that it sees, so later tokens need not be told apart.
bool see_differently(const SideView& view, int a, int b) {
    const bool all_paged = view.spec->visibility == kv::Visibility::stored && view.spec->ageing.trigger == 1;
    return !all_paged && view.paged_for(a) != view.paged_for(b);
}

// Offset of a row's query and output: query token row / group, query head row % group of the KV head.
ptrdiff_t row_offset(const AttentionArgs& args, const kv::Segment& segment, int token, int head, int row) {
    const int group = head_group(args);
    const ptrdiff_t batch_row = segment.row + token + row / group;
    return (batch_row * args.n_head + head * group + row % group) * args.cache->config().head_size;
}

}  // namespace

Attention::Attention(const Kernels& kernels, int n_threads) : kernels_(kernels) {
    for (int i = 0; i < n_threads; ++i) {
        // Not cleared: a tile has over a megabyte, of which a short context touches little.
        scratch_.push_back(std::make_unique_for_overwrite<Tile>());
    }
}

Attention::~Attention() = default;

// Cuts the segments into tiles whose rows read the same tokens from pages. Tiles of rows that could be one are of
// similar size.
void Attention::cut_tiles(const AttentionArgs& args) {
    tiles_.clear();
    const int most = std::max(1, kTileRows / head_group(args));
    for (size_t i = 0; i < args.segments.size(); ++i) {
        const kv::Segment& segment = args.segments[i];
        const SideView keys = args.cache->view(Side::keys, segment, args.layer, 0);
        const SideView values = args.cache->view(Side::values, segment, args.layer, 0);
        for (int token = 0; token < segment.n_rows;) {
            int end = token + 1;
            while (end < segment.n_rows && !see_differently(keys, token, end) && !see_differently(values, token, end)) {
                ++end;
            }
            const int n_tiles = (end - token + most - 1) / most;
            for (int left = n_tiles; left > 0; --left) {
                const int n = (end - token + left - 1) / left;
                tiles_.push_back({static_cast<int>(i), token, n});
                token += n;
            }
        }
    }
}

void Attention::plan(const AttentionArgs& args, int n_threads) {
    cut_tiles(args);
    tasks_.clear();
    const kv::CacheConfig& config = args.cache->config();
    const int n_units = config.n_head_kv * static_cast<int>(tiles_.size());
    const int wanted =
        n_threads == 1 ? 1 : (4 * n_threads + n_units - 1) / n_units;  // splits for about four tasks per thread
    int partial = 0;
    for (const TileRange& rows : tiles_) {
        const int first = args.cache->length(args.segments[rows.segment].seq) + rows.token;  // position
        const int begin = args.window > 0 ? std::max(0, first + 1 - args.window) / kChunkTokens : 0;
        const int n_chunks = (first + rows.n_tokens + kChunkTokens - 1) / kChunkTokens - begin;
        const int n_splits = std::min(n_chunks, wanted);
        const int width = (n_chunks + n_splits - 1) / n_splits;  // chunks per task
        for (int head = 0; head < config.n_head_kv; ++head) {
            for (int chunk = 0; chunk < n_chunks; chunk += width) {
                const bool whole = width == n_chunks;
                const int n = std::min(width, n_chunks - chunk);
                tasks_.push_back(
                    {rows, head, begin + chunk, n, whole ? -1 : partial, whole || chunk > 0 ? 0 : n_chunks});
                partial += whole ? 0 : n * rows.n_tokens * head_group(args);
            }
        }
    }
    const size_t size = partial * static_cast<size_t>(sums_width(config.head_size));
    partial_.resize(std::max(partial_.size(), size));
}

void Attention::run_task(const AttentionArgs& args, const Task& task, Tile& tile) {
    const kv::Segment& segment = args.segments[task.rows.segment];
    TileView view{args.cache->view(Side::keys, segment, args.layer, task.head),
                  args.cache->view(Side::values, segment, args.layer, task.head), 0, 0};
    const int last = task.rows.token + task.rows.n_tokens - 1;
    view.paged_k = view.keys.paged_for(last);
    view.paged_v = view.values.paged_for(last);
    const int d = args.cache->config().head_size;
    const int group = head_group(args);
    const int n_rows = task.rows.n_tokens * group;
    tile.start(d, n_rows);
    for (int r = 0; r < n_rows; ++r) {
        const float* const q = args.q + row_offset(args, segment, task.rows.token, task.head, r);
        std::transform(q, q + d, tile.query(r), [&](float x) { return x * args.scale; });
    }
    const int position = view.keys.length() + task.rows.token;
    const int width = sums_width(d);
    for (int i = 0; i < task.n_chunks; ++i) {
        const int begin = (task.first_chunk + i) * kChunkTokens;
        const int end = std::min(begin + kChunkTokens, position + task.rows.n_tokens);
        tile.attend(kernels_, args, view, begin, end, position, group);
        if (task.partial < 0) {
            tile.add_chunk();
            continue;
        }
        for (int r = 0; r < n_rows; ++r) {
            tile.save(r, partial_.data() + static_cast<ptrdiff_t>(task.partial + i * n_rows + r) * width);
        }
    }
    for (int r = 0; r < n_rows && task.partial < 0; ++r) {
        tile.finish(view.values, r, args.out + row_offset(args, segment, task.rows.token, task.head, r));
    }
}

// Adds the chunks of a split tile in order and writes its outputs.
void Attention::merge(const AttentionArgs& args, const Task& task, Tile& tile) {
    const kv::Segment& segment = args.segments[task.rows.segment];
    const SideView values = args.cache->view(Side::values, segment, args.layer, task.head);
    const int d = args.cache->config().head_size;
    const int n_rows = task.rows.n_tokens * head_group(args);
    tile.start(d, n_rows);
    for (int r = 0; r < n_rows; ++r) {
        for (int i = 0; i < task.n_split; ++i) {
            const ptrdiff_t at = task.partial + static_cast<ptrdiff_t>(i) * n_rows + r;
            tile.add_saved(r, partial_.data() + at * sums_width(d));
        }
        tile.finish(values, r, args.out + row_offset(args, segment, task.rows.token, task.head, r));
    }
}

void Attention::run(const AttentionArgs& args, ThreadPool& pool) {
    plan(args, pool.size());
    // Longest tasks first: later query tokens attend to more cache tokens.
    const int n = static_cast<int>(tasks_.size());
    pool.parallel_for(n, [&](int i, int thread) { run_task(args, tasks_[n - 1 - i], *scratch_[thread]); });
    for (const Task& task : tasks_) {
        if (task.n_split > 0) {
            merge(args, task, *scratch_[0]);
        }
    }
}

}  // namespace lk::cpu
