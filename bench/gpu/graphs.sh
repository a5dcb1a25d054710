#!/usr/bin/env bash
# Tests decode steps as CUDA graphs on a GPU and measures them, in turns with launches one by one (0), with one graph per
# step (100000) and with growing graphs, the first of 32 launches.
#   CLI: llama-kivi, compiled with dotnet publish -p:PublishAot=true; BUILD, OUT: folders; TURNS: rounds of measurements
#   LK_GTEST_SOURCES: GoogleTest's sources
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
build=${BUILD:-$PWD/artifacts/gpu-build}
cli=${CLI:-artifacts/cli/llama-kivi}
mkdir -p "$out" "$build"

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DLK_CUDA=ON -DLK_CUDA_ARCHITECTURES=90 -DLK_GTEST_SOURCES="${LK_GTEST_SOURCES:-/usr/src/googletest}" >"$out/build.log" 2>&1 ||
    { tail -20 "$out/build.log"; exit 1; }
cmake --build "$build" --target llama-kivi llama-kivi-cuda llama-kivi-tests --parallel "${JOBS:-16}" >>"$out/build.log" 2>&1 ||
    { grep -E "error|undefined" "$out/build.log" | head -30; exit 1; }
echo "built in $SECONDS s"

export LLAMA_KIVI_REQUIRE_GPU=1
tests=$build/llama-kivi-tests
test_one() {
    local status=0
    timeout 170 "$tests" --gtest_brief=1 --gtest_filter="$2" >"$out/tests-$1.log" 2>&1 || status=$?
    echo "tests $1: exit $status at $SECONDS s: $(grep -E 'PASSED|FAILED' "$out/tests-$1.log" | head -1)"
    grep -E "Failure|FAILED" -A6 "$out/tests-$1.log" | cut -c1-250 | head -40 || true
    grep "CUDA graphs:" "$out/tests-$1.log" | tail -3 || true
}
test_one graphs 'CudaGraphs.*' &
test_one model 'CudaModel.*:CudaNotFinite.*' &
test_one operations 'Cuda.*:CudaOperations.*:CudaInvariant.*' &
wait
compute-sanitizer --tool memcheck "$tests" --gtest_filter='CudaGraphs.NanIsAttributed:CudaGraphs.TokensDrawn*' --gtest_brief=1 >"$out/memcheck.log" 2>&1 || tail -15 "$out/memcheck.log"
tail -1 "$out/memcheck.log"
echo "tested at $SECONDS s"

rm -f "$out/graphs.jsonl"
export LLAMA_KIVI_NATIVE_DIR=$build
for turn in $(seq "${TURNS:-3}"); do
    for weights in f16 q4_k_m; do
        for graphs in 0 32 100000; do
            LLAMA_KIVI_CUDA_GRAPHS=$graphs "$cli" batched-bench --synthetic llama2-7b --weights "$weights" -npp 160 -ntg 200 -npl 1,64 --kv-cache kivi2 -ngl -1 --output-format jsonl |
                sed "s/^{/{\"turn\":$turn,\"weights\":\"$weights\",\"graphs\":$graphs,/" >>"$out/graphs.jsonl"
        done
    done
    echo "turn $turn at $SECONDS s"
done
python3 - "$out/graphs.jsonl" <<'PY' | tee "$out/graphs.md"
import collections, json, statistics, sys
speeds = collections.defaultdict(list)
for line in open(sys.argv[1]):
    row = json.loads(line)
    speeds[row["weights"], row["pl"], row["graphs"]].append(row["speed_tg"])
print("| weights | sequences | launches in the first graph | tok/s (median) | all | to launches one by one |\n|---|---:|---:|---:|---|---:|")
for (weights, batch, graphs), values in sorted(speeds.items()):
    median = statistics.median(values)
    base = statistics.median(speeds[weights, batch, 0])
    print(f"| {weights} | {batch} | {graphs or 'none'} | {median:.0f} | {', '.join(f'{v:.0f}' for v in values)} | {100 * (median / base - 1):+.1f}% |")
PY
echo "done in $SECONDS s"
