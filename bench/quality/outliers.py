#!/usr/bin/env python3
"""Measures KV caches on keys with outlier channels, planted into the demo model, and writes outliers.md in this folder.

    bench/quality/outliers.py [--factors 5,20,70] [--max-tokens 2048]

In every layer and KV head, two rows of attn_k (a pair of rotary channels) are multiplied by a factor, by scaling only the scales of their quantized blocks. Each planted model is compared with itself with an f16 cache
(llama-kivi perplexity). bench/quality/run.py includes outliers.md in docs/quality.md.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

from run import CLI, CORPUS, DEMO, ROOT

CACHES = "f16,q8_0,q4_0,kivi4,kivi3,kivi2"
WINDOW = 1024
RESULT = pathlib.Path(__file__).with_name("outliers.md")
# Sizes of GGUF's fixed-size value types; for the weight types of attn_k: block elements, block bytes, offsets of the half floats.
VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
BLOCKS = {8: (32, 34, (0,)), 12: (256, 144, (0, 2)), 13: (256, 176, (0, 2)), 14: (256, 210, (208,))}  # Q8_0, Q4_K, Q5_K, Q6_K


class Gguf:
    """Parses a file header: numeric metadata, and tensors by name."""

    def __init__(self, data):
        self.data, self.at = data, 8
        n_tensors, n_entries = self.read("<QQ")
        self.numbers, self.tensors = {}, {}
        for _ in range(n_entries):
            key, kind = self.text(), self.read("<I")[0]
            value = self.value(kind)
            if isinstance(value, int):
                self.numbers[key] = value
        for _ in range(n_tensors):
            name, dims = self.text(), self.read("<I")[0]
            shape = self.read(f"<{dims}Q")
            kind, offset = self.read("<IQ")
            self.tensors[name] = (shape, kind, offset)
        alignment = self.numbers.get("general.alignment", 32)
        self.begin = (self.at + alignment - 1) // alignment * alignment

    def read(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        n = self.read("<Q")[0]
        self.at += n
        return self.data[self.at - n:self.at].decode(errors="replace")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            element, n = self.read("<IQ")
            for _ in range(n):
                self.value(element)
            return None
        self.at += VALUE_BYTES[kind]
        return int.from_bytes(self.data[self.at - VALUE_BYTES[kind]:self.at], "little") if kind in (4, 5, 10, 11) else None


# Planted channels: name, and rows of a head of n channels.
PLANTED = {
    "slowest pair": lambda n: (n - 2, n - 1),
    "a pair of middling speed": lambda n: (n // 2, n // 2 + 1),
    "fastest pair": lambda n: (0, 1),
}


def plant(source, rows, factor):
    """Bytes of the model, with these rows of every KV head multiplied."""
    data = bytearray(source)
    gguf = Gguf(data)
    heads = gguf.numbers["llama.attention.head_count_kv"]
    for name, (shape, kind, offset) in gguf.tensors.items():
        if not name.endswith(".attn_k.weight"):
            continue
        n_cols, n_rows = shape
        elements, size, halves = BLOCKS[kind]
        row_bytes = n_cols // elements * size
        for head in range(heads):
            size_of_head = n_rows // heads
            for row in rows(size_of_head):
                first = gguf.begin + offset + (head * size_of_head + row) * row_bytes
                for block in range(first, first + row_bytes, size):
                    for at in halves:
                        struct.pack_into("<e", data, block + at, factor * struct.unpack_from("<e", data, block + at)[0])
    return data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--factors", default="5,20,70")
    parser.add_argument("--max-tokens", type=int, default=2048)
    args = parser.parse_args()
    source = DEMO.read_bytes()
    names = CACHES.split(",")[1:]
    table = ["| planted | factor | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    scored = 0
    factors = [float(x) for x in args.factors.split(",")]
    cases = [("nothing", None, 1.0), *((name, rows, x) for name, rows in PLANTED.items() for x in factors)]
    for name, rows, factor in cases:
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "planted.gguf"
            model.write_bytes(plant(source, rows, factor) if rows else source)
            command = [*CLI, "perplexity", "-m", model, "-f", CORPUS, "-c", WINDOW, "--max-tokens", args.max_tokens, "--kv-cache", CACHES, "--json"]
            out = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout
        result = {row["kv_cache"]: row for row in json.loads(out)}
        scored = result["f16"]["tokens"]
        table.append(f"| {name} | {factor:g} | " + " | ".join(f"{result[cache]['kl_mean']:.3f}" for cache in names) + " |")
        print(table[-1], flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    RESULT.write_text(f"""## Keys with large channels

Written by [bench/quality/outliers.py](../bench/quality/outliers.py) at commit {commit}. Some models (qwen2 and relatives) have key channels far larger than the others. Here such channels are planted into the demo model: in every
layer and KV head the two rows of `attn_k` for a pair of rotary channels are multiplied by a factor. The slowest pair rotates by less than a thousandth of a radian per token, so its keys hardly change; the fastest rotates by one
radian, so that the keys of a group of tokens cover a whole rotation. Mean KL divergence of the next token from the same planted model with an f16 cache, {scored:,} tokens of the corpus, windows of {WINDOW:,} tokens, read
in chunks of 128. Planting changes the model, and large factors break it: compare only within a row.

""" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
