using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Numerics.Tensors;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi perplexity`: how well a model predicts a text, by KV cache type.</summary>
/// <remarks>
/// Streaming: the text goes in in chunks no longer than the residual, so that every earlier token is read back from the cache.
/// Windows of n tokens do not overlap; the first half of each is context only.
/// </remarks>
internal static class PerplexityCommand
{
    public const int LongestChunk = 128;

    public const string Reference = "f16";

    public sealed record Result(
        string KvCache, double Perplexity, double StandardError, int Tokens, Divergence Divergence, double VersusReferencePercent, CacheUsage Usage, double Seconds);

    // Of the distributions of the next token, from those with an f16 cache.
    public sealed record Divergence(double Mean, double Percentile99, double SameTop);

    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = $"Text; {TextInput.Hint}", Required = true };
        var context = NumberOptions.Whole("--ctx-size", "-c", "Tokens of a window (default: 2048, or what the model was trained for)", 4, NumberOptions.MostTokens);
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "f16,kivi2" };
        var chunk = NumberOptions.Whole("--chunk", null, $"Tokens read at once, at most the residual and {LongestChunk} (the default); 1: token by token", 1, int.MaxValue);
        var limit = NumberOptions.Whole("--max-tokens", null, "Use no more than the first N tokens", 1, int.MaxValue);
        var command = new Command("perplexity", "Measure how well a model predicts a text, by KV cache type");
        CommonOptions.Add(command, common.Model, file, context, types, chunk, limit, common.Threads, common.GpuLayers, common.Group, common.Residual, common.Sinks, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = Caches(common, parsed, parsed.GetValue(types)!);
            int longest = Math.Min(LongestChunk, parsed.GetValue(common.Residual));
            int step = parsed.GetValue(chunk) ?? longest;
            if (step > longest)
            {
                throw new UsageException($"--chunk is {step}; above {longest} a chunk would hide the cache");
            }

            ModelParams parameters = common.Parameters(parsed);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            string text = await TextInput.ReadAsync(parsed.GetValue(file)!, cancellationToken).ConfigureAwait(false);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            int window = parsed.GetValue(context) ?? Math.Min(2048, weights.ContextSize);
            int[] tokens = Tokens(weights, text, window, parsed.GetValue(limit));
            parameters.ContextSize = (uint)window;
            List<Result> results = await Terminal.WithProgress("perplexity", report => Task.Run(
                () => Measure(weights, parameters, caches, tokens, step, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(results);
            }
            else
            {
                WriteTable(results, CommonOptions.Processor(weights.GpuLayerCount));
            }

            return ExitCode.Ok;
        });
    }

    /// <summary>The caches of a list, with f16, which the others are held against.</summary>
    public static List<(string Name, KvCacheParams Params)> Caches(CommonOptions common, ParseResult parsed, string list)
    {
        List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, list);
        if (!caches.Exists(cache => cache.Name == Reference))
        {
            caches.Insert(0, (Reference, common.Cache(parsed, Reference, Reference)));
        }

        return caches;
    }

    /// <summary>The first tokens of a text, at least a window of them.</summary>
    public static int[] Tokens(LLamaWeights weights, string text, int window, int? limit)
    {
        int[] tokens = weights.Tokenizer.Encode(text, addBos: false, parseSpecial: false);
        tokens = limit < tokens.Length ? tokens[..limit.Value] : tokens;
        return window >= 4 && tokens.Length >= window
            ? tokens
            : throw new UsageException($"the text has {tokens.Length} tokens and a window {window}; give a longer text, or a smaller -c of at least 4");
    }

    // All caches go through the text side by side, so that only one chunk's distributions are held.
    public static List<Result> Measure(
        LLamaWeights weights, ModelParams parameters, List<(string Name, KvCacheParams Params)> caches, int[] tokens, int step,
        IProgress<float> progress, CancellationToken cancellationToken)
    {
        var runs = new List<CacheRun>();
        try
        {
            foreach ((string name, KvCacheParams cache) in caches.OrderByDescending(cache => cache.Name == Reference))
            {
                parameters.KvCache = cache;
                runs.Add(new CacheRun(name, weights.CreateContext(parameters)));
            }

            Tokenizer tokenizer = weights.Tokenizer;
            int window = (int)parameters.ContextSize!.Value;
            int windows = tokens.Length / window;
            var outputs = new byte[step];
            for (int w = 0; w < windows; w++)
            {
                int[] part = tokens[(w * window)..((w + 1) * window)];
                if (tokenizer.AddBos && tokenizer.BosId is { } bos)
                {
                    part[0] = bos;
                }

                runs.ForEach(run => run.Clear());
                for (int at = 0; at < window; at += step)
                {
                    int n = Math.Min(step, window - at);
                    for (int i = 0; i < n; i++)
                    {
                        // Token t predicts token t + 1, and the second half is scored.
                        outputs[i] = at + i + 1 >= window / 2 && at + i + 1 < window ? (byte)1 : (byte)0;
                    }

                    runs.ForEach(run => run.Read(part.AsSpan(at, n), outputs.AsSpan(0, n), cancellationToken));
                    for (int i = 0; i < n; i++)
                    {
                        if (outputs[i] != 0)
                        {
                            runs.ForEach(run => run.Score(i, part[at + i + 1], runs[0]));
                        }
                    }

                    progress.Report((float)(((double)w * window) + at + n) / ((float)windows * window));
                }
            }

            double reference = runs[0].Perplexity;
            return [.. caches.Select(cache => runs.First(run => run.Name == cache.Name).ToResult(reference))];
        }
        finally
        {
            runs.ForEach(run => run.Dispose());
        }
    }

    // One cache type's way through the text.
    private sealed class CacheRun(string name, LLamaContext context) : IDisposable
    {
        private readonly float[] _logits = new float[context.Handle.VocabularySize];
        private readonly float[] _logProbabilities = new float[context.Handle.VocabularySize];
        private readonly float[] _probabilities = new float[context.Handle.VocabularySize];
        private readonly float[] _scratch = new float[context.Handle.VocabularySize];
        private readonly List<double> _losses = [];
        private readonly List<double> _divergences = [];
        private int _top;
        private long _sameTop;
        private double _seconds;

        public string Name => name;

        public double Perplexity => Math.Exp(_losses.Average());

        public void Clear() => context.Handle.SeqTruncate(0, 0);

        public void Read(ReadOnlySpan<int> tokens, ReadOnlySpan<byte> outputs, CancellationToken cancellationToken)
        {
            long start = Stopwatch.GetTimestamp();
            context.Handle.Decode(tokens, outputs: outputs, cancellationToken: cancellationToken);
            _seconds += Stopwatch.GetElapsedTime(start).TotalSeconds;
        }

        // The reference has scored the same token before.
        public void Score(int index, int next, CacheRun reference)
        {
            context.Handle.CopyLogits(index, _logits);  // all rows of a batch would take as much again as the engine has for them
            Span<float> logits = _logits;
            float max = TensorPrimitives.Max<float>(logits);
            TensorPrimitives.Subtract(logits, max, _logProbabilities);
            TensorPrimitives.Exp(_logProbabilities, _probabilities);
            float sum = TensorPrimitives.Sum<float>(_probabilities);
            TensorPrimitives.Subtract(_logProbabilities, MathF.Log(sum), _logProbabilities);
            TensorPrimitives.Divide(_probabilities, sum, _probabilities);
            _losses.Add(-_logProbabilities[next]);
            _top = TensorPrimitives.IndexOfMax<float>(logits);
            TensorPrimitives.Subtract(reference._logProbabilities, _logProbabilities, _scratch);
            _divergences.Add(TensorPrimitives.Dot<float>(reference._probabilities, _scratch));
            _sameTop += _top == reference._top ? 1 : 0;
        }

        public Result ToResult(double reference)
        {
            double mean = _losses.Average();
            double variance = _losses.Sum(loss => (loss - mean) * (loss - mean)) / Math.Max(1, _losses.Count - 1);
            double[] sorted = [.. _divergences.Order()];
            return new Result(
                name, Perplexity, Perplexity * Math.Sqrt(variance / _losses.Count), _losses.Count,
                new Divergence(sorted.Average(), sorted[(int)(0.99 * (sorted.Length - 1))], (double)_sameTop / sorted.Length),
                (Perplexity / reference - 1) * 100, context.KvCacheUsage, _seconds);
        }

        public void Dispose() => context.Dispose();
    }

    public static double Bits(CacheUsage usage) => (usage.KeyBitsPerElement + usage.ValueBitsPerElement) / 2;

    private static void WriteTable(List<Result> results, string processor)
    {
        Table table = new Table().Border(TableBorder.Simple)
            .AddColumns("KV cache", "perplexity", "+-", "vs f16", "KL mean", "KL 99%", "same top", "tokens scored", "bits/element", "cache MiB", "seconds");
        foreach (Result r in results)
        {
            table.AddRow(r.KvCache, Terminal.Number(r.Perplexity, 4), Terminal.Number(r.StandardError, 4),
                r.KvCache == Reference ? "" : r.VersusReferencePercent.ToString("+0.00;-0.00", CultureInfo.InvariantCulture) + "%",
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Mean, 5),
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Percentile99, 4),
                r.KvCache == Reference ? "" : Terminal.Number(100 * r.Divergence.SameTop, 1) + "%",
                r.Tokens.ToString(CultureInfo.InvariantCulture), Terminal.Number(Bits(r.Usage), 3),
                Terminal.MiB(r.Usage.QuantizedBytes + r.Usage.ExactBytes), Terminal.Number(r.Seconds, 1));
        }

        Terminal.Out.WriteLine(processor);
        Terminal.Out.Write(table);
    }

    private static void WriteJson(List<Result> results) => Json.WriteRows(results, (writer, r) =>
    {
        writer.WriteString("kv_cache", r.KvCache);
        writer.WriteNumber("ppl", r.Perplexity);
        writer.WriteNumber("ppl_stderr", r.StandardError);
        writer.WriteNumber("vs_f16_percent", r.VersusReferencePercent);
        writer.WriteNumber("kl_mean", r.Divergence.Mean);
        writer.WriteNumber("kl_p99", r.Divergence.Percentile99);
        writer.WriteNumber("same_top", r.Divergence.SameTop);

        writer.WriteNumber("tokens", r.Tokens);
        writer.WriteNumber("bits_per_element", Bits(r.Usage));
        writer.WriteNumber("cache_bytes", r.Usage.QuantizedBytes + r.Usage.ExactBytes);
        writer.WriteNumber("seconds", r.Seconds);
    });
}
