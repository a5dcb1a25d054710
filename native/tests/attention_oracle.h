// Reference: softmax attention in double over a cache's dequantized rows.
#pragma once

#include "kv/scalar_codec.h"
#include "kv_helpers.h"

namespace lk::test {

// What score correction subtracts from the score of a token: 1/24 of the sum of (q_c s_c scale)^2, s_c the quantization
// step of channel c in the token's group. 0 for tokens in full precision.
inline double score_correction(const kv::SideView& keys, int token, const float* q, double scale) {
    const kv::PageFormat& f = keys.spec->format;
    if (!f.recipe.score_correction || token < keys.n_sinks || token >= keys.n_paged) {
        return 0;
    }
    size_t page = 0;
    for (; token >= keys.pages[page].count; ++page) {
        token -= keys.pages[page].count;
    }
    const kv::PageRef& ref = keys.pages[page];
    std::vector<float> turned(q, q + f.head_size);
    kv::rotate_heads(rotation(f.head_size), ref.frame, turned.data(), 1, f.head_size);
    const uint8_t* const scales = keys.page(page) + f.scales_offset + (ref.first + token) / f.group * f.head_size;
    double sum = 0;
    for (int c = 0; c < f.head_size; ++c) {
        sum += std::pow(turned[c] * scale * kv::byte_scale_decode(scales[c], keys.table->exponent), 2);
    }
    return sum / 24;
}

// Expected output of one query head of one query token. keys: the view that the rows k were read from.
inline std::vector<double> expected_output(const kv::SideView& keys, const std::vector<std::vector<float>>& k,
                                           const std::vector<std::vector<float>>& v, const float* q, int position,
                                           double scale, int window) {
    const size_t d = k[0].size();
    const int first = window > 0 ? std::max(0, position + 1 - window) : 0;
    std::vector<double> p;
    double top = -1e300;
    for (int t = first; t <= position; ++t) {
        double dot = 0;
        for (size_t c = 0; c < d; ++c) {
            dot += static_cast<double>(q[c]) * k[t][c];
        }
        p.push_back(dot * scale - score_correction(keys, t, q, scale));
        top = std::max(top, p.back());
    }
    double sum = 0;
    for (double& x : p) {
        x = std::exp(x - top);
        sum += x;
    }
    std::vector<double> out(d);
    for (int t = first; t <= position; ++t) {
        for (size_t c = 0; c < d; ++c) {
            out[c] += p[t - first] / sum * v[t][c];
        }
    }
    return out;
}

struct Expected {
    std::vector<double> out;  // [n, n_head, D]
    std::vector<double> rms;  // [n, n_head]: RMS of the head's values
};

// Expected outputs of the segments' staged rows in layer 0. q: [n, n_head, D].
inline Expected expected_attention(const kv::Cache& cache, std::span<const kv::Segment> segments,
                                   const std::vector<float>& q, int n_head, double scale, int window) {
    const kv::CacheConfig& config = cache.config();
    const int d = config.head_size;
    const int group = n_head / config.n_head_kv;
    Expected expected{std::vector<double>(q.size()), std::vector<double>(q.size() / d)};
    for (const kv::Segment& s : segments) {
        for (int head = 0; head < config.n_head_kv; ++head) {
            const int length = cache.length(s.seq) + s.n_rows;
            const auto rows = [&](kv::Side side) {
                std::vector<std::vector<float>> out;
                for (int t = 0; t < length; ++t) {
                    out.push_back(cached_row(cache.view(side, s, 0, head), t));
                }
                return out;
            };
            const auto k = rows(kv::Side::keys);
            const auto v = rows(kv::Side::values);
            double square = 0;
            for (const auto& row : v) {
                for (const float x : row) {
                    square += static_cast<double>(x) * x / (length * d);
                }
            }
            for (int i = 0; i < s.n_rows * group; ++i) {
                const size_t at = static_cast<size_t>(s.row + i / group) * n_head + head * group + i % group;
                const auto out = expected_output(cache.view(kv::Side::keys, s, 0, head), k, v, q.data() + at * d,
                                                 cache.length(s.seq) + i / group, scale, window);
                std::copy(out.begin(), out.end(), expected.out.begin() + at * d);
                expected.rms[at] = std::sqrt(square);
            }
        }
    }
    return expected;
}

}  // namespace lk::test
