using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi perplexity`: perplexity of a text by KV cache type.</summary>
internal static class PerplexityCommand
{
    public const string Reference = "f16";

    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = $"Text; {TextInput.Hint}", Required = true };
        var context = NumberOptions.Whole("--ctx-size", "-c", "Window size in tokens (default: 2048, or the model's trained context size if smaller)", 4, NumberOptions.MostTokens);
        var types = new Option<string>("--kv-cache") { Description = $"KV cache types, such as f16,kivi2; {CommonOptions.VariantHint}", DefaultValueFactory = _ => "f16,kivi2" };
        var chunk = NumberOptions.Whole("--chunk", null, $"Tokens decoded at once, at most the residual and {PerplexityEvaluator.MaxChunkSize} (the default)", 1, int.MaxValue);
        var limit = NumberOptions.Whole("--max-tokens", null, "Use only the first N tokens", 1, int.MaxValue);
        var plot = new Option<string?>("--plot") { Description = "File for a plot of KL divergence over bits per element, .png or .svg (default: no plot)" };
        var command = new Command("perplexity", "Measure the perplexity of a text by KV cache type");
        CommonOptions.Add(command, [common.Model, file, context, types, chunk, limit, plot, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = Caches(common, parsed, parsed.GetValue(types)!);
            int longest = LongestChunk(caches);
            int step = parsed.GetValue(chunk) ?? longest;
            if (step > longest)
            {
                throw new UsageException($"--chunk is {step}; it must be at most {longest}, because longer chunks read their own tokens from the ring instead of from pages");
            }

            string path = parsed.GetValue(file)!;
            string? image = parsed.GetValue(plot);
            if (image is not null)
            {
                KlPlot.Check(image);
            }

            ModelParams parameters = common.Parameters(parsed);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            string text = await TextInput.ReadAsync(path, cancellationToken).ConfigureAwait(false);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            int window = parsed.GetValue(context) ?? Math.Min(2048, weights.ContextSize);
            int[] tokens = Tokens(weights, text, window, parsed.GetValue(limit));
            IReadOnlyList<PerplexityResult> results = await Terminal.WithProgress("perplexity", report => Task.Run(
                () => Measure(weights, parameters, caches, tokens, window, step, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(results, CorpusName(path));
            }
            else
            {
                Terminal.Out.WriteLine($"{Path.GetFileName(parameters.ModelPath)}, {CorpusName(path)}: {results[0].Tokens} tokens scored in windows of {window}; {CommonOptions.Processor(weights.GpuLayerCount)}");
                WriteTable(results);
            }

            if (image is not null)
            {
                KlPlot.Write(image, $"{Path.GetFileNameWithoutExtension(parameters.ModelPath)}, {results[0].Tokens} tokens", results);
                Console.Error.WriteLine($"plot: {image}");
                PlotFonts.WarnIfMissing();
            }

            return ExitCode.Ok;
        });
    }

    /// <summary>The listed caches, plus f16, the reference of the comparison.</summary>
    public static List<(string Name, KvCacheParams Params)> Caches(CommonOptions common, ParseResult parsed, string list)
    {
        List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, list);
        if (!caches.Exists(cache => cache.Name == Reference))
        {
            caches.Insert(0, (Reference, common.Settings(parsed, KvCacheParams.Parse(Reference)).WithoutUnused()));
        }

        return caches;
    }

    /// <summary>Greatest chunk in which every cache reads older tokens back from its pages.</summary>
    public static int LongestChunk(List<(string Name, KvCacheParams Params)> caches) => Math.Min(PerplexityEvaluator.MaxChunkSize, caches.Min(cache => cache.Params.Residual is > 0 and var residual ? residual : PerplexityEvaluator.MaxChunkSize));

    /// <summary>Name of a text in results.</summary>
    public static string CorpusName(string path) => path == TextInput.Standard ? "standard input" : Path.GetFileName(path);

    /// <summary>First tokens of a text, at least one window.</summary>
    public static int[] Tokens(LLamaWeights weights, string text, int window, int? limit)
    {
        int[] tokens = weights.Tokenizer.Encode(text, addBos: false, parseSpecial: false);
        tokens = limit < tokens.Length ? tokens[..limit.Value] : tokens;
        return window >= 4 && tokens.Length >= window
            ? tokens
            : throw new UsageException($"the text has {tokens.Length} tokens and a window {window}; use a longer text, or a smaller -c of at least 4");
    }

    /// <summary>Measures the perplexity of a text with each cache.</summary>
    public static IReadOnlyList<PerplexityResult> Measure(
        LLamaWeights weights, ModelParams parameters, List<(string Name, KvCacheParams Params)> caches, int[] tokens, int window, int step,
        IProgress<float> progress, CancellationToken cancellationToken) =>
        PerplexityEvaluator.Evaluate(
            weights, parameters, [.. caches.Select(cache => new NamedKvCache(cache.Name, cache.Params))], tokens,
            new PerplexityOptions { WindowSize = window, ChunkSize = step, Reference = Reference }, progress, cancellationToken);

    private static void WriteTable(IReadOnlyList<PerplexityResult> results)
    {
        Table table = new Table().Border(TableBorder.Simple)
            .AddColumns("KV cache", "perplexity", "+-", "vs f16", "KL mean", "KL 99%", "KL 99.9%", "KL max", "same top", "bits/element", "cache MiB", "seconds");
        foreach (PerplexityResult r in results)
        {
            table.AddRow(r.KvCache, Terminal.Number(r.Perplexity, 4), Terminal.Number(r.StandardError, 4),
                r.KvCache == Reference ? "" : r.VersusReferencePercent.ToString("+0.00;-0.00", CultureInfo.InvariantCulture) + "%",
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Mean, 5),
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Percentile99, 4),
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Percentile999, 3),
                r.KvCache == Reference ? "" : Terminal.Number(r.Divergence.Maximum, 3),
                r.KvCache == Reference ? "" : Terminal.Number(100 * r.Divergence.SameTop, 1) + "%",
                Terminal.Number(r.BitsPerElement, 3), Terminal.MiB(r.Usage.QuantizedBytes + r.Usage.ExactBytes), Terminal.Number(r.Seconds, 1));
        }

        Terminal.Out.Write(table);
    }

    private static void WriteJson(IReadOnlyList<PerplexityResult> results, string corpus) => Json.WriteRows(results, (writer, r) =>
    {
        writer.WriteString("kv_cache", r.KvCache);
        writer.WriteString("corpus", corpus);
        writer.WriteNumber("ppl", r.Perplexity);
        writer.WriteNumber("ppl_stderr", r.StandardError);
        writer.WriteNumber("vs_f16_percent", r.VersusReferencePercent);
        writer.WriteNumber("kl_mean", r.Divergence.Mean);
        writer.WriteNumber("kl_p99", r.Divergence.Percentile99);
        writer.WriteNumber("kl_p999", r.Divergence.Percentile999);
        writer.WriteNumber("kl_max", r.Divergence.Maximum);
        writer.WriteNumber("same_top", r.Divergence.SameTop);
        writer.WriteNumber("tokens", r.Tokens);
        writer.WriteNumber("bits_per_element", r.BitsPerElement);
        writer.WriteNumber("cache_bytes", r.Usage.QuantizedBytes + r.Usage.ExactBytes);
        writer.WriteNumber("seconds", r.Seconds);
    });
}
