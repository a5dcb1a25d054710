using System.CommandLine;
using System.Text.Json;
using LlamaKivi.Cli.Measuring;
using LlamaKivi.Cli.Options;
using LlamaKivi.Cli.Output;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli.Commands;

/// <summary>Measures what a cache type costs in quality.</summary>
internal static class PerplexityCommand
{
    private const int LargestChunk = 128;
    private const int LargestDefaultWindow = 2048;
    private const int SmallestWindow = 4;

    public static Command Create()
    {
        Option<string?> model = ModelOption.Create();
        Option<string> text = new("--file", "-f") { Description = "Text to measure on.", HelpName = "FILE", Required = true };
        Option<int?> window = new("--ctx-size", "-c") { Description = "Tokens of a window. Default: the model's context, at most 2048.", HelpName = "N" };
        Option<string> types = KvCacheOptions.CreateTypeList();
        Option<int?> threads = NumberOptions.CreateThreads();
        Option<int?> chunk = new("--chunk") { Description = "Tokens per call, at most min(R, 128). Default: that.", HelpName = "N" };
        Option<int?> maxTokens = new("--max-tokens") { Description = "Use only the first N tokens of the text.", HelpName = "N" };
        Option<bool> json = new("--json") { Description = "Write a JSON array of rows." };
        var command = new Command("perplexity", "Measure streaming perplexity per KV cache type.") { model, text, window, types, threads, chunk, maxTokens, json };
        var cacheOptions = new KvCacheOptions(command);

        command.SetAction(async (parsed, cancellationToken) =>
        {
            KvCacheParams[] caches =
                [.. KvCacheOptions.ParseTypeList(parsed.GetRequiredValue(types)).Select(type => cacheOptions.Read(parsed, type, type))];
            int? threadCount = NumberOptions.ReadThreads(parsed, threads);
            int? chunkSize = ReadChunk(parsed.GetValue(chunk), caches);
            int? requested = parsed.GetValue(window) is { } c ? (int)NumberOptions.ContextSize(c) : null;
            int limit = parsed.GetValue(maxTokens) is { } m ? NumberOptions.AtLeast(1, m, "--max-tokens") : int.MaxValue;
            string content = await File.ReadAllTextAsync(ModelOption.RequireFile(parsed.GetRequiredValue(text), "text file"), cancellationToken);
            var parameters = new ModelParams(ModelOption.Resolve(parsed.GetValue(model)));

            using LLamaWeights weights = await ModelLoader.LoadAsync(parameters, cancellationToken);
            int windowSize = requested ?? Math.Min(weights.ContextSize, LargestDefaultWindow);
            if (windowSize < SmallestWindow)
            {
                throw CliException.Usage($"--ctx-size is {windowSize}; a window needs at least {SmallestWindow} tokens");
            }

            int[] tokens = weights.Tokenizer.Encode(content, addBos: false, parseSpecial: false);
            int used = Math.Min(tokens.Length, limit);
            if (used < windowSize)
            {
                throw new CliException(
                    $"the text is too short: {used} tokens{(used < tokens.Length ? $" of {tokens.Length}" : "")}, and one window takes {windowSize}; " +
                    $"give a longer text or a smaller -c");
            }

            var measurement = new PerplexityMeasurement(weights, tokens[..used], windowSize);
            var rows = new List<PerplexityRow>();
            foreach (KvCacheParams cache in caches)
            {
                int size = chunkSize ?? DefaultChunk(cache);
                rows.Add(await Terminal.WithProgressAsync(
                    $"perplexity, {KvCacheOptions.Name(cache)}",
                    report => Task.Run(() => measurement.Measure(cache, size, threadCount, report, cancellationToken), cancellationToken)));
            }

            PerplexityRow[] compared = Compare(rows);
            if (parsed.GetValue(json))
            {
                Console.Out.WriteLine(JsonSerializer.Serialize(compared, CliJson.Readable.PerplexityRowArray));
            }
            else
            {
                WriteTable(compared, windowSize, measurement.WindowCount);
            }
        });
        return command;
    }

    private static bool IsExact(KvCacheParams cache) => cache is { TypeK: lk_cache_type.LK_CACHE_F16, TypeV: lk_cache_type.LK_CACHE_F16 };

    // A longer chunk would attend to its own tokens in full precision and hide the cache.
    private static int DefaultChunk(KvCacheParams cache) => IsExact(cache) ? LargestChunk : Math.Min(cache.Residual, LargestChunk);

    private static int? ReadChunk(int? chunk, KvCacheParams[] caches)
    {
        int most = caches.Min(DefaultChunk);
        return chunk is null or > 0 && !(chunk > most)
            ? chunk
            : throw CliException.Usage($"--chunk is {chunk}; it must be 1 to {most} (the residual, at most {LargestChunk}): a longer chunk hides the cache");
    }

    private static PerplexityRow[] Compare(List<PerplexityRow> rows)
    {
        PerplexityRow? exact = rows.Find(row => row.KvCache == KvCacheOptions.Name(lk_cache_type.LK_CACHE_F16));
        return [.. rows.Select(row => exact is null ? row : row with { VsF16Percent = 100 * (row.Ppl / exact.Ppl - 1) })];
    }

    private static void WriteTable(PerplexityRow[] rows, int windowSize, int windows)
    {
        Table table = Terminal.CreateTable("kv_cache", "ppl", "+-", "vs f16 %", "tokens scored", "bits/element", "cache MiB", "seconds");
        foreach (PerplexityRow row in rows)
        {
            table.AddCells(
                row.KvCache,
                $"{row.Ppl:0.0000}",
                $"{row.PplStderr:0.0000}",
                row.VsF16Percent is { } percent ? $"{percent:+0.00;-0.00;0.00}" : "",
                $"{row.Tokens}",
                $"{row.BitsPerElement:0.00}",
                Units.MiB(row.CacheBytes),
                $"{row.Seconds:0.0}");
        }

        Terminal.Out.WriteLine($"{windows} windows of {windowSize} tokens, the second half of each scored");
        Terminal.Out.Write(table);
    }
}
