// Weighted sums of values of a tile of queries.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backend/cpu/attention_runs.h"
#include "backend/cpu/attention_tile.h"
#include "kv/codec/scalar_codec.h"

namespace lk::cpu {

using kv::SideView;

// Computes value_scale[channel group, token] and value_zero from token `at` on: v = value_scale * code + value_zero.
// factor: of the head's byte scales.
void Tile::decode_value_scales(const Kernels& kernels, const kv::PageFormat& f, float factor, const uint8_t* page,
                               int first, int n, int at) {
    if (f.scale_kind == kv::ScaleKind::byte_token) {
        const uint8_t* const scales = page + f.scales_offset + first;
        const int whole = n / 8 * 8;
        kernels.decode_byte_scales(scales, whole, factor, value_scale_ + at);
        for (int t = whole; t < n; ++t) {
            value_scale_[at + t] = half_to_float(static_cast<half_t>(scales[t] << 6)) * factor;
        }
        const float lowest = kv::value_level(0, f.bits);
        for (int t = at; t < at + n; ++t) {
            value_zero_[t] = lowest * value_scale_[t];
        }
        return;
    }
    for (int t = 0; t < n; ++t) {
        for (int g = 0; g < f.scale_groups; ++g) {
            const size_t from = static_cast<size_t>(first + t) * f.scale_groups + g;
            float& s = value_scale_[g * kValueTokens + at + t];
            float& z = value_zero_[g * kValueTokens + at + t];
            if (f.scale_kind == kv::ScaleKind::half_pair) {
                half_t pair[2];
                std::memcpy(pair, page + f.scales_offset + from * 4, 4);
                s = half_to_float(pair[0]);
                z = half_to_float(pair[1]);
            } else {
                s = half_to_float(static_cast<half_t>(page[f.scales_offset + from] << 6)) * factor;
                z = s * static_cast<float>(static_cast<int8_t>(page[f.zeros_offset + from])) * 0.25f;
            }
        }
    }
}

// Unpacks the codes of a page's tokens [first, first + n) into codes[token quad, channel, token of the quad], from
// token `at` on. Tokens after them may be overwritten.
void Tile::load_value_codes(const Kernels& kernels, const kv::PageFormat& f, const uint8_t* page, int first, int n,
                            int at) {
    constexpr int kUnit = kv::kValueBlockTokens;
    const int d = f.head_size;
    const int n_blocks = d / kv::kValueBlockChannels;
    const int end = at + n;
    // Whole units, if the page's units are aligned with the block. Otherwise, as after cuts, token by token.
    const bool aligned = (first - at) % kUnit == 0;
    for (int t = at; t < end;) {
        const int token = first + t - at;
        if (aligned && t % kUnit == 0) {
            kernels.unpack_codes(page + static_cast<size_t>(token / kUnit) * n_blocks * f.block_bytes(), n_blocks,
                                 f.block_bytes(), f.bits, codes_ + t * d, 32, 4 * d);
            t += kUnit;
            continue;
        }
        for (int c = 0; c < d; ++c) {
            codes_[(t / 4 * d + c) * 4 + t % 4] = static_cast<uint8_t>(kv::get_value(f, page, token, c));
        }
        ++t;
    }
}

// Loads the scales of tokens [begin, end) of one block. Returns its first unit if the units of a page are those of the
// block, and otherwise, as after cuts, loads the codes and returns null.
const uint8_t* Tile::load_value_block(const Kernels& kernels, const SideView& values, float factor, int begin,
                                      int end) {
    const kv::PageFormat& f = values.spec->format;
    const int n = end - begin;
    const uint8_t* units = nullptr;
    for_each_run(values, begin, end, [&](const kv::PageRef&, const uint8_t* page, int first, int n_run, int at) {
        if (n_run == n && first % kv::kValueBlockTokens == 0) {
            units = page + first / kv::kValueBlockTokens * f.unit_bytes();
        } else {
            load_value_codes(kernels, f, page, first, n_run, at);
        }
        decode_value_scales(kernels, f, factor, page, first, n_run, at);
    });
    for (int g = 0; g < f.scale_groups; ++g) {
        std::fill(value_scale_ + g * kValueTokens + n, value_scale_ + g * kValueTokens + padded(n), 0.0f);
        std::fill(value_zero_ + g * kValueTokens + n, value_zero_ + g * kValueTokens + padded(n), 0.0f);
    }
    return units;
}

// Accumulates p v of quantized tokens [begin, end). scores holds p from `at` on; begin is a multiple of kValueTokens.
void Tile::accumulate_codes(const Kernels& kernels, const SideView& values, int begin, int end, int at) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    const float middle = 0.5f * static_cast<float>((1 << f.bits) - 1);
    const float factor = std::ldexp(1.0f, table_of(values).exponent);
    for (int block = begin; block < end; block += kValueTokens) {
        const int n = std::min(kValueTokens, end - block);
        const int width = padded(n);
        const uint8_t* const units = load_value_block(kernels, values, factor, block, block + n);
        const float* p = scores_ + at + block - begin;
        int stride = kChunkTokens;
        if (width > n) {  // later tokens are not quantized
            for (int r = 0; r < n_rows_; ++r) {
                std::copy_n(p + r * kChunkTokens, n, part_ + r * kValueTokens);
                std::fill_n(part_ + r * kValueTokens + n, width - n, 0.0f);
            }
            p = part_;
            stride = kValueTokens;
        }
        for (int g = 0; g < f.scale_groups; ++g) {
            const int first = g * f.group;
            const int last = f.scale_groups == 1 ? d : std::min(d, first + f.group);
            kernels.fold(p, stride, n_rows_, value_scale_ + g * kValueTokens, value_zero_ + g * kValueTokens, middle,
                         width, folded_, step_, bias_);
            if (units != nullptr) {
                kernels.accumulate_packed(units + first / kv::kValueBlockChannels * f.block_bytes(), f.unit_bytes(),
                                          width / kv::kValueBlockTokens, (last - first) / kv::kValueBlockChannels,
                                          f.bits, folded_, width, step_, bias_, n_rows_, chunk_.coded + first, d);
            } else {
                kernels.dot_codes(codes_ + 4 * first, 4 * d, width / 4, last - first, folded_, width, step_, bias_,
                                  n_rows_, chunk_.coded + first, d);
            }
        }
    }
    for (int r = 0; r < n_rows_; ++r) {
        chunk_.mass[r] = kernels.sum(scores_ + r * kChunkTokens + at, end - begin);
    }
}

