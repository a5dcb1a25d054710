#!/usr/bin/env bash
# Compares the natively compiled server with batched-bench at the same batch, in turns: the difference is the engine's own cost and HTTP.
#   CLI: llama-kivi, compiled with dotnet publish -p:PublishAot=true; BUILD: folder of the engine's libraries; LAYERS, GPU: smaller models and -ngl, for a trial without a GPU
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
cli=${CLI:-artifacts/cli/llama-kivi}
streams=${STREAMS:-64} prompt=${PROMPT:-160} generate=${GENERATE:-256} port=${PORT:-8093} gpu=${GPU:--1}
if [ -n "${BUILD:-}" ]; then export LLAMA_KIVI_NATIVE_DIR=$BUILD; fi
mkdir -p "$out"
model=$out/serve.gguf
server=
trap 'if [ -n "$server" ]; then kill "$server" || true; wait "$server" || true; fi; rm -f "$model"' EXIT
python3 bench/gpu/serve.py model "$model" "${LAYERS:-32}"
for cache in ${CACHES:-kivi2 f16}; do
    for turn in $(seq "${TURNS:-2}"); do
        echo "batched-bench $cache $turn"
        "$cli" batched-bench -m "$model" -npp "$prompt" -ntg "$generate" -npl "$streams" --kv-cache "$cache" -ngl "$gpu" --output-format jsonl
        "$cli" serve -m "$model" --port "$port" -np "$streams" -c $((streams * (prompt + generate + 64))) -ctk "$cache" -ctv "$cache" -ngl "$gpu" >"$out/serve-$cache-$turn.log" 2>&1 &
        server=$!
        for _ in $(seq 600); do
            if curl -sf "http://127.0.0.1:$port/health" >/dev/null; then break; fi
            kill -0 "$server"
            sleep 0.2
        done
        python3 bench/gpu/serve.py load "$port" "$streams" "$prompt" 16 >/dev/null  # warms up
        for _ in 1 2; do
            echo "serve $cache $turn"
            python3 bench/gpu/serve.py load "$port" "$streams" "$prompt" "$generate"
        done
        kill "$server"
        wait "$server" || true
        server=
    done
done
