#!/usr/bin/env bash
# Builds the library and its CUDA plugin, tests the GPU against the CPU, prints speed tables of attention and matmuls, and
# runs some tests under compute-sanitizer. Stops at the first failure. Needs a GPU, CUDA, cmake, a C++20 compiler and
# GoogleTest's sources.
#   FILTER, MEMCHECK, RACECHECK: tests to run, and tests to run under each tool of compute-sanitizer (empty: none)
#   LK_GTEST_SOURCES, BUILD, OUT: folders
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
build=${BUILD:-artifacts/gpu-build}
mkdir -p "$out" "$build"

arguments=(-DCMAKE_BUILD_TYPE=Release -DLK_CUDA=ON -DLK_CUDA_ARCHITECTURES="${LK_CUDA_ARCHITECTURES:-90}")
arguments+=(-DLK_GTEST_SOURCES="${LK_GTEST_SOURCES:-/usr/src/googletest}")
cmake -S . -B "$build" "${arguments[@]}" >"$out/cmake.log" || { tail -20 "$out/cmake.log"; exit 1; }
cmake --build "$build" --target all llama-kivi-bench-attention llama-kivi-bench-append llama-kivi-bench-products --parallel "$(nproc)" >"$out/build.log" 2>&1 ||
    { grep -E "error|Error" "$out/build.log" | head -30; exit 1; }
echo "built in $SECONDS s"

tests=$build/llama-kivi-tests
# Three processes at once, because much of a test is the CPU's side; alone, the test that fills the GPU's memory.
alone=CudaModel.TooLittleMemory*
shards=()
for shard in 0 1 2; do
    GTEST_TOTAL_SHARDS=3 GTEST_SHARD_INDEX=$shard "$tests" --gtest_filter="${FILTER:-Cuda*:*OnTheGpu*-$alone}" --gtest_brief=1 \
        --gtest_output="xml:$out/tests-$shard.xml" >"$out/tests-$shard.log" 2>&1 &
    shards+=($!)
done
failed=
for shard in 0 1 2; do
    wait "${shards[shard]}" || failed+=" $shard"
    grep -E "Failure|FAILED|PASSED|SKIPPED" -A6 "$out/tests-$shard.log" | cut -c1-250 || true
done
for shard in $failed; do tail -20 "$out/tests-$shard.log"; done
[ -z "$failed" ] || { echo "tests failed in the shards$failed"; exit 1; }
if [ -z "${FILTER:-}" ]; then
    "$tests" --gtest_filter="$alone" --gtest_brief=1 --gtest_output="xml:$out/tests-alone.xml" 2>&1 | tee "$out/tests-alone.log"
fi
echo "tested at $SECONDS s"

for bench in attention append products; do
    "$build/llama-kivi-bench-$bench" models/kivi-demo-llama-37m-q4_k_m.gguf 2>&1 | tee "$out/$bench.md"
done
echo "timed at $SECONDS s"

# racecheck takes minutes for tests that memcheck finishes in seconds.
memcheck_tests=${MEMCHECK-CudaOperations.*:Cuda.AttentionOverTokensThatMoved}
racecheck_tests=${RACECHECK-Cuda.AttentionOverTokensThatMoved:CudaOperations.R*:CudaOperations.NormsOfARow*:CudaOperations.Sampling:CudaOperations.InvariantProductsOfManyTokens:CudaGraphs.NanIsAttributed}
for tool in memcheck racecheck; do
    filter=${tool}_tests
    if [ -z "${!filter}" ]; then continue; fi
    status=0
    compute-sanitizer --tool "$tool" --print-limit 100000 "$tests" --gtest_filter="${!filter}" --gtest_brief=1 >"$out/$tool.log" 2>&1 || status=$?
    # Shared memory races inside cuBLAS kernels are not this project's.
    found=$(grep -E "Race reported|Invalid|Uninitialized|Misaligned|Program hit" "$out/$tool.log" | grep -vcE "nvjet|cublas" || true)
    [ "$status" -eq 0 ] && [ "$found" -eq 0 ] || { grep -vE "nvjet|cublas|^=========  *$" "$out/$tool.log" | tail -30; exit 1; }
    echo "$tool: $found errors, at $SECONDS s"
done

echo "done in $SECONDS s"