// The same for a page in ggml blocks. The sum stays rotated.
void Tile::accumulate_blocks(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n,
                             int at) {
    const kv::PageFormat& f = values.spec->format;
    for (int t = 0; t < n; t += 32) {
        const int n_tile = std::min(32, n - t);
        kernels.half_blocks(f.type, page + (first + t) * f.row_bytes(), n_tile * f.head_size, block_rows_);
        kernels.accumulate_exact(block_rows_, n_tile, f.head_size, scores_ + at + t, kChunkTokens, n_rows_,
                                 chunk_.coded);
    }
}

// The same for a page of f32 or bf16.
void Tile::accumulate_floats(const Kernels& kernels, const SideView& values, const uint8_t* page, int first, int n,
                             int at) {
    const kv::PageFormat& f = values.spec->format;
    for (int t = 0; t < n; t += kDecodedRows) {
        const int n_tile = std::min(kDecodedRows, n - t);
        const float* const rows = float_rows(f, page, first + t, n_tile, float_rows_);
        kernels.accumulate_floats(rows, n_tile, f.head_size, scores_ + at + t, kChunkTokens, n_rows_, chunk_.exact);
    }
}

// Accumulates p v of tokens [begin, end), of which the first `paged` of the sequence are read from pages.
void Tile::accumulate(const Kernels& kernels, const SideView& values, int paged, int begin, int end) {
    const kv::PageFormat& f = values.spec->format;
    const int d = f.head_size;
    const auto add_exact = [&](int from, int to) {
        for_each_exact(kernels, values, from, to, block_rows_, [&](const half_t* rows, int n, int at) {
            kernels.accumulate_exact(rows, n, d, scores_ + from - begin + at, kChunkTokens, n_rows_, chunk_.exact);
        });
    };
    const int sinks_end = std::min(end, values.sinks_for(paged));
    if (begin < sinks_end) {
        add_exact(begin, sinks_end);
        for (int r = 0; r < n_rows_; ++r) {
            std::fill_n(scores_ + r * kChunkTokens, sinks_end - begin, 0.0f);  // pages also have codes for the sinks
        }
    }
    const int paged_end = std::min(end, paged);
    if (begin < paged_end && f.quantized() && !f.blocks()) {
        accumulate_codes(kernels, values, begin, paged_end, 0);
    } else {
        for_each_run(values, begin, paged_end, [&](const kv::PageRef&, const uint8_t* page, int first, int n, int at) {
            if (f.blocks()) {
                accumulate_blocks(kernels, values, page, first, n, at);
            } else if (f.floats()) {
                accumulate_floats(kernels, values, page, first, n, at);
            } else {
                kernels.accumulate_exact(reinterpret_cast<const half_t*>(page) + static_cast<ptrdiff_t>(first) * d, n,
                                         d, scores_ + at, kChunkTokens, n_rows_, chunk_.exact);
            }
        });
    }
    add_exact(std::max(begin, paged), end);
}

}  // namespace lk::cpu
