#!/usr/bin/env python3
"""Writes tiny random models (NAME.gguf) and their logits (NAME.logits: float32 [tokens, vocabulary]) into this folder.

The forward passes are implemented from the papers in float64 NumPy, one token at a time, without a cache: Llama and
Mistral (RMSNorm, RoPE on adjacent pairs, SwiGLU, grouped-query attention, sliding window), Falcon (parallel attention
and MLP, LayerNorm, RoPE on halves, exact GELU), linear and YaRN scaling (arXiv 2309.00071), Llama 3.1's frequency
divisors. Keys and values are rounded to half precision, as in an f16 cache; the script prints the effect on the logits.
Needs NumPy. Every run writes the same bytes. make_exact.py writes references without that rounding.
"""
import math
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).parent
VOCAB = 96
TOKENS = [(7 * i * i + 13 * i + 5) % VOCAB for i in range(40)]


# ---- GGUF ------------------------------------------------------------------------------------------------------------
def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def entry(key, value):
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def write_gguf(path, meta, tensors):
    """Matrices as F16, vectors as F32."""
    infos, data = b"", b""
    for name, t in tensors.items():
        data += b"\0" * (-len(data) % 32)
        infos += text(name) + struct.pack("<I", t.ndim) + b"".join(struct.pack("<Q", n) for n in reversed(t.shape))
        infos += struct.pack("<IQ", 1 if t.ndim == 2 else 0, len(data))
        data += t.astype("<f2" if t.ndim == 2 else "<f4").tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    head += b"".join(entry(k, v) for k, v in meta.items()) + infos
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


