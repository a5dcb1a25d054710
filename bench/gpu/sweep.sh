#!/usr/bin/env bash
# Decode speed and peak memory over the number of sequences: 160 + 338 tokens, Llama-2-7B shape with F16 weights, one process a point.
# Writes $OUT/sweep.jsonl; bench/gpu/sweep-plot.cs draws it.
#   CLI: llama-kivi, compiled with dotnet publish -p:PublishAot=true; BUILD: folder of the engine's libraries
#   POINTS: what to run, CACHE[+r32]:SEQUENCES; the default fills an H200
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
cli=${CLI:-artifacts/cli/llama-kivi}
if [ -n "${BUILD:-}" ]; then export LLAMA_KIVI_NATIVE_DIR=$BUILD; fi
mkdir -p "$out"
for point in ${POINTS:-f16:1 f16:64 f16:256 f16:470 kivi2:1 kivi2:64 kivi2:256 kivi2:1100 kivi2+r32:1 kivi2+r32:64 kivi2+r32:256 kivi2+r32:1100 kivi2+r32:1600}; do
    label=${point%:*}
    residual=()
    if [ "$label" != "${label%+r32}" ]; then residual=(--kv-residual 32); fi
    "$cli" batched-bench --synthetic "${SHAPE:-llama2-7b}" -npp "${PROMPT:-160}" -ntg "${GENERATE:-338}" -npl "${point#*:}" --kv-cache "${label%+r32}" "${residual[@]}" -ngl "${GPU:--1}" --output-format jsonl |
        sed "s/^{/{\"label\":\"${label/+r32/, residual 32}\",/" | tee -a "$out/sweep.jsonl"
done
