// Reference: softmax attention in double over a cache's dequantized rows.
//
// What a row of a call sees is defined by token-by-token decoding: the reference appends the call's rows one at a time
// to a copy of the sequence, and reads every row as the copy has it when the query's turn comes. Types that see every
// row as it is stored also read the query's own row from the copy, others read it as it was staged. The paper's types
// read the rows of the call exactly.
#pragma once

#include <memory>

#include "kv/codec/scalar_codec.h"
#include "support/kv_helpers.h"

namespace lk::test {

// What score correction subtracts from the score of a token: 1/24 of the sum of (q_c s_c scale)^2, s_c the quantization
// step of channel c in the token's group. 0 for tokens in full precision.
inline double score_correction(const kv::SideView& keys, int token, const float* q, double scale) {
    const kv::PageFormat& f = keys.spec->format;
    if (!f.score_correction || token < keys.n_sinks || token >= keys.n_paged) {
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

// Rows of one side and KV head of layer 0, as a query of a call sees them.
class SeenRows {
public:
    SeenRows(const kv::Cache& cache, kv::Side side, const kv::Segment& segment, int head)
        : call_(cache.view(side, segment, 0, head)),
          visibility_(call_.spec->visibility),
          side_(side),
          head_(head),
          grown_(std::make_unique<kv::Cache>(one_sequence(cache.config()))) {
        if (call_.spec->ring_in_blocks()) {
            blocks_ = cache.staged_blocks(side) + (static_cast<size_t>(head) * cache.config().n_ubatch + segment.row) *
                                                      call_.spec->ring_row_bytes();
        }
        kv::Sequence copy = cache.sequence(segment.seq);
        grown_->swap(0, copy);
        const int length = call_.length() + (visibility_ == kv::Visibility::call ? segment.n_rows : 0);
        for (int t = 0; t < length; ++t) {
            rows_.push_back(cached_row(call_, t));
        }
    }

    // Rows up to the query's own, for the queries of the call in order.
    const std::vector<std::vector<float>>& next() {
        const int row = n_seen_++;
        if (visibility_ == kv::Visibility::call) {
            return rows_;
        }
        if (visibility_ == kv::Visibility::position && row > 0) {
            append(row - 1);
        }
        if (visibility_ == kv::Visibility::stored) {
            append(row);
        } else {
            rows_.push_back(staged_row(row));
        }
        return rows_;
    }

    // The pages that the last query of next() sees.
    kv::SideView pages() const {
        return visibility_ == kv::Visibility::call ? call_ : grown_->sequence(0).side(side_).view(0, head_);
    }

private:
    static kv::CacheConfig one_sequence(kv::CacheConfig config) {
        config.n_seq_max = 1;
        config.n_seq_ready = 1;
        config.n_ubatch = 1;
        return config;
    }

    std::vector<float> staged_row(int row) const {
        const size_t d = call_.spec->format.head_size;
        std::vector<float> out(d);
        std::transform(call_.staged + row * d, call_.staged + (row + 1) * d, out.begin(), half_to_float);
        return out;
    }

    // Appends one staged row. The other side and heads receive zeros.
    void append(int row) {
        const kv::Segment one{0, 0, 1};
        const size_t width = call_.spec->staged_width();
        grown_->reserve({&one, 1});
        std::copy_n(call_.staged + row * width, width,
                    grown_->staged(side_) + head_ * grown_->config().n_ubatch * width);
        if (blocks_ != nullptr) {
            const size_t bytes = call_.spec->ring_row_bytes();
            std::copy_n(blocks_ + row * bytes, bytes,
                        grown_->staged_blocks(side_) + head_ * grown_->config().n_ubatch * bytes);
        }
        ThreadPool pool(1);
        cpu::Append().stage_pages(*grown_, {&one, 1}, grown_->layers(), pool);
        cpu::commit(*grown_, {&one, 1}, pool);
        const kv::SideView view = grown_->sequence(0).side(side_).view(0, head_);
        rows_.resize(view.length());
        for (int t = n_paged_; t < view.length(); ++t) {
            rows_[t] = cached_row(view, t);
        }
        n_paged_ = view.n_paged;
    }

    kv::SideView call_;
    kv::Visibility visibility_;
    kv::Side side_;
    int head_;
    const uint8_t* blocks_ = nullptr;  // [row, row_bytes], the staged rows of a q8_0 ring
    std::unique_ptr<kv::Cache> grown_;
    std::vector<std::vector<float>> rows_;
    int n_paged_ = 0;
    int n_seen_ = 0;
};

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
            SeenRows k(cache, kv::Side::keys, s, head);
            SeenRows v(cache, kv::Side::values, s, head);
            for (int i = 0; i < s.n_rows; ++i) {
                const auto& k_rows = k.next();
                const auto& v_rows = v.next();
                double square = 0;
                for (const auto& row : v_rows) {
                    for (const float x : row) {
                        square += static_cast<double>(x) * x / static_cast<double>(v_rows.size() * d);
                    }
                }
                for (int j = 0; j < group; ++j) {
                    const size_t at = static_cast<size_t>(s.row + i) * n_head + head * group + j;
                    const auto out = expected_output(k.pages(), k_rows, v_rows, q.data() + at * d,
                                                     cache.length(s.seq) + i, scale, window);
                    std::copy(out.begin(), out.end(), expected.out.begin() + at * d);
                    expected.rms[at] = std::sqrt(square);
                }
            }
        }
    }
    return expected;
}

}  // namespace lk::test
