#!/usr/bin/env python3
"""Writes docs/quality.md, its figures and those of README: the effect of KV cache quantization on attention and tasks.

    bench/quality/run.py [--steps kl,generation,retrieval,eval,analyze,compare] [MODEL.gguf ...]

Runs the command line (dotnet build -c Release src/LlamaKivi.Cli first) on the demo model and the given models, with the text in
bench/quality/corpus. Results of each step are kept in artifacts/quality by commit and arguments, so that an interrupted run resumes
and no result of another commit is reported. On a machine without .NET or git, --cli names a command line compiled ahead of time
and --commit its commit.
"""
import argparse
import concurrent.futures
import datetime
import json
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "artifacts" / "quality"
CLI = ["dotnet", str(ROOT / "src/LlamaKivi.Cli/bin/Release/net10.0/llama-kivi.dll")]
DEMO = ROOT / "models/kivi-demo-llama-37m-q4_k_m.gguf"
CORPUS = ROOT / "bench/quality/corpus/jargon-file-4.4.7.txt"
CACHES = "f16,q8_0,q4_0,kivi4,kivi3,kivi2,kivi4-paper,kivi2-paper"
# Further entries of the KL table and its plot: the other types of llama.cpp, types of llama.cpp with kivi2's window and sinks, and settings of a type.
VARIANTS = ("f32,q5_1,q5_0,q4_1,iq4_nl,q8_0+residual=128+sink=4,q4_0+residual=128+sink=4,"
            "kivi4+group=32,kivi2+residual-type=f16,kivi2+residual=64")
STEPS = "kl,generation,retrieval,eval,analyze,compare"
TASKS = {
    "retrieval": ["--metrics", "last_number", "-n", "12"],
    "copying": ["--metrics", "f1", "-n", "24"],
    "arithmetic": [],
    "reading": [],
}


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def checked_out():
    return git("rev-parse", "--short", "HEAD") + ("-changed" if git("status", "--porcelain", "src", "bindings", "native") else "")


class Runner:
    """Runs the command line and keeps its results by commit, name and arguments."""

    def __init__(self, cli, commit):
        self.cli = cli
        self.commit = commit
        self.folder = WORK / commit

    def run(self, arguments, name):
        """JSON output of a command and its duration in seconds."""
        line = [str(a) for a in arguments]
        kept = self.folder / f"{name}.json"
        if kept.exists():
            before = json.loads(kept.read_text())
            if before["arguments"] == line:
                return before["result"], before["seconds"]
        start = time.time()
        out = subprocess.run([*self.cli, *line, "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.time() - start
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"arguments": line, "seconds": seconds, "result": json.loads(out)}))
        print(f"{name}: {seconds:.0f} s", flush=True)
        return json.loads(out), seconds


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


def kl_table(rows):
    table = ["| KV cache | bits per element | perplexity | against f16 | KL mean | KL 99% | KL 99.9% | KL max | same top token |", "|---" * 9 + "|"]
    for r in rows:
        against = "" if r["kv_cache"] == "f16" else f"{r['vs_f16_percent']:+.2f}%"
        kl = ["", "", "", "", ""] if r["kv_cache"] == "f16" else [
            f"{r['kl_mean']:.4f}", f"{r['kl_p99']:.3f}", f"{r['kl_p999']:.3f}", f"{r['kl_max']:.2f}", percent(r["same_top"]) + "%"]
        table.append(f"| {r['kv_cache']} | {r['bits_per_element']:.2f} | {r['ppl']:.3f} | {against} | " + " | ".join(kl) + " |")
    return "\n".join(table)


def share(low, middle, high):
    return f"{percent(middle, 0)}% ({percent(low, 0)} to {percent(high, 0)})"


def generation_table(rows):
    counts = [c["tokens"] for c in rows[0]["checkpoints"]]
    table = ["| KV cache | bits per element | " + " | ".join(f"same after {n}" for n in counts) + " | median same tokens | f16's perplexity | against f16's texts |", "|---" * (5 + len(counts)) + "|"]
    for r in rows:
        cells = [share(c["share_low"], c["share"], c["share_high"]) for c in r["checkpoints"]]
        against = "" if r["kv_cache"] == "f16" else f"{r['vs_f16_percent']:+.1f}% +- {r['vs_f16_percent_stderr']:.1f}"
        table.append(f"| {r['kv_cache']} | {r['bits_per_element']:.2f} | " + " | ".join(cells) + f" | {r['median_agreement']:.0f} | {r['ppl']:.3f} | {against} |")
    return "\n".join(table)


