"""Quality gain of each refinement of the KIVI cache: a PyTorch simulation that shares no code with the engine.

    llama-kivi tokenize -m MODEL -f TEXT > ids.txt
    python3 ablate.py MODEL ids.txt [--context 4096] [--windows 2] [--device cuda]

Reads a GGUF model (llama or falcon, without RoPE scaling) and scores the second half of each window of text. Every
query sees the cache of a token-by-token run: keys and values are as in the residual ring, then quantized.
Prints, relative to an f16 cache: perplexity, KL divergence (mean, 99th and 99.9th percentile, maximum), and the
fraction of equal most probable tokens, beside each recipe's bits per element.
"""

import argparse
import json
import math
import struct

import numpy as np
import torch

R, G, SINKS = 128, 32, 4


# ---- GGUF

def read_gguf(path):
    data = np.memmap(path, dtype=np.uint8, mode="r")
    at = 0

    def take(form):
        nonlocal at
        out = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize(form)
        return out

    def text():
        nonlocal at
        n = take("Q")
        at += n
        return bytes(data[at - n:at]).decode("utf-8", "replace")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner = take("I")
            return [value(inner) for _ in range(take("Q"))]
        return take("BbHhIif?xxQqd"[kind] if kind < 8 else {10: "Q", 11: "q", 12: "d"}[kind])

    assert bytes(data[:4]) == b"GGUF"
    at = 8
    n_tensors, n_entries = take("Q"), take("Q")
    meta = {}
    for _ in range(n_entries):
        key = text()
        meta[key] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape[::-1], take("I"), take("Q")))
    align = meta.get("general.alignment", 32)
    start = (at + align - 1) // align * align
    return meta, {name: dequantize(data, start + offset, kind, shape) for name, shape, kind, offset in infos}


def halves(b):
    return np.ascontiguousarray(b).view(np.float16).astype(np.float32)


