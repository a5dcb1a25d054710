# What differs between systems: sources, link options, the C and C++ runtimes.
if(WIN32)
    set(LK_OTHER_SYSTEM posix)
else()
    set(LK_OTHER_SYSTEM windows)
endif()

# The packages' Linux libraries need glibc; the loader and the threads of musl differ, and nothing is tested there.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -dumpmachine OUTPUT_VARIABLE LK_MACHINE OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(LK_MACHINE MATCHES "musl")
        message(FATAL_ERROR "LlamaKivi does not support musl (${LK_MACHINE}); build on a distribution with glibc, such as Debian")
    endif()
endif()

if(MINGW)
    # GCC aligns the stack of Win64 functions to 16 bytes, and AVX registers are spilled to it (GCC bug 54412).
    add_compile_options(-Wa,-muse-unaligned-vector-move)
    # Windows 10: the first with UTF-8 in the C runtime.
    add_compile_definitions(_WIN32_WINNT=0x0A00)
endif()

# Links a library without undefined symbols, under one name on every system. exports: the list of its exported symbols.
function(lk_library_options target exports)
    # --no-undefined would reject sanitizer builds: the sanitizer's runtime is only in the program.
    if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT LK_SANITIZE)
        set(list ${CMAKE_CURRENT_SOURCE_DIR}/native/cmake/${exports}.exports)
        target_link_options(${target} PRIVATE -Wl,--no-undefined -Wl,--version-script=${list})
        set_target_properties(${target} PROPERTIES LINK_DEPENDS ${list})
    endif()
    if(WIN32)
        set_target_properties(${target} PROPERTIES PREFIX "")
    endif()
endfunction()

# Links the compiler's runtimes into the file: it then needs the C library only.
function(lk_static_runtime target)
    if(MINGW)
        target_link_options(${target} PRIVATE -static)
    elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux")
        target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
    endif()
endfunction()

# Adds a test of what a library exports (a regular expression) and of the libraries it needs.
function(lk_test_border target exports)
    add_test(NAME border-${target} COMMAND ${CMAKE_COMMAND} -DLIBRARY=$<TARGET_FILE:${target}> -DEXPORTS=${exports}
        -DNM=${CMAKE_NM} -DREADELF=${CMAKE_READELF} -P ${CMAKE_CURRENT_SOURCE_DIR}/native/tests/library_border.cmake)
endfunction()

# Tests that bench/gpu/profile_parts.py sums profiles and assigns every kernel of the CUDA plugin to a part of a step.
function(lk_test_profile)
    find_program(LK_PYTHON python3)
    if(NOT LK_PYTHON)
        return()
    endif()
    set(folder ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu)
    add_test(NAME profile-parts COMMAND ${LK_PYTHON} -B ${folder}/profile_parts_test.py)
    if(TARGET llama-kivi-cuda)
        add_test(NAME profile-kernels COMMAND ${LK_PYTHON} -B ${folder}/profile_parts.py check $<TARGET_FILE:llama-kivi-cuda>)
    endif()
endfunction()