def retrieval_table(rows):
    depths = sorted({r["depth"] for r in rows})
    table = ["| KV cache | " + " | ".join(f"{d} tokens" for d in depths) + " |", "|---" * (1 + len(depths)) + "|"]
    for name in dict.fromkeys(r["kv_cache"] for r in rows):
        cells = [r for d in depths for r in rows if r["kv_cache"] == name and r["depth"] == d]
        table.append(f"| {name} | " + " | ".join(share(r["accuracy_low"], r["accuracy"], r["accuracy_high"]) for r in cells) + " |")
    return "\n".join(table)


def measure(runner, model, steps, args, images):
    """Results of the steps for one model, by step: (result, seconds); of eval: rows of the table."""
    name = model.stem
    folder = runner.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    results = {"name": name}
    if "kl" in steps:
        plot = folder / "kl-bits.png"
        entries = ",".join(filter(None, [args.types, args.variants]))
        results["kl"] = runner.run(["perplexity", "-m", model, "-f", CORPUS, "-c", args.context, "--max-tokens", args.tokens, "--kv-cache", entries, "--plot", plot], f"{name}/kl")
        (images / f"kl-bits-{name}.png").write_bytes(plot.read_bytes())
    if "generation" in steps:
        results["generation"] = runner.run(["generation", "-m", model, "-f", CORPUS, "--prompts", args.prompts, "-n", args.generated, "--kv-cache", args.types], f"{name}/generation")
    if "retrieval" in steps:
        results["retrieval"] = runner.run(["retrieval", "-m", model, "--depths", args.depths, "--cases", args.cases, "--kv-cache", args.types], f"{name}/retrieval")
    if "analyze" in steps:
        maps = folder / "maps"
        result, took = runner.run(["analyze", "-m", model, "-f", CORPUS, "-c", 1024, "--max-tokens", 4096, "-o", maps], f"{name}/analyze")
        results["analyze"] = result, took
        middle = result["layers"][len(result["layers"]) // 2]["layer"]
        source = maps / f"analyze-layer-{middle}.png"
        if source.exists():
            (images / f"keys-values-{name}.png").write_bytes(source.read_bytes())
    if "eval" in steps:
        rows = []
        for task, options in TASKS.items():
            result, took = runner.run(["eval", "-m", model, "--task", ROOT / f"bench/quality/tasks/{task}.jsonl", "--kv-cache", args.types, "-c", 2048,
                                       "-o", folder / "eval", *options], f"{name}/eval-{task}")
            rows += eval_rows(name, task, result, took)
        results["eval"] = rows
    return results


def of(results, step):
    """(name, result, seconds) of every model for which the step was run."""
    return [(r["name"], *r[step]) for r in results if step in r]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--steps", default=STEPS)
    parser.add_argument("--types", default=CACHES, help="KV cache types, f16 first")
    parser.add_argument("--variants", default=VARIANTS, help="further entries of the KL table and its plot")
    parser.add_argument("--context", type=int, default=4096, help="window of the KL step; its second half is scored")
    parser.add_argument("--tokens", type=int, default=122880, help="tokens of the KL step; half of them are scored")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--generated", type=int, default=1024, help="tokens written after each prompt")
    parser.add_argument("--depths", default="1024..4096")
    parser.add_argument("--cases", type=int, default=120, help="recall cases per depth")
    parser.add_argument("--cli", type=pathlib.Path, help="command line to run instead of the one built with dotnet")
    parser.add_argument("--commit", help="commit of the command line (default: the one checked out)")
    parser.add_argument("--jobs", type=int, default=1, help="models measured at once")
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs", help="folder for quality.md and images")
    args = parser.parse_args()
    steps = args.steps.split(",")
    unknown = set(steps) - set(STEPS.split(","))
    if unknown:
        parser.error(f"--steps: {', '.join(sorted(unknown))} is none of {STEPS}")
    names = args.types.split(",")
    models = [DEMO, *args.models]
    images = args.docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    cli = [str(args.cli)] if args.cli else CLI
    runner = Runner(cli, args.commit or checked_out())
    doctor, _ = runner.run(["doctor"], "doctor")
    processor = doctor["gpu"]["name"] if doctor["gpu"] else doctor["cpu"]

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda model: measure(runner, model, steps, args, images), models))
    if "compare" in steps:
        runner.run(["compare", "-f", CORPUS, "--cases", 40, "-o", images], "compare")

    parts = [f"""# Effect of KV cache quantization

Written by [bench/quality/run.py](../bench/quality/run.py): commit {runner.commit}, {datetime.date.today()}, {processor}. All figures below are its output but those of *Keys with large channels*, which outliers.py wrote.

## Method

`llama-kivi perplexity` reads windows of the corpus through the cache, in chunks no longer than the residual ring, and scores the second half of each. KL is the Kullback-Leibler divergence of the next-token distribution from that
of an f16 cache on the same tokens, in nats per token: its mean, its 99th and 99.9th percentiles and its greatest value. Bits per element are the mean of keys and values in quantized pages.

`llama-kivi generation` continues passages of the corpus greedily with each cache type. It shows errors that accumulate while writing: the share of texts that still equal f16's after a number of tokens, and the perplexity of the texts with an f16 cache,
relative to that of the texts written with f16. End-of-generation tokens are never chosen. Shares have Wilson's 95% intervals; differences have paired standard errors over the texts.

`llama-kivi retrieval` hides a number in texts of 1,024 tokens and more and asks for it; recall has Wilson's 95% interval.

`llama-kivi analyze` runs a text (4,096 tokens of the [corpus](../bench/quality/corpus/README.md), windows of 1,024) with an f16 cache and observes the queries, keys (after RoPE) and values of every layer. It quantizes the keys
and values in several ways and compares them with the originals. Relative errors are sqrt(sum of squared differences / sum of squares), over all tokens, heads and windows, in percent. Attention weights are softmax probabilities (the
paper's "attention scores"), the attention output is the weighted sum of the values; both for 32 queries per head, evenly spaced in the second half of a window. *Per channel*: groups of consecutive tokens in one channel. *Per token*:
groups of channels of one token. Rounding is asymmetric between a group's minimum and maximum; a group costs two half floats. Cache types are the engine's own, including rings and sinks: a window of 1,024 tokens
has its last 128 to 191 in 8 or 16 bits. Outliers are channels whose mean magnitude exceeds 4 times their head's median.

`llama-kivi eval` scores tasks written for this project ([bench/quality/tasks](../bench/quality/tasks/retrieval.jsonl), 210 rows): recall of a number in a text of 120 to 900 words, copying a line, sums with four choices after forty solved examples, questions
about one of six short texts with three choices. Almost all rows are longer than the residual ring of 128 tokens. Choices are scored by log-likelihood (`acc`) and by log-likelihood per character (`acc_norm`), as in the Language Model Evaluation Harness, from the first token that differs from the prompt's (docs/eval.md); numbers as in GSM8K; F1 as in SQuAD. Columns
after the first are paired differences from it, in points, with their standard errors. Differences of one or two rows
are not significant."""]
    for name, result, took in of(results, "kl"):
        parts.append(f"""## Divergence: {name}

![KL divergence over bits per element](images/kl-bits-{name}.png)

{result[0]["tokens"]:,} tokens of {result[0]["corpus"]} scored, windows of {args.context:,}; {took:.0f} s.

{kl_table(result)}""")
    for name, result, took in of(results, "generation"):
        parts.append(f"""## Long generation: {name}

{result[0]["prompts"]} prompts of {result[0]["prompt_tokens"]} tokens from {result[0]["corpus"]}, {result[0]["generated_tokens"]:,} tokens written after each; {took:.0f} s.

{generation_table(result)}""")
    for name, result, took in of(results, "retrieval"):
        parts.append(f"""## Recall: {name}

{result[0]["cases"]} cases per length; {took:.0f} s.

{retrieval_table(result)}""")
    evals = [row for r in results for row in r.get("eval", [])]
    if evals:
        parts.append("## Tasks\n\n| model | task | metric | rows | " + " | ".join(names) + " | s |\n" + "|---" * (5 + len(names)) + "|\n" + "\n".join(evals))
    parts.append((ROOT / "bench/quality/outliers.md").read_text().strip())
    for name, result, took in of(results, "analyze"):
        parts.append(f"""## {name}

![Magnitudes of keys and values](images/keys-values-{name}.png)

Errors in percent by axis, over all layers, {result["tokens"]} tokens, {took:.0f} s. At the attention output: {verdict(result)}

{axes_table(result)}

Error of the attention output in percent, by layer and cache type:

{layer_table(result)}""")
    (args.docs / "quality.md").write_text("\n\n".join(parts) + "\n")
    print(f"{args.docs / 'quality.md'} written")


if __name__ == "__main__":
    main()
