#include "model/weight_source.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "gguf/reader.h"
#include "model/synthetic.h"
#include "quant/blocks.h"

namespace lk {

namespace {

class FileWeights final : public WeightSource {
public:
    FileWeights(std::shared_ptr<const GgufFile> file, bool use_mmap) : file_(std::move(file)), use_mmap_(use_mmap) {}

    // Copies the tensor's bytes, or touches its mapped pages so that the first token does not wait for the disk.
    const uint8_t* matrix(const TensorInfo& info, const Report& report) override {
        constexpr uint64_t kPiece = 16u << 20;
        constexpr uint64_t kPage = 4096;
        const uint8_t* const data = file_->tensor_data(info);
        uint8_t* copy = nullptr;
        if (!use_mmap_) {
            copies_.push_back(std::unique_ptr<uint8_t[]>(new uint8_t[info.size]));
            copy = copies_.back().get();
        }
        for (uint64_t from = 0; from < info.size; from += kPiece) {
            const uint64_t n = std::min(kPiece, info.size - from);
            if (copy != nullptr) {
                std::memcpy(copy + from, data + from, n);
            } else {
                for (uint64_t i = 0; i < n; i += kPage) {
                    static_cast<void>(*static_cast<const volatile uint8_t*>(data + from + i));
                }
            }
            report(n);
        }
        return copy != nullptr ? copy : data;
    }

    void vector(const TensorInfo& info, std::span<float> out) override {
        dequantize_row(static_cast<WeightType>(info.type), file_->tensor_data(info), out.data(),
                       static_cast<int64_t>(out.size()));
    }

private:
    std::shared_ptr<const GgufFile> file_;
    bool use_mmap_;
    std::vector<std::unique_ptr<uint8_t[]>> copies_;
};

}  // namespace

std::shared_ptr<WeightSource> open_weights(std::shared_ptr<const GgufFile> file, bool use_mmap) {
    if (is_synthetic(*file)) {
        return synthetic_weights();
    }
    return std::make_shared<FileWeights>(std::move(file), use_mmap);
}

}  // namespace lk
