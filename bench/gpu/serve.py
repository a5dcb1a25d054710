#!/usr/bin/env python3
"""Model file and load for serve.sh.

serve.py model PATH [LAYERS]: writes a GGUF file of the Llama-3-8B shape with a vocabulary and without weights, which the engine fills with random numbers. Sparse.
serve.py load PORT STREAMS PROMPT GENERATE: sends completions of PROMPT token ids at once and counts streamed tokens while all of them decode; prints a line of JSON.
"""
import asyncio
import json
import struct
import sys
import time

VOCABULARY = 128256
WIDTH, KV, FEED = 4096, 1024, 14336
F32, Q4_K, Q6_K = (0, 1, 4), (12, 256, 144), (14, 256, 210)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def field(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def strings(values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(text(value) for value in values)


def numbers(kind, code, values):
    return struct.pack("<IQ", kind, len(values)) + struct.pack(f"<{len(values)}{code}", *values)


def tensors(layers):
    yield "token_embd.weight", (WIDTH, VOCABULARY), Q4_K
    yield "output.weight", (WIDTH, VOCABULARY), Q6_K
    yield "output_norm.weight", (WIDTH,), F32
    for i in range(layers):
        wide = Q6_K if i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2 else Q4_K
        for name, shape, kind in (
            ("attn_norm", (WIDTH,), F32), ("attn_q", (WIDTH, WIDTH), Q4_K), ("attn_k", (WIDTH, KV), Q4_K), ("attn_v", (WIDTH, KV), wide),
            ("ffn_norm", (WIDTH,), F32), ("ffn_gate", (WIDTH, FEED), Q4_K), ("attn_output", (WIDTH, WIDTH), Q4_K),
            ("ffn_up", (WIDTH, FEED), Q4_K), ("ffn_down", (FEED, WIDTH), wide),
        ):
            yield f"blk.{i}.{name}.weight", shape, kind


def write_model(path, layers):
    # Every token but the first three is a word, so that every sampled token streams a piece of text.
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + [f"\u2581w{i}" for i in range(VOCABULARY - 259)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259)
    u32, f32, string, array, boolean = 4, 6, 8, 9, 7
    fields = [
        field("general.architecture", string, text("llama")), field("general.name", string, text("llama3-8b")), field("general.synthetic", boolean, b"\1"),
        *(field(f"llama.{key}", u32, struct.pack("<I", value)) for key, value in (
            ("vocab_size", VOCABULARY), ("context_length", 8192), ("embedding_length", WIDTH), ("block_count", layers), ("feed_forward_length", FEED),
            ("attention.head_count", 32), ("attention.head_count_kv", 8))),
        field("llama.rope.freq_base", f32, struct.pack("<f", 500000)), field("llama.attention.layer_norm_rms_epsilon", f32, struct.pack("<f", 1e-5)),
        field("tokenizer.ggml.model", string, text("llama")), field("tokenizer.ggml.tokens", array, strings(tokens)),
        field("tokenizer.ggml.scores", array, numbers(f32, "f", [-float(i) for i in range(VOCABULARY)])),
        field("tokenizer.ggml.token_type", array, numbers(5, "i", kinds)),
        *(field(f"tokenizer.ggml.{key}_token_id", u32, struct.pack("<I", value)) for key, value in (("unknown", 0), ("bos", 1), ("eos", 2))),
    ]
    infos, offset = [], 0
    for name, shape, (number, elements, size) in tensors(layers):
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset))
        count = 1
        for n in shape:
            count *= n
        offset += (count // elements * size + 31) // 32 * 32
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(fields)) + b"".join(fields) + b"".join(infos))
        file.truncate((file.tell() + 31) // 32 * 32 + offset)


class Stream:
    def __init__(self):
        self.times = []  # of tokens


async def request(port, index, prompt, generate, stream):
    ids = [300 + (index * 977 + i * 31) % 100000 for i in range(prompt)]
    body = json.dumps({"prompt": ids, "max_tokens": generate, "temperature": 0, "stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode())
    async for line in reader:
        if line.startswith(b"data: {") and b'"finish_reason":null' in line.replace(b" ", b""):
            stream.times.append(time.perf_counter())
    writer.close()


async def metrics(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    found = {}
    for line in (await reader.read()).decode().splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name.endswith(("_sum", "_count")):
            for part, prefix in (("step_duration", ""), ("copy_duration", "copies_")):
                if part in name:
                    key = prefix + name.rsplit("_", 1)[1]
                    found[key] = found.get(key, 0) + float(line.rsplit(" ", 1)[1])
    writer.close()
    return found


async def load(port, streams, prompt, generate):
    before = await metrics(port)
    all_streams = [Stream() for _ in range(streams)]
    start = time.perf_counter()
    await asyncio.gather(*(request(port, i + 1, prompt, generate, stream) for i, stream in enumerate(all_streams)))
    end = time.perf_counter()
    after = await metrics(port)
    begin = max(stream.times[0] for stream in all_streams)
    finish = min(stream.times[-1] for stream in all_streams)
    counted = sum(1 for stream in all_streams for moment in stream.times if begin < moment <= finish)
    def grown(key):
        return after.get(key, 0) - before.get(key, 0)

    steps = grown("count")
    print(json.dumps({
        "streams": streams, "tokens": sum(len(stream.times) for stream in all_streams), "seconds": round(end - start, 3),
        "first_token_ms": round(1000 * sorted(stream.times[0] - start for stream in all_streams)[streams // 2], 1),
        "decode_tokens_per_second": round(counted / (finish - begin), 1) if finish > begin else None,
        "ms_per_token": round(1000 * (finish - begin) / (counted / streams), 3) if counted else None,
        "mean_step_ms": round(1000 * grown("sum") / steps, 3) if steps else None, "steps": steps,
        "copies": grown("copies_count"), "copies_ms": round(1000 * grown("copies_sum"), 1),  # marks and saved prefixes
    }))


if __name__ == "__main__":
    if sys.argv[1] == "model":
        write_model(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 32)
    else:
        asyncio.run(load(*(int(value) for value in sys.argv[2:6])))
