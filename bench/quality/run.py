#!/usr/bin/env python3
"""Writes docs/quality.md, its figures and those of README: the effect of KV cache quantization on attention and tasks.

    bench/quality/run.py [--steps analyze,eval,compare] [MODEL.gguf ...]

Runs the command line (dotnet build -c Release src/LlamaKivi.Cli first) on the demo model and the given models, with the text in
bench/quality/corpus. Results of each step are kept in artifacts/quality, so that an interrupted run resumes.
"""
import argparse
import datetime
import json
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "artifacts" / "quality"
IMAGES = ROOT / "docs" / "images"
CLI = ["dotnet", str(ROOT / "src/LlamaKivi.Cli/bin/Release/net10.0/llama-kivi.dll")]
DEMO = ROOT / "models/kivi-demo-llama-37m-q4_k_m.gguf"
CORPUS = ROOT / "bench/quality/corpus/jargon-file-4.4.7.txt"
CACHES = "f16,q8_0,q4_0,kivi4,kivi2,kivi2-paper"
TASKS = {
    "retrieval": ["--metrics", "last_number", "-n", "12"],
    "copying": ["--metrics", "f1", "-n", "24"],
    "arithmetic": [],
    "reading": [],
}


def run(arguments, result):
    """JSON output of a command and its duration in seconds, cached in a file."""
    if not result.exists():
        start = time.time()
        out = subprocess.run([*CLI, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps({"seconds": time.time() - start, "result": json.loads(out)}))
    kept = json.loads(result.read_text())
    return kept["result"], kept["seconds"]


def percent(x, digits=1):
    return f"{100 * x:.{digits}f}"


def axes_table(result):
    rows = ["| stored | bits | group | bits per element | K or V | attention weights | attention output |", "|---|---|---|---|---|---|---|"]
    for v in result["variants"]:
        if "bits" in v:
            keys = v["name"].startswith("keys")
            weights = percent(v["weights_error"]) if keys else ""
            rows.append(f"| {v['name']} | {v['bits']} | {v['group']} | {v['bits_per_element']:.2f} | {percent(v['k_error' if keys else 'v_error'])} | {weights} | {percent(v['output_error'])} |")
    return "\n".join(rows)


def verdict(result):
    """Cases in which the paper's quantization axes give a smaller error of the attention output, and cases in which they do not."""
    def error(name, bits, group):
        return next((v["output_error"] for v in result["variants"] if v["name"] == name and v.get("bits") == bits and v.get("group") == group), None)

    said = []
    for side, better, worse in (("keys", "channel", "token"), ("values", "token", "channel")):
        pairs = [(b, g, error(f"{side} per {better}", b, g), error(f"{side} per {worse}", b, g)) for b in (2, 4) for g in (32, 64, 128)]
        pairs = [p for p in pairs if p[2] is not None and p[3] is not None]
        won = [p for p in pairs if p[2] < p[3]]
        ratios = [p[3] / p[2] for p in pairs]
        said.append(f"{side} per {better} against per {worse}: better in {len(won)} of {len(pairs)} (errors of the latter {min(ratios):.2f} to {max(ratios):.2f} times as large)")
    return "; ".join(said) + "."


def layer_table(result):
    caches = [v for v in result["variants"] if "bits" not in v]
    rows = ["| layer | first 4 keys' length | K outliers | V outliers | " + " | ".join(f"{v['name']} ({v['bits_per_element']:.2f} bits)" for v in caches) + " |", "|---" * (4 + len(caches)) + "|"]
    for layer in result["layers"]:
        errors = [percent(v["layers"][str(layer["layer"])]["output_error"]) for v in caches]
        outliers = layer["key_outliers"]
        most = f" (to {max(o['factor'] for o in outliers):.0f}x)" if outliers else ""
        rows.append(f"| {layer['layer']} | {layer['first_key_norm']:.2f}x | {len(outliers)}{most} | {len(layer['value_outliers'])} | " + " | ".join(errors) + " |")
    rows.append("| **all** | | | | " + " | ".join(f"**{percent(v['output_error'])}**" for v in caches) + " |")
    return "\n".join(rows)


def eval_rows(model, task, result, seconds):
    rows = []
    for metric in sorted({c["metric"] for c in result}):
        cells = [c for c in result if c["metric"] == metric]
        first = cells[0]
        text = [f"{percent(first['score'])} +- {percent(first['stderr'])}"]
        text += [f"{100 * c['difference']:+.1f} +- {percent(c['difference_stderr'])}" for c in cells[1:]]
        rows.append(f"| {model} | {task} | {metric} | {first['rows']} | " + " | ".join(text) + f" | {seconds:.0f} |")
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--steps", default="analyze,eval,compare")
    args = parser.parse_args()
    steps = args.steps.split(",")
    models = [DEMO, *args.models]
    IMAGES.mkdir(exist_ok=True)
    doctor = subprocess.run([*CLI, "doctor", "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    analyses, evals, seconds = [], [], {}
    for model in models:
        folder = WORK / model.stem
        if "analyze" in steps:
            maps = folder / "maps"
            result, took = run(["analyze", "-m", model, "-f", CORPUS, "-c", 1024, "--max-tokens", 4096, "-o", maps], folder / "analyze.json")
            analyses.append((model.stem, result))
            seconds[f"analyze {model.stem}"] = took
            middle = result["layers"][len(result["layers"]) // 2]["layer"]
            image = IMAGES / f"keys-values-{model.stem}.png"
            source = maps / f"analyze-layer-{middle}.png"
            if source.exists():
                image.write_bytes(source.read_bytes())
        if "eval" in steps:
            for task, options in TASKS.items():
                result, took = run(["eval", "-m", model, "--task", ROOT / f"bench/quality/tasks/{task}.jsonl", "--kv-cache", CACHES, "-c", 2048, "-o", folder / "eval", *options], folder / f"eval-{task}.json")
                evals += eval_rows(model.stem, task, result, took)
    if "compare" in steps:
        run(["compare", "-f", CORPUS, "--cases", 40, "-o", IMAGES], WORK / "compare.json")

    names = CACHES.split(",")
    parts = [f"""# Effect of KV cache quantization

Written by [bench/quality/run.py](../bench/quality/run.py): commit {commit}, {datetime.date.today()}, {json.loads(doctor)["cpu"]}. All figures below are its output.

## Method

`llama-kivi analyze` runs a text (4,096 tokens of the [corpus](../bench/quality/corpus/README.md), windows of 1,024) with an f16 cache and observes the queries, keys (after RoPE) and values of every layer. It quantizes the keys
and values in several ways and compares them with the originals. Relative errors are sqrt(sum of squared differences / sum of squares), over all tokens, heads and windows, in percent. Attention weights are softmax probabilities (the
paper's "attention scores"), the attention output is the weighted sum of the values; both for 32 queries per head, evenly spaced in the second half of a window. *Per channel*: groups of consecutive tokens in one channel. *Per token*:
groups of channels of one token. Rounding is asymmetric between a group's minimum and maximum; a group costs two half floats. Cache types are the engine's own, including rings and sinks: a window of 1,024 tokens
has its last 128 to 159 in full precision. Outliers are channels whose mean magnitude exceeds 4 times their head's median.

`llama-kivi eval` scores tasks written for this project ([bench/quality/tasks](../bench/quality/tasks/retrieval.jsonl), 210 rows): recall of a number in a text of 120 to 900 words, copying a line, sums with four choices after forty solved examples, questions
about one of six short texts with three choices. Almost all rows are longer than the residual ring of 128 tokens. Choices are scored by log-likelihood (`acc`) and by log-likelihood per character (`acc_norm`), as in the Language Model Evaluation Harness, from the first token that differs from the prompt's (docs/eval.md); numbers as in GSM8K; F1 as in SQuAD. Columns
after the first are paired differences from it, in points, with their standard errors. Eight rows are evaluated in parallel; with quantized weights that alone changes log-likelihoods by some hundredths (docs/eval.md), so
differences of one or two rows are not significant."""]
    if evals:
        parts.append("## Tasks\n\n| model | task | metric | rows | " + " | ".join(names) + " | s |\n" + "|---" * (5 + len(names)) + "|\n" + "\n".join(evals))
    parts.append((ROOT / "bench/quality/outliers.md").read_text().strip())
    for name, result in analyses:
        parts.append(f"""## {name}

![Magnitudes of keys and values](images/keys-values-{name}.png)

Errors in percent by axis, over all layers, {result["tokens"]} tokens, {seconds["analyze " + name]:.0f} s. At the attention output: {verdict(result)}

{axes_table(result)}

Error of the attention output in percent, by layer and cache type:

{layer_table(result)}""")
    (ROOT / "docs/quality.md").write_text("\n\n".join(parts) + "\n")
    print("docs/quality.md written")


if __name__ == "__main__":
    main()
