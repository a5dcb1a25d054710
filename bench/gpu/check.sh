#!/usr/bin/env bash
# Builds the library and its CUDA plugin, runs the tests of the GPU against the CPU, and prints a table. On a machine with
# a GPU and CUDA, from the repository's root; needs cmake, a C++20 compiler and GoogleTest's sources (LK_GTEST_SOURCES).
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
build=${BUILD:-artifacts/gpu-build}
gtest=${LK_GTEST_SOURCES:-/usr/src/googletest}
mkdir -p "$out" "$build"

arguments=(-DCMAKE_BUILD_TYPE=Release -DLK_CUDA=ON -DLK_CUDA_ARCHITECTURES="${LK_CUDA_ARCHITECTURES:-90}")
arguments+=(-DLK_GTEST_SOURCES="$gtest")
cmake -S . -B "$build" "${arguments[@]}" >"$out/cmake.log" || { tail -20 "$out/cmake.log"; exit 1; }
cmake --build "$build" --target all llama-kivi-bench-attention --parallel "$(nproc)" >"$out/build.log" 2>&1 || { grep -E "error|Error" "$out/build.log" | head -30; exit 1; }
echo "built in $SECONDS s"

"$build/llama-kivi-tests" --gtest_filter="${FILTER:-Cuda*:*OnTheGpu*}" --gtest_brief=1 --gtest_output="xml:$out/tests.xml" 2>&1 | tee "$out/tests.log" || true
grep -A3 "terminate" "$out/tests.log" || true
"$build/llama-kivi-bench-attention" models/kivi-demo-llama-37m-q4_k_m.gguf 2>&1 | tee "$out/attention.md"
