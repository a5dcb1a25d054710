// How the CUDA plugin finds cuBLAS. Needs no GPU.
#if defined(__linux__)

#include "backend/cuda/device/cublas_library.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace lk::cuda {
namespace {

std::string error_of(const std::vector<std::string>& names) {
    try {
        open_cublas(names);
    } catch (const Error& e) {
        EXPECT_EQ(e.status(), LK_DEVICE_ERROR);
        return e.what();
    }
    return "";
}

TEST(CublasLibrary, VersionsThatTheDriverRunsComeNewestFirst) {
    const std::vector<std::string> names = cublas_names(12080);
    ASSERT_EQ(names.size(), 4u);
    EXPECT_EQ(names[0], "libcublas.so.12");
    EXPECT_EQ(names[1], "/usr/local/cuda/lib64/libcublas.so.12");
    EXPECT_EQ(names[2], "libcublas.so.11");
    EXPECT_EQ(cublas_names(13000)[0], "libcublas.so.13");
    EXPECT_EQ(cublas_names(15000)[0], "libcublas.so.13");
}

TEST(CublasLibrary, TheErrorNamesWhatIsMissingAndWhereItComesFrom) {
    const std::string error = error_of({"libcublas.so.999", "/nowhere/libcublas.so.998"});
    EXPECT_NE(error.find("libcublas.so.999: cannot open"), std::string::npos) << error;
    EXPECT_NE(error.find("/nowhere/libcublas.so.998: cannot open"), std::string::npos) << error;
    EXPECT_NE(error.find("Install the cuBLAS of CUDA 11 to 13"), std::string::npos) << error;
    EXPECT_NE(error.find("LD_LIBRARY_PATH"), std::string::npos) << error;
}

TEST(CublasLibrary, ALibraryWithoutItsFunctionsIsRefusedByName) {
    const std::string error = error_of({"libm.so.6"});
    EXPECT_NE(error.find("libm.so.6 has no function cublasCreate_v2"), std::string::npos) << error;
}

}  // namespace
}  // namespace lk::cuda

#endif
