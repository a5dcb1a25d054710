// Quantizes the rows that leave the ring into pages, with rows and groups in registers: see value_tile.h and
// key_tile.h. Formats that they do not support are those of stage_pages.cu.
#include "backend/cuda/append/stage_tiles.h"
#include "backend/cuda/append/tile_steps.h"
#include "backend/cuda/device/lanes.cuh"
#include "backend/cuda/device/queue.h"

namespace lk::cuda {

namespace {

constexpr int kMostKeyThreads = 256;  // two chunks of channels, four tiles

// One thread block of one warp per tile: tile `i % tiles` of step `i / tiles`. All branches are uniform.
template <int kHead, int kBits>
__global__ void __launch_bounds__(32, 16)
    value_tiles_kernel(const SideShape shape, const AppendWork* works, const PageStep* steps, int first_head) {
    after_previous();
    __shared__ ValueScratch scratch;
    stage_value_tile<kHead, kBits>(Lanes(), shape, works, steps, blockIdx.x, first_head + blockIdx.y, scratch);
}

// One thread block per step, which is a group.
template <int kBits, int kTokens, int kHead>
__global__ void __launch_bounds__(kMostKeyThreads)
    key_tiles_kernel(const SideShape shape, const AppendWork* works, const PageStep* steps, int first_head) {
    after_previous();
    extern __shared__ __align__(16) uint8_t shared[];
    stage_key_group<kBits, kTokens, kHead>(Lanes(), shape, works, steps, blockIdx.x, first_head + blockIdx.y, shared);
}

}  // namespace

bool stage_tiles(const SideShape& shape, const AppendWork* works, const PageStep* steps, int n_steps, HeadRange heads,
                 Stream& stream) {
    const kv::PageFormat& f = shape.format;
    if (has_value_tiles(f)) {
        const auto launch = [&](const auto& kernel, int tiles) {
            queue(kernel, dim3(n_steps * tiles, heads.count), 32, 0, stream, shape, works, steps, heads.first);
        };
        if (f.head_size == 128) {
            launch(f.bits == 2 ? value_tiles_kernel<128, 2> : value_tiles_kernel<128, 3>, kStepTiles<128>);
        } else {
            launch(f.bits == 2 ? value_tiles_kernel<64, 2> : value_tiles_kernel<64, 3>, kStepTiles<64>);
        }
        return true;
    }
    if (has_key_tiles(f)) {
        const KeyBlock block(f);
        const auto kernel =
            f.tile_tokens == 16  ? (f.bits == 2 ? key_tiles_kernel<2, 16, 0> : key_tiles_kernel<4, 16, 0>)
            : f.head_size == 128 ? (f.bits == 2 ? key_tiles_kernel<2, 32, 128> : key_tiles_kernel<4, 32, 128>)
                                 : (f.bits == 2 ? key_tiles_kernel<2, 32, 0> : key_tiles_kernel<4, 32, 0>);
        queue(kernel, dim3(n_steps, heads.count), block.threads(), block.shared_bytes(f), stream, shape, works, steps,
              heads.first);
        return true;
    }
    return false;
}

}  // namespace lk::cuda
