using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi retrieval`: recall of a number hidden in a long text, by length and KV cache type.</summary>
internal static class RetrievalCommand
{
    private sealed record Row(string KvCache, RetrievalResult Result);

    public static Command Create()
    {
        var common = new CommonOptions();
        var depths = new Option<string>("--depths") { Description = "Text lengths in tokens, such as 512,1024 or 512..4096 (doubling)", DefaultValueFactory = _ => "512..2048" };
        var count = NumberOptions.Whole("--cases", null, "Number of cases per length", 1, int.MaxValue, 20);
        var seed = NumberOptions.Whole("--seed", "-s", "Seed of the texts and numbers", 0, int.MaxValue, 1);
        var types = new Option<string>("--kv-cache") { Description = $"KV cache types, such as f16,kivi2; {CommonOptions.VariantHint}", DefaultValueFactory = _ => "f16,kivi2" };
        var command = new Command("retrieval", "Measure the recall of a number hidden in a long text, by length and KV cache type");
        CommonOptions.Add(command, [common.Model, depths, count, seed, types, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            int[] lengths = ReadDepths(parsed.GetValue(depths)!);
            int cases = parsed.GetValue(count);
            int step = PerplexityCommand.LongestChunk(caches);
            ModelParams parameters = common.Parameters(parsed);
            parameters.ContextSize = (uint)lengths.Max() + 64;
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            var rows = new List<Row>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                parameters.KvCache = cache;
                using LLamaContext context = weights.CreateContext(parameters);
                foreach (int depth in lengths)
                {
                    var options = new RetrievalOptions { Depth = depth, Cases = cases, Seed = parsed.GetValue(seed), ChunkSize = step };
                    rows.Add(new Row(name, await Terminal.WithProgress($"{name} @ {depth}", report => Task.Run(
                        () => Measure(context, options, report, cancellationToken), cancellationToken)).ConfigureAwait(false)));
                }
            }

            Write(rows, parsed.GetValue(common.Json));
            return ExitCode.Ok;
        });
    }

    private static int[] ReadDepths(string text)
    {
        if (text.Split("..") is not [string first, string last])
        {
            return CommonOptions.Counts(text, "--depths");
        }

        int from = CommonOptions.Counts(first, "--depths")[0];
        int to = CommonOptions.Counts(last, "--depths")[0];
        var depths = new List<int>();
        for (long depth = from; depth <= to; depth *= 2)
        {
            depths.Add((int)depth);
        }

        return depths.Count > 0 ? [.. depths] : throw new UsageException($"--depths: {text} is empty; the first depth must not exceed the last");
    }

    /// <summary>Runs the cases; a depth that is too small is reported as an error of --depths.</summary>
    public static RetrievalResult Measure(LLamaContext context, RetrievalOptions options, IProgress<float> progress, CancellationToken cancellationToken)
    {
        try
        {
            return RetrievalEvaluator.Evaluate(context, options, progress, cancellationToken);
        }
        catch (ArgumentOutOfRangeException e) when (e.ParamName == "depth")
        {
            throw new UsageException($"--depths: {Errors.FirstLine(e)}");
        }
    }

    /// <summary>Confidence interval of the accuracy in percent.</summary>
    public static string Range(RetrievalResult result) => $"{Terminal.Number(100 * result.Interval.Low, 0)} to {Terminal.Number(100 * result.Interval.High, 0)}";

    private static void Write(List<Row> rows, bool json)
    {
        if (json)
        {
            Json.WriteRows(rows, (writer, row) =>
            {
                RetrievalResult result = row.Result;
                writer.WriteString("kv_cache", row.KvCache);
                writer.WriteNumber("depth", result.Depth);
                writer.WriteNumber("cases", result.Cases);
                writer.WriteNumber("correct", result.Correct);
                writer.WriteNumber("accuracy", result.Accuracy);
                writer.WriteNumber("stderr", result.StandardError);
                writer.WriteNumber("accuracy_low", result.Interval.Low);
                writer.WriteNumber("accuracy_high", result.Interval.High);
            });
            return;
        }

        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "depth", "correct", "cases", "accuracy", "95% interval");
        foreach ((string name, RetrievalResult row) in rows)
        {
            string Count(int n) => n.ToString(CultureInfo.InvariantCulture);
            table.AddRow(name, Count(row.Depth), Count(row.Correct), Count(row.Cases),
                Terminal.Number(100 * row.Accuracy, 1) + "%", Range(row));
        }

        Terminal.Out.Write(table);
    }
}
