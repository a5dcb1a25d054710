#!/usr/bin/env python3
"""Sums kernel profiles by part of a step.

  profile_parts.py table OUT.md CASE=PROFILE.md...   one Markdown table: share of the wall time by part, a row per case
  profile_parts.py check PLUGIN.so                   fails and names the kernels of the CUDA plugin that no part covers
A profile is what kernel-profile prints, with KP_TEMPLATES=1."""
import re
import subprocess
import sys

# Part of a step, by a pattern of the kernel's name; the first that matches counts.
PARTS = [
    ("attention: pages", r"\battention_pages(_row)?_kernel<|\battention_rows_kernel<\d+, \d+, [48][,>]"),
    ("attention: ring", r"\battention_ring_group_kernel<|\battention_rows_kernel<\d+, \d+, 16[,>]|\battention_whole_kernel<.*NoPages"),
    ("attention: pages and ring", r"\battention_whole_kernel<"),
    ("attention: prompts", r"\battention_flash(_wgmma)?_kernel<"),
    ("attention: merge", r"\bjoin_kernel\b"),
    ("GEMV", r"\bmultiply_(vector|stream|stream_two)_kernel<"),
    ("GEMM", r"\bmultiply_(few|tiles|quantized|ordered)(_few|_wgmma)*_kernel\b|\badd_segments_kernel\b|gemm|Gemm|cublas|cutlass|nvjet|splitK"),
    ("GEMM: dequantize", r"\bdequantize_kernel<"),
    ("append", r"\b(commit_rows|stage_rows)_kernel\b"),
    ("flush", r"\b(stage_pages|choose_tables|key_tiles|value_tiles)_kernel<"),
    ("RoPE and staging", r"\bstage_kernel\b"),
    ("norms and activations", r"\b(rms_norm|layer_norm|activation|embed)_kernel<"),
    ("sampling", r"\bsample_kernel\b"),
    ("numeric check", r"\bcheck_finite_kernel\b"),
    ("copies", r"^\[(copy|memset)"),
]
STEP = r"\bembed_kernel<"  # once per pass
FLUSH = r"\bstage_pages_kernel<\((lk::)?(kv::)?Side\)0, |\bkey_tiles_kernel<"  # keys: once per flush, or per layer of a prompt's pass


def part_of(name):
    return next((part for part, pattern in PARTS if re.search(pattern, name)), None)


def read_profile(text):
    """Returns wall ms, busy share and (name, calls, ms) per kernel."""
    head = re.match(r"([\d.]+) ms of [\d.]+ ms traced; GPU busy ([\d.]+)%", text)
    if head is None:
        raise SystemExit(f"this is no kernel profile: {text[:80]!r}")
    rows = re.findall(r"^\| (.+) \| (\d+) \| ([\d.]+) \| [\d.]+% \| [\d.]+ \| [\d.]+ \|$", text, re.M)
    return float(head[1]), float(head[2]) / 100, [(name, int(calls), float(ms)) for name, calls, ms in rows]


def sum_parts(kernels):
    """Returns ms per part, and the kernels that no part covers."""
    sums, unknown = {}, []
    for name, _, ms in kernels:
        part = part_of(name)
        if part is None:
            unknown.append(name)
        sums[part or "other"] = sums.get(part or "other", 0) + ms
    return sums, unknown


def count(kernels, pattern):
    return sum(calls for name, calls, _ in kernels if re.search(pattern, name))


def flush_price(wall, passes, flushes, ms):
    """What a flush adds to a step, as a share of a step without one."""
    return ms / flushes / ((wall - ms) / passes)


def table(cases):
    profiles = [(name, *read_profile(text)) for name, text in cases]
    sums = {name: sum_parts(kernels) for name, _, _, kernels in profiles}
    parts = [p for p, _ in PARTS] + ["other"]
    used = [p for p in dict.fromkeys(parts) if any(p in s for s, _ in sums.values())]
    lines = ["| case | passes | us a pass | " + " | ".join(used) + " | gaps | a flush adds |", "|---|" + "---:|" * (len(used) + 4)]
    for name, wall, busy, kernels in profiles:
        passes, flushes = count(kernels, STEP), count(kernels, FLUSH)
        own = sums[name][0]
        flush = f"{100 * flush_price(wall, passes, flushes, own['flush']):.1f}%" if flushes and flushes < passes else ""
        lines.append(f"| {name} | {passes} | {1e3 * wall / max(1, passes):.0f} | " + " | ".join(f"{100 * own[p] / wall:.1f}%" if p in own else "" for p in used)
                     + f" | {100 * (1 - busy):.1f}% | {flush} |")
    lines += ["", "Shares of the wall time. Kernels overlap a little (early starts), so a row may exceed 100%."]
    unknown = sorted({kernel for _, names in sums.values() for kernel in names})
    lines += [f"In no part: {kernel}" for kernel in unknown]
    return "\n".join(lines) + "\n"


def kernels_of(plugin):
    """Names of the kernels compiled into the plugin."""
    symbols = subprocess.run(["nm", "-C", "--defined-only", plugin], check=True, capture_output=True, text=True).stdout
    names = {line.split(" ", 2)[2].replace("(anonymous namespace)::", "") for line in symbols.splitlines()}
    return sorted(name for name in names if re.search(r"_kernel[<(]", name) and "__device_stub__" not in name)


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "check":
        kernels = kernels_of(arguments[1])
        if not kernels:
            raise SystemExit(f"{arguments[1]} has no kernels")
        missing = [name for name in kernels if part_of(name) is None]
        print(f"{len(kernels)} kernels, {len(missing)} in no part of bench/gpu/profile_parts.py")
        raise SystemExit("\n".join(missing) if missing else 0)
    if len(arguments) >= 3 and arguments[0] == "table":
        cases = [argument.split("=", 1) for argument in arguments[2:]]
        text = table([(name, open(path).read()) for name, path in cases])
        open(arguments[1], "w").write(text)
        print(text, end="")
        return
    raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
