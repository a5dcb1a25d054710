// The registry of architectures.
#include "model/architecture.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "model/config.h"
#include "support/gguf_writer.h"
#include "support/temporary_file.h"

namespace lk {
namespace {

std::unique_ptr<GgufFile> file_of(const std::string& architecture) {
    const test::TemporaryFile file("architecture.gguf",
                                   test::GgufWriter().string("general.architecture", architecture).bytes());
    return GgufFile::open(file.path());
}

TEST(Architectures, EachIsFoundByItsName) {
    std::set<std::string> names;
    for (const Architecture* a : architectures()) {
        EXPECT_TRUE(names.insert(a->name).second) << a->name << " is listed twice";
        EXPECT_EQ(&find_architecture(*file_of(a->name), a->name), a);
        EXPECT_NE(a->norm_eps_key, nullptr);
        EXPECT_NE(a->read_config, nullptr);
        EXPECT_NE(a->load_layer, nullptr);
        EXPECT_NE(a->forward_layer, nullptr);
    }
    EXPECT_EQ(names.count("llama"), 1u);
    EXPECT_EQ(names.count("falcon"), 1u);
}

TEST(Architectures, AnUnknownOneIsToldWhichThereAre) {
    for (const std::string name : {"mamba", "Llama", "llama ", ""}) {
        SCOPED_TRACE(name);
        try {
            ModelConfig::read(*file_of(name));
            ADD_FAILURE() << "accepted";
        } catch (const Error& e) {
            EXPECT_EQ(e.status(), LK_UNSUPPORTED);
            const std::string message = e.what();
            const size_t at = message.find("supported: ");
            ASSERT_NE(at, std::string::npos) << message;
            for (const Architecture* a : architectures()) {
                EXPECT_NE(message.find(a->name, at), std::string::npos) << message;
            }
        }
    }
}

}  // namespace
}  // namespace lk
