#!/usr/bin/env python3
"""Writes logits of the tiny models with exact keys and values (NAME.exact.logits: float32 [tokens, vocabulary]).

Reads every NAME.gguf of this folder, dequantizes its weights to float64 and runs make_golden.py's forward pass without
rounding keys and values: the reference of the f32 cache type. Checks the files first: with keys and values rounded to
halves, the weights read from NAME.gguf reproduce NAME.logits. Needs NumPy. Every run writes the same bytes.
"""
import pathlib
import struct
import sys

import numpy as np

sys.dont_write_bytecode = True  # no __pycache__ among the references
import make_golden  # noqa: E402

HERE = pathlib.Path(__file__).parent
# The files keep float32 logits, so both sides agree to float32 rounding. A key between two halves could round the other
# way (2e-4 of the spread); with the same weights in the same precision it does not.
TOLERANCE = 1e-6


def read_gguf(path):
    """Metadata and float64 weights of a file with F32 and F16 tensors."""
    data, at = path.read_bytes(), 4

    def take(form):
        nonlocal at
        out = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return out

    def text():
        n = take("Q")
        return take(f"{n}s").decode()

    if data[:4] != b"GGUF" or take("I") != 3:
        raise SystemExit(f"{path}: not a GGUF file of version 3")
    n_tensors, n_entries = take("Q"), take("Q")
    meta = {}
    for _ in range(n_entries):
        key, kind = text(), take("I")
        meta[key] = text() if kind == 8 else take({4: "I", 6: "f"}[kind])
    infos = [(text(), [take("Q") for _ in range(take("I"))][::-1], take("I"), take("Q")) for _ in range(n_tensors)]
    start = at + -at % 32
    weights = {}
    for name, shape, kind, offset in infos:
        x = np.frombuffer(data, {0: "<f4", 1: "<f2"}[kind], int(np.prod(shape)), start + offset)
        weights[name] = x.reshape(shape).astype(np.float64)
    return meta, weights


def shape_of(meta, weights):
    """The description that make_golden's forward pass reads."""
    arch = meta["general.architecture"]

    def get(key, default=None):
        return meta.get(f"{arch}.{key}", default)

    heads = get("attention.head_count")
    d = get("attention.key_length", get("embedding_length") // heads)
    return dict(
        arch=arch, layers=get("block_count"), heads=heads, kv=get("attention.head_count_kv"), d=d, n_rot=get("rope.dimension_count", d),
        window=get("attention.sliding_window", 0), base=get("rope.freq_base"), scaling=get("rope.scaling.type"), factor=get("rope.scaling.factor", 1.0),
        original=get("rope.scaling.original_context_length", 0), divisors=weights.get("rope_freqs.weight"),
        eps=get("attention.layer_norm_rms_epsilon", get("attention.layer_norm_epsilon")))


def main():
    for path in sorted(HERE.glob("*.gguf")):
        meta, weights = read_gguf(path)
        shape = shape_of(meta, weights)
        exact = make_golden.logits(shape, weights, lambda x: x)
        rounded = make_golden.logits(shape, weights, lambda x: x.astype("<f2").astype(np.float64))
        golden = np.frombuffer((HERE / f"{path.stem}.logits").read_bytes(), "<f4").reshape(rounded.shape)
        off = np.abs(rounded - golden).max() / golden.std()
        if off > TOLERANCE:
            raise SystemExit(f"{path.stem}: with keys and values rounded to halves, logits differ from {path.stem}.logits by {off:.1e} of their spread")
        (HERE / f"{path.stem}.exact.logits").write_bytes(exact.tobytes())
        print(f"{path.stem}: rounded keys and values reproduce {path.stem}.logits to {off:.1e} of the spread; exact ones differ from it by at most "
              f"{np.abs(exact - golden).max() / golden.std():.1e}")


if __name__ == "__main__":
    main()
