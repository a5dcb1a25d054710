using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using ScottPlot;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi compare`: memory, speed, perplexity and recall by KV cache type, as a table and a plot.</summary>
internal static class CompareCommand
{
    private const int GeneratedTokens = 64;
    private const int Repetitions = 3;

    private sealed record Row(PerplexityResult Quality, double Speed, double SpeedAtDepth, double CacheMiB, RetrievalResult Recall);

    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = $"Text; {TextInput.Hint}", Required = true };
        var context = NumberOptions.Whole("--ctx-size", "-c", "Perplexity window size in tokens", 4, NumberOptions.MostTokens, 2048);
        var limit = NumberOptions.Whole("--max-tokens", null, "Use only the first N tokens of the text", 1, int.MaxValue, 16384);
        var depth = NumberOptions.Whole("--n-depth", "-d", "Tokens in the cache for the speed test, and per text for the recall test", 1, CommonOptions.MostListed, 3072);
        var cases = NumberOptions.Whole("--cases", null, "Number of recall cases", 1, int.MaxValue, 20);
        var types = new Option<string>("--kv-cache") { Description = $"KV cache types; {CommonOptions.VariantHint}", DefaultValueFactory = _ => "f16,q8_0,q4_0,kivi4,kivi2" };
        var output = new Option<string?>("--output", "-o") { Description = "Folder for compare.png (default: no plot)" };
        var command = new Command("compare", "Compare KV cache types: memory, speed, perplexity, KL divergence, recall");
        CommonOptions.Add(command, [common.Model, file, context, limit, depth, cases, types, output, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = PerplexityCommand.Caches(common, parsed, parsed.GetValue(types)!);
            int window = parsed.GetValue(context);
            int deep = parsed.GetValue(depth);
            int count = parsed.GetValue(cases);
            int step = PerplexityCommand.LongestChunk(caches);
            string? folder = parsed.GetValue(output);
            if (folder is not null)
            {
                Directory.CreateDirectory(folder);
            }

            ModelParams parameters = common.Parameters(parsed);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            string path = parsed.GetValue(file)!;
            string text = await TextInput.ReadAsync(path, cancellationToken).ConfigureAwait(false);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            int[] tokens = PerplexityCommand.Tokens(weights, text, window, parsed.GetValue(limit));
            IReadOnlyList<PerplexityResult> quality = await Terminal.WithProgress("perplexity", report => Task.Run(
                () => PerplexityCommand.Measure(weights, parameters, caches, tokens, window, step, report, cancellationToken),
                cancellationToken)).ConfigureAwait(false);
            var rows = new List<Row>();
            foreach (((string name, KvCacheParams cache), PerplexityResult result) in caches.Zip(quality))
            {
                ModelParams bench = parameters with { KvCache = cache, SeqMax = 2, ContextSize = (uint)SpeedBenchmark.ContextSizeFor(deep, GeneratedTokens) };
                async Task<SpeedBenchmarkResult> SpeedAt(int at)
                {
                    var options = new SpeedBenchmarkOptions { Depth = at, PromptTokens = 0, GeneratedTokens = GeneratedTokens, Repetitions = Repetitions };
                    return (await Terminal.WithProgress($"{name}: speed @ {at}", report => Task.Run(
                        () => SpeedBenchmark.Run(weights, bench, options, report, cancellationToken), cancellationToken)).ConfigureAwait(false))[0];
                }

                SpeedBenchmarkResult shallow = await SpeedAt(0).ConfigureAwait(false);
                SpeedBenchmarkResult full = await SpeedAt(deep).ConfigureAwait(false);
                using LLamaContext recall = weights.CreateContext(parameters with { KvCache = cache, ContextSize = (uint)deep + 64 });
                RetrievalResult found = await Terminal.WithProgress($"{name}: recall", report => Task.Run(
                    () => RetrievalCommand.Measure(recall, new RetrievalOptions { Depth = deep, Cases = count, ChunkSize = step }, report, cancellationToken), cancellationToken)).ConfigureAwait(false);
                rows.Add(new Row(result, shallow.TokensPerSecond, full.TokensPerSecond, full.CacheBytes / (double)(1 << 20), found));
            }

            if (parsed.GetValue(common.Json))
            {
                WriteJson(rows, PerplexityCommand.CorpusName(path), deep);
            }
            else
            {
                WriteTable(rows, $"{Path.GetFileName(parameters.ModelPath)}, {PerplexityCommand.CorpusName(path)}, {CommonOptions.Processor(weights.GpuLayerCount)}", deep);
            }

            if (folder is not null)
            {
                string plot = Path.Combine(folder, "compare.png");
                WritePlot(rows, Path.GetFileName(parameters.ModelPath), deep, plot);
                Console.Error.WriteLine($"plot: {plot}");
                PlotFonts.WarnIfMissing();
            }

            return ExitCode.Ok;
        });
    }

    private static void WriteTable(List<Row> rows, string what, int depth)
    {
        Terminal.Out.WriteLine($"{what}; speed and memory at depth {depth}, {rows[0].Quality.Tokens} tokens scored, {rows[0].Recall.Cases} recall cases");
        Table table = new Table().Border(TableBorder.Markdown).AddColumns(
            "KV cache", "bits", "cache MiB", "tg t/s", "tg t/s deep", "perplexity", "vs f16", "KL mean", "KL 99%", "KL 99.9%", "same top", "recall", "95% interval");
        foreach (Row r in rows)
        {
            KlDivergence kl = r.Quality.Divergence;
            table.AddRow(r.Quality.KvCache, Terminal.Number(r.Quality.BitsPerElement, 3), Terminal.Number(r.CacheMiB), Terminal.Number(r.Speed, 0),
                Terminal.Number(r.SpeedAtDepth, 0), Terminal.Number(r.Quality.Perplexity, 3),
                r.Quality.VersusReferencePercent.ToString("+0.00;-0.00;0.00", CultureInfo.InvariantCulture) + "%", Terminal.Number(kl.Mean, 4), Terminal.Number(kl.Percentile99, 3), Terminal.Number(kl.Percentile999, 3),
                Terminal.Number(100 * kl.SameTop, 1) + "%", Terminal.Number(100 * r.Recall.Accuracy, 0) + "%", RetrievalCommand.Range(r.Recall));
        }

        Terminal.Out.Write(table);
    }

    private static void WriteJson(List<Row> rows, string corpus, int depth) => Json.WriteRows(rows, (writer, r) =>
    {
        writer.WriteString("kv_cache", r.Quality.KvCache);
        writer.WriteString("corpus", corpus);
        writer.WriteNumber("tokens", r.Quality.Tokens);
        writer.WriteNumber("bits_per_element", r.Quality.BitsPerElement);
        writer.WriteNumber("depth", depth);
        writer.WriteNumber("cache_mib", r.CacheMiB);
        writer.WriteNumber("tokens_per_second", r.Speed);
        writer.WriteNumber("tokens_per_second_at_depth", r.SpeedAtDepth);
        writer.WriteNumber("ppl", r.Quality.Perplexity);
        writer.WriteNumber("ppl_stderr", r.Quality.StandardError);
        writer.WriteNumber("vs_f16_percent", r.Quality.VersusReferencePercent);
        writer.WriteNumber("kl_mean", r.Quality.Divergence.Mean);
        writer.WriteNumber("kl_p99", r.Quality.Divergence.Percentile99);
        writer.WriteNumber("kl_p999", r.Quality.Divergence.Percentile999);
        writer.WriteNumber("kl_max", r.Quality.Divergence.Maximum);
        writer.WriteNumber("same_top", r.Quality.Divergence.SameTop);
        writer.WriteNumber("recall", r.Recall.Accuracy);
        writer.WriteNumber("recall_stderr", r.Recall.StandardError);
        writer.WriteNumber("recall_low", r.Recall.Interval.Low);
        writer.WriteNumber("recall_high", r.Recall.Interval.High);
    });

    // Left: perplexity by bits per element. Right: decode speed at the depth.
    private static void WritePlot(List<Row> rows, string model, int depth, string path)
    {
        var multiplot = new Multiplot();
        multiplot.AddPlots(2);
        multiplot.Layout = new ScottPlot.MultiplotLayouts.Columns();

        Plot quality = multiplot.GetPlot(0);
        foreach (Row r in rows)
        {
            double bits = r.Quality.BitsPerElement;
            quality.Add.Marker(bits, r.Quality.VersusReferencePercent, MarkerShape.FilledCircle, 10);
            ScottPlot.Plottables.Text label = quality.Add.Text(r.Quality.KvCache, bits, r.Quality.VersusReferencePercent);
            label.OffsetX = 8;
            label.OffsetY = -18;
        }

        quality.Title(model);
        quality.XLabel("bits per element");
        quality.YLabel("perplexity above f16, %");
        quality.Axes.Margins(0.2, 0.2);

        Plot speed = multiplot.GetPlot(1);
        speed.Add.Bars(rows.Select((r, i) => new Bar { Position = i, Value = r.SpeedAtDepth }).ToArray());
        speed.Axes.Bottom.SetTicks([.. rows.Select((_, i) => (double)i)], [.. rows.Select(r => r.Quality.KvCache)]);
        speed.Title($"decode at depth {depth}");
        speed.YLabel("tokens per second");
        speed.Axes.Margins(bottom: 0);
        WholeFile.Write(path, file => file.Write(multiplot.Render(1200, 450).GetImageBytes(ImageFormat.Png)));
    }
}