def dequantize(data, at, kind, shape):
    n = int(np.prod(shape))
    elements, size = {0: (1, 4), 1: (1, 2), 3: (32, 20), 6: (32, 22), 8: (32, 34), 12: (256, 144), 14: (256, 210)}[kind]
    b = np.array(data[at:at + n // elements * size]).reshape(-1, size)
    if kind == 0:
        x = b.view(np.float32)
    elif kind == 1:
        x = halves(b)
    elif kind == 8:
        x = halves(b[:, :2]) * b[:, 2:].view(np.int8)
    elif kind == 3:
        x = halves(b[:, :2]) * np.hstack([b[:, 4:] & 15, b[:, 4:] >> 4]) + halves(b[:, 2:4])
    elif kind == 6:
        high = np.unpackbits(b[:, 2:6], axis=1, bitorder="little") << 4
        x = halves(b[:, :2]) * ((np.hstack([b[:, 6:] & 15, b[:, 6:] >> 4]) | high).astype(np.float32) - 16)
    elif kind == 12:
        s = b[:, 4:16].astype(np.int32)
        scale = np.hstack([s[:, :4] & 63, s[:, 8:] & 15 | s[:, :4] >> 6 << 4])
        least = np.hstack([s[:, 4:8] & 63, s[:, 8:] >> 4 | s[:, 4:8] >> 6 << 4])
        q = b[:, 16:].reshape(-1, 4, 32)
        q = np.stack([q & 15, q >> 4], 2).reshape(-1, 8, 32)
        x = (halves(b[:, :2]) * scale)[:, :, None] * q - (halves(b[:, 2:4]) * least)[:, :, None]
    else:
        low, high = b[:, :128].reshape(-1, 2, 2, 32), b[:, 128:192].reshape(-1, 2, 32)
        q = np.stack([low[:, :, k % 2] >> 4 * (k // 2) & 15 | (high >> 2 * k & 3) << 4 for k in range(4)], 2)
        scale = halves(b[:, 208:]) * b[:, 192:208].view(np.int8)
        x = scale[:, :, None] * (q.reshape(-1, 16, 16).astype(np.float32) - 32)
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32).reshape(shape))


# ---- quantizers; x [tokens, heads, D]

def half(x):
    return x.half().float()


def byte_up(x):
    """Rounds positive scales up to 4 mantissa bits."""
    m, e = torch.frexp(x)
    return torch.ldexp(torch.ceil(m * 32) / 32, e)


def byte_near(x):
    m, e = torch.frexp(x)
    return torch.ldexp(torch.round(m * 32) / 32, e)


def q8_rows(x):
    """Rows in blocks of 32 channels, the last one shorter, with a half scale."""
    blocks = []
    for block in x.split(32, -1):
        d = block.abs().amax(-1, keepdim=True) / 127
        blocks.append(half(half(d) * torch.where(d > 0, torch.round(block / torch.where(d > 0, d, 1.0)), 0.0)))
    return torch.cat(blocks, -1)


def codes(x, least, most, bits, byte, nearest=False):
    """Quantizes and dequantizes x as least + code * scale, given the groups' minima and maxima; byte or half scales.
    Returns the result and the scales."""
    top = 2.0 ** bits - 1
    if byte:
        span, reach = ((most - least) / (top - 0.125)).clamp(min=1e-12), (least.abs() * 4 / 126).clamp(min=1e-12)
        s = torch.maximum(byte_near(span), byte_up(reach)) if nearest else byte_up(torch.maximum(span, reach))
        zero = torch.floor(4 * least / s).clamp(-127, 126) / 4
        y = s * (torch.round(x / s - zero).clamp(min=torch.zeros_like(top * s), max=top * torch.ones_like(s)) + zero)
        return y, s
    least = half(least)
    s = half((most - least) / top)
    code = torch.where(s > 0, (x - least) / torch.where(s > 0, s, 1.0), 0.0)
    return torch.minimum(torch.round(code).clamp(min=0), top * torch.ones_like(code)) * s + least, s


def quantize_keys(k, how):
    t, heads, d = k.shape
    whole = t // how.group * how.group
    x = k[:whole].view(-1, how.group, heads, d)
    least, most = x.amin(1), x.amax(1)
    if how.sinks:
        least[0], most[0] = x[0, how.sinks:].amin(0), x[0, how.sinks:].amax(0)
    bits = torch.full((heads, d), float(how.k_bits), device=k.device)
    if how.refined:
        first = (R + how.group) // how.group  # groups of the first flush
        mean = (most - least)[:first].mean(0)
        bits.scatter_(1, mean.topk(d * how.refined // 8 // 4 * 4, dim=1).indices, 4.0)
    y, steps = codes(x, least[:, None], most[:, None], bits[None, None], how.byte, how.nearest)
    out = k.clone()
    out[how.sinks:whole] = y.reshape(whole, heads, d)[how.sinks:]
    return out, steps[:, 0]  # [group, head, D]


def hadamard(d, device):
    h = torch.ones(1, 1, device=device)
    while len(h) < d:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h / math.sqrt(d)


def quantize_values(v, how):
    t, heads, d = v.shape
    if how.values == "minmax":
        x = v.view(t, heads, -1, how.group)
        bits = torch.full((1,), float(how.v_bits), device=v.device)
        y = codes(x, x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), bits, how.byte)[0].view(t, heads, d)
    else:
        first = v[how.sinks:R + how.group]
        mu = half(first.median(0).values)
        before, after = (first ** 2).mean(-1).median(0).values, ((first - mu) ** 2).mean(-1).median(0).values
        mu = torch.where((after < 0.8 * before)[:, None], mu, 0.0) if "centred" in how.values else torch.zeros_like(mu)
        h = hadamard(d, v.device) if "rotated" in how.values else torch.eye(d, device=v.device)
        w = (v - mu) @ h
        step = 0.9957 * (w ** 2).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
        level = torch.floor(w / step).clamp(-2, 1) + 0.5
        wl = (w * level).sum(-1, keepdim=True)
        unbiased, least_squares = (w ** 2).sum(-1, keepdim=True) / wl, wl / (level ** 2).sum(-1, keepdim=True)
        s = unbiased if "unbiased" in how.values else (unbiased + least_squares) / 2 if "halfway" in how.values else least_squares
        y = mu + (byte_near(s) * level) @ h
    out = y.clone()
    out[:how.sinks] = v[:how.sinks]
    return out


class Recipe:
    """refined: eighths of the key channels with four bits. nearest: key scales to the nearest byte. correction: scores
    minus the effect of the keys' noise on the softmax. ring: type of exact rows, f16 or q8_0."""

    def __init__(self, name, k_bits=2, v_bits=2, group=G, sinks=SINKS, window=True, byte=True, refined=2,
                 values="centred rotated unbiased", nearest=False, correction=False, ring="f16"):
        self.name, self.k_bits, self.v_bits, self.group, self.sinks = name, k_bits, v_bits, group, sinks
        self.window, self.byte, self.refined, self.values = window, byte, refined, values
        self.nearest, self.correction, self.ring = nearest, correction, ring

    def bits(self, d):
        """Bits per element of quantized tokens, mean of keys and values."""
        scales = (16 if self.byte else 32) / self.group
        keys = self.k_bits + 2 * (d * self.refined // 8 // 4 * 4) / d + scales
        return (keys + self.v_bits + (scales if self.values == "minmax" else 8 / d)) / 2

    def flushed(self, t):
        """Number of quantized tokens, keys and values, among the oldest t when query t reads the cache."""
        if self.window:
            n = ((t - R) // self.group * self.group).clamp(min=0)
            return n, n
        return t // R * R, (t - R).clamp(min=0)

    def exact(self, x):
        """Rows as the ring and the sinks store them."""
        return torch.cat([x[:self.sinks], q8_rows(x[self.sinks:])]) if self.ring == "q8_0" else x

    def quantize(self, k, v):
        """Keys, the steps of their groups, values."""
        return *quantize_keys(k, self), quantize_values(v, self)


HALFWAY = "centred rotated halfway"
SECOND = dict(group=64, refined=3, nearest=True, values=HALFWAY, correction=True, ring="q8_0")
PAPER = dict(sinks=0, window=False, byte=False, refined=0, values="minmax")
RECIPES = [
    Recipe("kivi4-paper", 4, 4, **PAPER),
    Recipe("kivi4, first edition", 4, 4, refined=0, values="minmax"),
    Recipe("kivi2-paper", **PAPER),
    Recipe("  + sinks", **{**PAPER, "sinks": SINKS}),
    Recipe("  + window", **{**PAPER, "sinks": SINKS, "window": True}),
    Recipe("  + byte scales", refined=0, values="minmax"),
    Recipe("  + refined channels", values="minmax"),
    Recipe("  + centred, rotated, unbiased values = kivi2, first edition"),
    # Changes of the first edition.
    Recipe("kivi2 without sinks", sinks=0),
    Recipe("kivi2 without the window", window=False),
    Recipe("kivi2 with half scales for keys", byte=False),
    Recipe("kivi2 without refined channels", refined=0),
    Recipe("kivi2, values not centred", values="rotated unbiased"),
    Recipe("kivi2, values not rotated", values="centred unbiased"),
    Recipe("kivi2, values with least-squares scales", values="centred rotated"),
    Recipe("kivi2, nearest key scales", nearest=True),
    Recipe("kivi2, halfway value scales", values="centred rotated halfway"),
    Recipe("kivi2, score correction", correction=True),
    Recipe("kivi2, ring in q8_0", ring="q8_0"),
    Recipe("kivi2, groups of 64", group=64),
    Recipe("kivi2, groups of 64, 3/8 refined", group=64, refined=3),
    Recipe("  + nearest key scales", group=64, refined=3, nearest=True),
    Recipe("  + halfway value scales", group=64, refined=3, nearest=True, values=HALFWAY),
    Recipe("  + score correction", **{**SECOND, "ring": "f16"}),
    Recipe("  + ring in q8_0 = kivi2", **SECOND),
    Recipe("kivi4, groups of 64", 4, 4, group=64, refined=0, values="minmax"),
    Recipe("kivi4, nearest key scales", 4, 4, refined=0, values="minmax", nearest=True),
    Recipe("kivi4, score correction", 4, 4, refined=0, values="minmax", correction=True),
]


# ---- the model

class Model:
    def __init__(self, path, device):
        self.meta, weights = read_gguf(path)
        self.w = {name: x.to(device) for name, x in weights.items()}
        self.arch = self.meta["general.architecture"]
        get = lambda key, default=None: self.meta.get(f"{self.arch}.{key}", default)
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.d = get("attention.key_length", get("embedding_length") // self.heads)
        self.eps = get("attention.layer_norm_rms_epsilon", get("attention.layer_norm_epsilon"))
        self.base = get("rope.freq_base", 10000.0)

    def norm(self, x, name):
        if self.arch == "falcon":
            return torch.nn.functional.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.eps)
        return x * torch.rsqrt((x ** 2).mean(-1, keepdim=True) + self.eps) * self.w[name + ".weight"]

    def rope(self, x):
        t, _, d = x.shape
        angle = torch.outer(torch.arange(t, device=x.device).double(), self.base ** (-torch.arange(0, d, 2, device=x.device).double() / d))
        c, s = angle.cos().float()[:, None], angle.sin().float()[:, None]
        if self.arch == "falcon":
            a, b = x[..., :d // 2], x[..., d // 2:]
            return torch.cat([a * c - b * s, a * s + b * c], -1)
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)

    def attend(self, q, k, v, recipe):
        k, v = half(k), half(v)
        t = len(q)
        steps = None
        kq, vq = k, v
        if recipe:
            k, v = recipe.exact(k), recipe.exact(v)
            kq, steps, vq = recipe.quantize(k, v)
        j = torch.arange(t, device=q.device)
        repeat = self.heads // self.kv_heads
        k, v, kq, vq = (x.repeat_interleave(repeat, 1).transpose(0, 1) for x in (k, v, kq, vq))
        out = torch.empty(self.heads, t, self.d, device=q.device)
        for begin in range(0, t, 512):
            rows = torch.arange(begin, min(begin + 512, t), device=q.device)
            query = q[rows].transpose(0, 1) / math.sqrt(self.d)
            keys, values = recipe.flushed(rows) if recipe else (0 * rows, 0 * rows)
            coded = query @ kq.transpose(1, 2)
            if recipe and recipe.correction:
                by_group = steps.repeat_interleave(repeat, 1).permute(1, 2, 0) ** 2  # [head, D, group]
                noise = (query ** 2 @ by_group / 24).repeat_interleave(recipe.group, 2)
                coded[:, :, recipe.sinks:noise.shape[2]] -= noise[:, :, recipe.sinks:]
            scores = torch.where(j[None] < keys[:, None], coded, query @ k.transpose(1, 2))
            p = scores.masked_fill(j[None] > rows[:, None], -math.inf).softmax(-1)
            old = j[None] < values[:, None]
            out[:, rows] = torch.where(old, p, 0.0) @ vq + torch.where(old, 0.0, p) @ v
        return out.transpose(0, 1).reshape(t, -1)

    def logits(self, ids, recipe):
        w = self.w
        x = w["token_embd.weight"][ids]
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm")
            if self.arch == "falcon":
                qkv = (h @ w[b + "attn_qkv.weight"].T).view(len(ids), -1, self.d)
                q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], 1)
            else:
                q, k, v = ((h @ w[f"{b}attn_{n}.weight"].T).view(len(ids), -1, self.d) for n in "qkv")
            a = self.attend(self.rope(q), self.rope(k), v, recipe) @ w[b + "attn_output.weight"].T
            if self.arch == "falcon":
                f = torch.nn.functional.gelu(h @ w[b + "ffn_up.weight"].T) @ w[b + "ffn_down.weight"].T
                x = x + a + f
            else:
                x = x + a
                h = self.norm(x, b + "ffn_norm")
                f = torch.nn.functional.silu(h @ w[b + "ffn_gate.weight"].T) * (h @ w[b + "ffn_up.weight"].T)
                x = x + f @ w[b + "ffn_down.weight"].T
        x = self.norm(x, "output_norm")
        return x[len(ids) // 2 - 1:-1] @ w.get("output.weight", w["token_embd.weight"]).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("ids")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    model = Model(args.model, args.device)
    ids = [int(x) for x in open(args.ids).read().replace(",", " ").split()]
    windows = [torch.tensor(ids[i * args.context:(i + 1) * args.context], device=args.device) for i in range(args.windows)]
    assert len(windows[-1]) == args.context, f"the text has {len(ids)} tokens; {args.windows * args.context} are needed"

    rows = []
    with torch.no_grad():
        sums = {r: [0.0, [], 0] for r in RECIPES}
        loss_f16, scored = 0.0, 0
        for window in windows:
            target = window[args.context // 2:]
            plain = model.logits(window, None).log_softmax(-1)
            loss_f16 -= plain.gather(1, target[:, None]).double().sum().item()
            scored += len(target)
            for r in RECIPES:
                cached = model.logits(window, r).log_softmax(-1)
                total = sums[r]
                total[0] -= cached.gather(1, target[:, None]).double().sum().item()
                total[1].append((plain.exp() * (plain - cached)).sum(-1).double().cpu())
                total[2] += (plain.argmax(-1) == cached.argmax(-1)).sum().item()
        for recipe, (loss, parts, same) in sums.items():
            kl = torch.cat(parts).sort().values
            rows.append({"recipe": recipe.name, "bits": recipe.bits(model.d), "ppl_ratio": math.exp((loss - loss_f16) / scored), "kl": kl.mean().item(),
                         "kl_p99": kl[int(0.99 * (scored - 1))].item(), "kl_p999": kl[int(0.999 * (scored - 1))].item(), "kl_max": kl[-1].item(),
                         "same_top": same / scored})
    if args.json:
        print(json.dumps({"model": args.model, "text": args.ids, "context": args.context, "scored": scored, "ppl_f16": math.exp(loss_f16 / scored), "rows": rows}, indent=1))
        return
    print(f"{args.model.split('/')[-1]}, {args.ids.split('/')[-1]}: {scored} tokens scored in windows of {args.context}, f16 perplexity {math.exp(loss_f16 / scored):.3f}\n")
    print("| recipe | bits | perplexity over f16 | KL mean | KL 99% | KL 99.9% | KL max | same top |\n|" + "---|" * 8)
    for r in rows:
        print(f"| {r['recipe']} | {r['bits']:.2f} | {100 * (r['ppl_ratio'] - 1):+.1f}% | {r['kl']:.4f} | {r['kl_p99']:.3f} | {r['kl_p999']:.3f} | {r['kl_max']:.2f} | "
              f"{100 * r['same_top']:.1f}% |")


if __name__ == "__main__":
    main()