# ---- pieces ----------------------------------------------------------------------------------------------------------
def frequencies(m):
    d, base = m["n_rot"], m["base"]
    f = np.array([base ** (-2 * i / d) for i in range(d // 2)])
    magnitude = 1.0
    if m["divisors"] is not None:
        f = f / m["divisors"]
    if m["scaling"] == "linear":
        f = f / m["factor"]
    if m["scaling"] == "yarn":
        def pair(turns):
            return d * math.log(m["original"] / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), d - 1)
        keep = 1 - np.clip((np.arange(d // 2) - low) / max(high - low, 0.001), 0, 1)
        f = f / m["factor"] * (1 - keep) + f * keep
        magnitude = 0.1 * math.log(m["factor"]) + 1
    return f, magnitude


def rotate(m, x, position):
    """x [heads, D]"""
    f, magnitude = frequencies(m)
    c, s = np.cos(position * f) * magnitude, np.sin(position * f) * magnitude
    y = x.copy()
    n = m["n_rot"]
    if m["arch"] == "llama":
        a, b = x[:, 0:n:2], x[:, 1:n:2]
        y[:, 0:n:2], y[:, 1:n:2] = a * c - b * s, a * s + b * c
    else:
        a, b = x[:, : n // 2], x[:, n // 2 : n]
        y[:, : n // 2], y[:, n // 2 : n] = a * c - b * s, a * s + b * c
    return y


def norm(m, x, w, name):
    if m["arch"] == "llama":
        return x / np.sqrt((x * x).mean() + m["eps"]) * w[name + ".weight"]
    y = (x - x.mean()) / np.sqrt(x.var() + m["eps"])
    return y * w[name + ".weight"] + w[name + ".bias"]


def attention(m, q, keys, values):
    """q [heads, D], keys and values [tokens][KV heads, D]"""
    share = m["heads"] // m["kv"]
    first = max(0, len(keys) - m["window"]) if m["window"] else 0
    out = []
    for h in range(m["heads"]):
        k = np.array([x[h // share] for x in keys[first:]])
        v = np.array([x[h // share] for x in values[first:]])
        scores = k @ q[h] / math.sqrt(m["d"])
        p = np.exp(scores - scores.max())
        out.append(p / p.sum() @ v)
    return np.concatenate(out)


def logits(m, w, stored):
    h, kv, d = m["heads"], m["kv"], m["d"]
    erf = np.vectorize(math.erf)
    keys = [[] for _ in range(m["layers"])]
    values = [[] for _ in range(m["layers"])]
    rows = []
    for position, token in enumerate(TOKENS):
        x = w["token_embd.weight"][token]
        for i in range(m["layers"]):
            b = f"blk.{i}."
            a = norm(m, x, w, b + "attn_norm")
            mlp_in = a
            if m["arch"] == "llama":
                q, k, v = (w[b + f"attn_{n}.weight"] @ a for n in "qkv")
            else:
                if b + "attn_norm_2.weight" in w:
                    a = norm(m, x, w, b + "attn_norm_2")
                q, k, v = np.split(w[b + "attn_qkv.weight"] @ a, [h * d, (h + kv) * d])
            keys[i].append(stored(rotate(m, k.reshape(kv, d), position)))
            values[i].append(stored(v.reshape(kv, d)))
            attended = w[b + "attn_output.weight"] @ attention(m, rotate(m, q.reshape(h, d), position), keys[i], values[i])
            if m["arch"] == "llama":
                x = x + attended
                a = norm(m, x, w, b + "ffn_norm")
                gate = w[b + "ffn_gate.weight"] @ a
                x = x + w[b + "ffn_down.weight"] @ (gate / (1 + np.exp(-gate)) * (w[b + "ffn_up.weight"] @ a))
            else:
                up = w[b + "ffn_up.weight"] @ mlp_in
                x = x + attended + w[b + "ffn_down.weight"] @ (up * 0.5 * (1 + erf(up / math.sqrt(2))))
        rows.append(w.get("output.weight", w["token_embd.weight"]) @ norm(m, x, w, "output_norm"))
    return np.array(rows, dtype="<f4")


# ---- models ----------------------------------------------------------------------------------------------------------
def make(name, seed, arch="llama", layers=2, embd=64, heads=4, kv=4, d=16, ff=96, n_rot=None, tied=False, two_norms=False,
         window=0, base=10000.0, scaling=None, factor=1.0, original=0, divisors=None, eps=1e-5):
    rng = np.random.default_rng(seed)
    m = dict(arch=arch, layers=layers, heads=heads, kv=kv, d=d, n_rot=n_rot or d, window=window, base=base, scaling=scaling,
             factor=factor, original=original, divisors=divisors, eps=eps)

    def matrix(rows, cols, spread=1.0):
        return (rng.standard_normal((rows, cols)) * spread / math.sqrt(cols)).astype("<f2")

    t = {"token_embd.weight": matrix(VOCAB, embd, 8.0)}

    def add_norm(n):
        t[n + ".weight"] = (1 + 0.2 * rng.standard_normal(embd)).astype("<f4")
        if arch == "falcon":
            t[n + ".bias"] = (0.2 * rng.standard_normal(embd)).astype("<f4")

    for i in range(layers):
        b = f"blk.{i}."
        add_norm(b + "attn_norm")
        if two_norms:
            add_norm(b + "attn_norm_2")
        if arch == "llama":
            t[b + "attn_q.weight"] = matrix(heads * d, embd, 1.2)
            t[b + "attn_k.weight"] = matrix(kv * d, embd, 1.2)
            t[b + "attn_v.weight"] = matrix(kv * d, embd)
            add_norm(b + "ffn_norm")
            t[b + "ffn_gate.weight"] = matrix(ff, embd)
        else:
            t[b + "attn_qkv.weight"] = np.concatenate([matrix((heads + kv) * d, embd, 1.2), matrix(kv * d, embd)])
        t[b + "attn_output.weight"] = matrix(embd, heads * d)
        t[b + "ffn_up.weight"] = matrix(ff, embd)
        t[b + "ffn_down.weight"] = matrix(embd, ff)
    add_norm("output_norm")
    if not tied:
        t["output.weight"] = matrix(VOCAB, embd)
    if divisors is not None:
        t["rope_freqs.weight"] = divisors.astype("<f4")

    meta = {"general.architecture": arch, "tokenizer.ggml.model": "no_vocab"}
    keys = {"context_length": 256, "embedding_length": embd, "block_count": layers, "feed_forward_length": ff,
            "attention.head_count": heads, "attention.head_count_kv": kv, "vocab_size": VOCAB, "rope.freq_base": base,
            "attention.layer_norm_rms_epsilon" if arch == "llama" else "attention.layer_norm_epsilon": eps}
    if arch == "llama":
        keys["rope.dimension_count"] = n_rot or d
    if embd != heads * d:
        keys |= {"attention.key_length": d, "attention.value_length": d}
    if window:
        keys["attention.sliding_window"] = window
    if scaling:
        keys |= {"rope.scaling.type": scaling, "rope.scaling.factor": factor}
    if original:
        keys["rope.scaling.original_context_length"] = original
    meta |= {arch + "." + k: v for k, v in keys.items()}
    write_gguf(HERE / f"{name}.gguf", meta, t)
    weights = {k: v.astype(np.float64) for k, v in t.items()}
    rows = logits(m, weights, lambda x: x.astype("<f2").astype(np.float64))
    exact = logits(m, weights, lambda x: x)
    print(f"{name}: rounding changes logits by at most {np.abs(rows - exact).max() / exact.std():.1e} of their spread, "
          f"{np.sqrt(((rows - exact) ** 2).mean()) / exact.std():.1e} rms")
    (HERE / f"{name}.logits").write_bytes(rows.tobytes())


def main():
    make("llama", 1)
    make("mistral", 2, kv=2, window=9)
    make("llama-partial", 3, heads=6, kv=3, d=24, n_rot=16, tied=True, ff=72)
    make("llama-3.1", 4, kv=1, base=500000.0, divisors=np.array([1, 1, 1.5, 2.5, 4, 8, 8, 8]))
    make("llama-linear", 5, scaling="linear", factor=4.0)
    make("llama-yarn", 6, kv=2, scaling="yarn", factor=4.0, original=32, base=100.0)
    make("falcon-7b", 7, arch="falcon", heads=5, kv=1, embd=80, ff=160, tied=True)
    make("falcon-40b", 8, arch="falcon", heads=6, kv=2, embd=96, ff=128, two_norms=True)


if __name__ == "__main__":
    main()
