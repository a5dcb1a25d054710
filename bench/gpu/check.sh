#!/usr/bin/env bash
# Builds the library and its CUDA plugin, tests the GPU against the CPU, prints speed tables of attention and matmuls, and
# runs some tests under compute-sanitizer. Stops at the first failure. Needs a GPU, CUDA, cmake, a C++20 compiler and
# GoogleTest's sources.
#   FILTER, MEMCHECK, RACECHECK: tests to run, and tests to run under each tool of compute-sanitizer (empty: none)
#   LK_GTEST_SOURCES, BUILD, OUT: folders
#   LLAMA_KIVI_FALCON: a Falcon model with the demo model's vocabulary; without it, the test of its text is skipped
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
python3 bench/gpu/profile_parts.py check "$build/libllama-kivi-cuda.so"
echo "built in $SECONDS s"

tests=$build/llama-kivi-tests
# shards N NAME COMMAND...: runs the tests of a test program in N processes at once, because much of a test is the CPU's
# side. Their output goes to NAME-0.log and on.
shards() {
    local n=$1 name=$2 shard status=0 pids=()
    shift 2
    for ((shard = 0; shard < n; ++shard)); do
        GTEST_TOTAL_SHARDS=$n GTEST_SHARD_INDEX=$shard "$@" --gtest_brief=1 --gtest_output="xml:$out/$name-$shard.xml" >"$out/$name-$shard.log" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
    return "$status"
}

failed=
# Alone, the test that fills the GPU's memory.
alone=CudaModel.TooLittleMemory*
shards 6 tests "$tests" --gtest_filter="${FILTER:-Cuda*:*OnTheGpu*-$alone}" || failed=1
grep -hE "Failure|FAILED|PASSED|SKIPPED" -A6 "$out"/tests-?.log | cut -c1-250 || true
[ -z "$failed" ] || { tail -n 5 "$out"/tests-?.log; exit 1; }
if [ -z "${FILTER:-}" ]; then
    "$tests" --gtest_filter="$alone" --gtest_brief=1 --gtest_output="xml:$out/tests-alone.xml" 2>&1 | tee "$out/tests-alone.log"
fi
echo "tested at $SECONDS s"

for bench in attention append products; do
    "$build/llama-kivi-bench-$bench" models/kivi-demo-llama-37m-q4_k_m.gguf 2>&1 | tee "$out/$bench.md"
done
echo "timed at $SECONDS s"

# racecheck takes minutes for tests that memcheck finishes in seconds.
memcheck_tests=${MEMCHECK-CudaOperations.*:CudaProducts.*:Cuda.AttentionOverTokensThatMoved:CudaAttention.OfManyRows*:CudaShortSequences.PromptsShareAPass}
racecheck_tests=${RACECHECK-Cuda.AttentionOverTokensThatMoved:CudaShortSequences.PromptsShareAPass:CudaProducts.OfShortRows*:CudaProducts.OfManyRowsAndFewTokens:CudaOperations.R*:CudaOperations.NormsOfARow*:CudaOperations.Sampling:CudaGraphs.NanIsAttributed}
# check_with TOOL FILTER: runs tests under a tool of compute-sanitizer; fails if it finds an error or ran no test.
check_with() {
    local tool=$1 filter=$2 status=0 found
    if [ -z "$filter" ]; then return; fi
    shards 4 "$tool" compute-sanitizer --tool "$tool" --require-cuda-init no --print-limit 100000 "$tests" --gtest_filter="$filter" || status=$?
    # Shared memory races inside cuBLAS kernels are not this project's.
    found=$(cat "$out/$tool"-?.log | grep -E "Race reported|Invalid|Uninitialized|Misaligned|Program hit" | grep -vcE "nvjet|cublas" || true)
    echo "$tool: $found errors, exit $status, at $SECONDS s"
    [ "$status" -eq 0 ] && [ "$found" -eq 0 ] && grep -qh "PASSED  \] [1-9]" "$out/$tool"-?.log || { grep -hvE "nvjet|cublas|^=========  *$" "$out/$tool"-?.log | tail -n 30; return 1; }
}
check_with memcheck "$memcheck_tests" &
memcheck=$!
check_with racecheck "$racecheck_tests" || failed=1
wait "$memcheck" || failed=1
[ -z "$failed" ] || exit 1

echo "done in $SECONDS s"
