#include "model/synthetic.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "base/half.h"
#include "gguf/reader.h"
#include "model/weight_source.h"
#include "quant/blocks.h"

namespace lk {

namespace {

constexpr float kSize = 0.02f;
constexpr size_t kPoolBlocks = 1 << 15;  // random blocks per tensor, repeated

// Sets the scale at byte `at` of every block, for codes up to `largest`.
void set_scale(std::vector<uint8_t>& pool, size_t block_bytes, size_t at, float largest) {
    const half_t d = float_to_half(kSize / largest);
    for (size_t i = at; i < pool.size(); i += block_bytes) {
        std::memcpy(&pool[i], &d, sizeof(d));
    }
}

std::vector<uint8_t> make_pool(WeightType type, uint64_t seed) {
    const size_t block_bytes = weight_type_traits(type)->block_bytes;
    std::mt19937_64 random(seed);
    std::vector<uint8_t> pool(kPoolBlocks * block_bytes);
    for (size_t i = 0; i < pool.size(); i += 8) {
        const uint64_t x = random();
        std::memcpy(&pool[i], &x, std::min<size_t>(8, pool.size() - i));
    }
    std::normal_distribution<float> normal(0, kSize);
    for (size_t i = 0; i < pool.size() && weight_type_traits(type)->block_elements == 1; i += block_bytes) {
        const float x = normal(random);
        const uint32_t bits = bits_as<uint32_t>(x);
        const half_t half = float_to_half(x);
        if (type == WeightType::F32) {
            std::memcpy(&pool[i], &bits, 4);
        } else {
            const uint16_t two = type == WeightType::F16 ? half : static_cast<uint16_t>(bits >> 16);
            std::memcpy(&pool[i], &two, 2);
        }
    }
    switch (type) {
    case WeightType::Q8_0:
        set_scale(pool, block_bytes, offsetof(BlockQ8_0, d), 128);
        break;
    case WeightType::Q4_0:
        set_scale(pool, block_bytes, offsetof(BlockQ4_0, d), 8);
        break;
    case WeightType::Q4_K:  // 6-bit scales of 4-bit codes
        set_scale(pool, block_bytes, offsetof(BlockQ4_K, d), 63 * 15);
        set_scale(pool, block_bytes, offsetof(BlockQ4_K, dmin), 63 * 2);
        break;
    case WeightType::Q6_K:
        set_scale(pool, block_bytes, offsetof(BlockQ6_K, d), 128 * 32);
        break;
    default:
        break;
    }
    return pool;
}

class SyntheticWeights final : public WeightSource {
public:
    const uint8_t* matrix(const TensorInfo& info, const Report& report) override {
        const std::vector<uint8_t> pool = make_pool(static_cast<WeightType>(info.type), ++n_tensors_);
        data_.push_back(std::unique_ptr<uint8_t[]>(new uint8_t[info.size]));
        uint8_t* const out = data_.back().get();
        for (uint64_t at = 0; at < info.size; at += pool.size()) {
            std::memcpy(out + at, pool.data(), std::min<uint64_t>(pool.size(), info.size - at));
        }
        report(info.size);
        return out;
    }

    void vector(const TensorInfo&, std::span<float> out) override {
        ++n_tensors_;
        std::fill(out.begin(), out.end(), 1.0f);
    }

private:
    uint64_t n_tensors_ = 0;  // tensors made so far; also the next tensor's seed
    std::vector<std::unique_ptr<uint8_t[]>> data_;
};

}  // namespace

bool is_synthetic(const GgufFile& file) {
    return file.get_bool_or("general.synthetic", false);
}

std::shared_ptr<WeightSource> synthetic_weights() {
    return std::make_shared<SyntheticWeights>();
}

}  // namespace lk
