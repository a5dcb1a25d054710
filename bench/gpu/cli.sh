#!/usr/bin/env bash
# Runs the natively compiled command line on a GPU: compares greedy text with the CPU's, measures the throughput of a 7B shape.
#   CLI: llama-kivi, compiled with dotnet publish -p:PublishAot=true; BUILD: build folder of check.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
cli=${CLI:-artifacts/cli/llama-kivi}
export LLAMA_KIVI_NATIVE_DIR=${BUILD:-$PWD/artifacts/gpu-build}
# With 16-bit weights the CPU keeps activations in float, like the GPU.
model=$out/demo-f16.gguf
"$cli" quantize models/kivi-demo-llama-37m-q4_k_m.gguf "$model" F16 >/dev/null 2>&1
"$cli" doctor
for cache in f16 kivi2; do
    for layers in 0 -1; do
        "$cli" run -m "$model" -p "The garbage collector" --temp 0 -n 64 --kv-cache "$cache" -ngl "$layers" --json >"$out/run-$cache-$layers.json"
    done
    python3 - "$out/run-$cache-0.json" "$out/run-$cache--1.json" <<'PY'
import json, sys
cpu, gpu = (json.load(open(path))["tokens"] for path in sys.argv[1:])
same = next((i for i, (a, b) in enumerate(zip(cpu, gpu)) if a != b), len(cpu))
print(f"greedy: {same} of {len(cpu)} tokens are the CPU's ({sys.argv[1]})")
PY
done
for sequences in ${SEQUENCES:-1 64 256}; do
    for cache in ${CACHES:-f16 kivi2}; do
        "$cli" batched-bench --synthetic "${SHAPE:-llama2-7b}" --weights "${WEIGHTS:-f16}" -npp "${PROMPT:-160}" -ntg "${GENERATE:-128}" -npl "$sequences" --kv-cache "$cache" -ngl -1 | grep "^| $cache"
    done
done | tee "$out/batched.md"
rm "$model"
