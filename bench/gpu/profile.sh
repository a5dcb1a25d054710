#!/usr/bin/env bash
# Profiles the natively compiled command line on a GPU and prints where the time of a pass goes, by part: one Markdown
# table, $OUT/profile.md, beside $OUT/profile-cases.tar.gz, the profiles by kernel. Takes at most LIMIT seconds: cases that
# do not fit are skipped and named.
#   CLI: llama-kivi, compiled with dotnet publish -p:PublishAot=true; BUILD: folder of the engine's libraries
#   KERNEL_PROFILE: source of kernel-profile, a CUPTI injection library that sums kernels; CUDA: the toolkit's folder
#   CASES: names of the cases to run (default: all); DRY_RUN=1: print the commands only
set -euo pipefail
cd "$(dirname "$0")/../.."

out=${OUT:-artifacts/gpu}
cli=${CLI:-artifacts/cli/llama-kivi}
cuda=${CUDA:-/usr/local/cuda}
export LLAMA_KIVI_NATIVE_DIR=${BUILD:-$PWD/artifacts/gpu-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

if [ -z "${DRY_RUN:-}" ]; then
    profiler=${KERNEL_PROFILE:?the source of kernel-profile}
    python3 bench/gpu/profile_parts.py check "$LLAMA_KIVI_NATIVE_DIR/libllama-kivi-cuda.so"
    g++ -O2 -shared -fPIC "$profiler" -I"$cuda/include" -L"$cuda/targets/x86_64-linux/lib" -lcupti -Wl,-rpath,"$cuda/targets/x86_64-linux/lib" -o "$work/kernel_profile.so"
fi

profiles=()
skipped=
# case_of NAME SECONDS MS OPTIONS...: profiles the last MS milliseconds of a batched-bench, which is expected to take SECONDS.
case_of() {
    local name=$1 seconds=$2 window=$3
    shift 3
    if [ -n "${CASES:-}" ] && ! grep -qwF -- "$name" <<<"$CASES"; then return; fi
    local left=$((${LIMIT:-235} - SECONDS))
    if [ "$left" -lt "$seconds" ]; then skipped+=" $name"; return; fi
    if [ -n "${DRY_RUN:-}" ]; then echo "$name: $cli batched-bench -ngl -1 $* (the last $window ms)"; return; fi
    if CUDA_INJECTION64_PATH=$work/kernel_profile.so KP_TEMPLATES=1 KP_FROM=-$window KP_OUT=$work/$name.md \
        timeout "$left" "$cli" batched-bench -ngl -1 "$@" >"$work/$name.log" 2>&1 && [ -s "$work/$name.md" ]; then
        profiles+=("$name=$work/$name.md")
        echo "$name: done at $SECONDS s"
    else
        skipped+=" $name"
        tail -3 "$work/$name.log"
    fi
}

decode=(--synthetic llama2-7b --kv-cache kivi2)
case_of b1-f16 12 300 "${decode[@]}" --weights f16 -npp 160 -ntg 128 -npl 1
case_of b1-q4_k_m 10 250 "${decode[@]}" --weights q4_k_m -npp 160 -ntg 256 -npl 1
case_of b1-q8_0 10 250 "${decode[@]}" --weights q8_0 -npp 160 -ntg 192 -npl 1
case_of b64 16 1200 "${decode[@]}" -npp 160 -ntg 338 -npl 64
case_of prefill-2048 12 400 --synthetic llama3-8b --kv-cache kivi2 -npp 2048 -ntg 1 -npl 8
# All sequences are equally long, so they flush in the same steps: one step in 32. A short generation at the mean length
# of 160+338 replaces the whole one.
case_of b1600-r32 40 3500 "${decode[@]}" --kv-residual 32 -npp 320 -ntg 48 -npl 1600
case_of b1100 30 2500 "${decode[@]}" -npp 320 -ntg 48 -npl 1100
case_of b256-invariant 16 1200 "${decode[@]}" --batch-invariant -npp 160 -ntg 128 -npl 256
case_of prefill-131072 65 3000 --synthetic llama3-8b --kv-cache kivi2 -npp 131072 -ntg 1 -npl 1

if [ "${#profiles[@]}" -gt 0 ]; then
    python3 bench/gpu/profile_parts.py table "$out/profile.md" "${profiles[@]}"
    tar czf "$out/profile-cases.tar.gz" -C "$work" --exclude '*.so' .
fi
if [ -n "$skipped" ]; then echo "not profiled:$skipped"; exit 1; fi
echo "profiled in $SECONDS s"
