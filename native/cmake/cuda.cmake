# The CUDA plugin, libllama-kivi-cuda.so: kernels in C++17 for CUDA 11.8 or later, host code in C++20 like the library.
# cuBLAS is loaded at run time.
if(LK_CUDA STREQUAL "OFF")
    return()
endif()
include(CheckLanguage)
if(NOT CMAKE_CUDA_HOST_COMPILER AND EXISTS /usr/bin/g++-11)
    set(CMAKE_CUDA_HOST_COMPILER /usr/bin/g++-11)  # the latest GCC that CUDA 11 supports
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
    if(LK_CUDA STREQUAL "ON")
        message(FATAL_ERROR "LK_CUDA is ON, but no CUDA compiler was found; install CUDA (Debian: apt-get install nvidia-cuda-toolkit) or set LK_CUDA=OFF")
    endif()
    message(STATUS "No CUDA compiler found: building for the CPU only (Debian: apt-get install nvidia-cuda-toolkit)")
    return()
endif()
set(CMAKE_CUDA_ARCHITECTURES ${LK_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB_RECURSE LK_CUDA_KERNELS CONFIGURE_DEPENDS ${LK_ROOT}/src/backend/cuda/*.cu)
list(FILTER LK_CUDA_KERNELS EXCLUDE REGEX "_wgmma\\.cu$")  # for compute capability 9.0a and CUDA 12
add_library(llama-kivi-cuda-kernels OBJECT ${LK_CUDA_KERNELS})
set_target_properties(llama-kivi-cuda-kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(llama-kivi-cuda-kernels PRIVATE ${LK_ROOT}/include ${LK_ROOT}/src)
set_target_properties(llama-kivi-cuda-kernels PROPERTIES COMPILE_OPTIONS "--expt-relaxed-constexpr")
# No FMA: codes must equal the CPU's.
file(GLOB LK_CUDA_APPEND CONFIGURE_DEPENDS ${LK_ROOT}/src/backend/cuda/append/*.cu)
set_source_files_properties(${LK_CUDA_APPEND} PROPERTIES COMPILE_OPTIONS "--fmad=false")

# The plugin links its own copy of the engine's internal functions: only the C structs of backend/plugin.h cross.
add_library(llama-kivi-parts STATIC)
target_link_libraries(llama-kivi-parts PRIVATE llama-kivi-objects)
add_library(llama-kivi-cuda SHARED ${LK_CUDA_SOURCES} $<TARGET_OBJECTS:llama-kivi-cuda-kernels>)
target_include_directories(llama-kivi-cuda PRIVATE ${LK_ROOT}/include ${LK_ROOT}/src)
target_link_libraries(llama-kivi-cuda PRIVATE llama-kivi-parts CUDA::cudart_static)
lk_library_options(llama-kivi-cuda plugin)
lk_static_runtime(llama-kivi-cuda)
set_target_properties(llama-kivi-cuda PROPERTIES LINKER_LANGUAGE CXX BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN")

foreach(bench attention append products rows step)
    add_executable(llama-kivi-bench-${bench} EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/${bench}.cpp)
    target_link_libraries(llama-kivi-bench-${bench} PRIVATE llama-kivi-objects)
endforeach()
