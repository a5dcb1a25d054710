using System.Text.Json;
using LlamaKivi.Cli.Options;
using LlamaKivi.Cli.Output;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Commands;

/// <summary>What `run` did. Speeds in tokens per second; null when there was nothing to time.</summary>
internal sealed record RunReport
{
    public required string Text { get; init; }

    public required int PromptTokens { get; init; }

    public required IReadOnlyList<int> Tokens { get; init; }

    public required double PrefillTokensPerSecond { get; init; }

    public required double DecodeTokensPerSecond { get; init; }

    /// <summary>"end_of_generation", "max_tokens", "anti_prompt" or "cancelled".</summary>
    public required string StopReason { get; init; }

    public required CacheReport KvCache { get; init; }

    public static RunReport Create(string text, InteractiveExecutor executor, KvCacheParams cache, bool cancelled)
    {
        InferenceTimings timings = executor.Timings;
        return new RunReport
        {
            Text = text,
            PromptTokens = timings.PromptTokens,
            Tokens = [.. executor.GeneratedTokens],
            PrefillTokensPerSecond = timings.PromptTokensPerSecond,
            DecodeTokensPerSecond = timings.DecodeTokensPerSecond,
            StopReason = cancelled ? "cancelled" : JsonNamingPolicy.SnakeCaseLower.ConvertName(executor.StopReason.ToString()),
            KvCache = CacheReport.Create(executor.Context.KvCacheUsage, cache),
        };
    }

    public void WriteJson() => Console.Out.WriteLine(JsonSerializer.Serialize(this, CliJson.Readable.RunReport));

    public void WriteSummary()
    {
        var speeds = Terminal.CreateTable("", "tokens", "tok/s");
        speeds.AddCells("prefill", $"{PromptTokens}", $"{PrefillTokensPerSecond:0.0}");
        speeds.AddCells("decode", $"{Tokens.Count}", $"{DecodeTokensPerSecond:0.0}");
        Terminal.Error.WriteLine();
        Terminal.Error.Write(speeds);

        CacheReport cache = KvCache;
        string name = cache.TypeK == cache.TypeV ? cache.TypeK : $"{cache.TypeK}/{cache.TypeV}";
        var table = Terminal.CreateTable("KV cache", "tokens", "quantized MiB", "full precision MiB", "as f16 MiB", "ratio");
        table.AddCells(
            name, $"{cache.Tokens}", Units.MiB(cache.QuantizedBytes), Units.MiB(cache.ExactBytes), Units.MiB(cache.F16Bytes), $"{cache.Ratio:0.00}x");
        Terminal.Error.Write(table);
        if (StopReason == "cancelled")
        {
            Terminal.Error.WriteLine("stopped by Ctrl-C");
        }
    }
}

/// <summary>What the KV cache holds after a run; bytes.</summary>
internal sealed record CacheReport
{
    public required string TypeK { get; init; }

    public required string TypeV { get; init; }

    public required int Group { get; init; }

    public required int Residual { get; init; }

    /// <summary>Null: what the type prefers.</summary>
    public required int? Sinks { get; init; }

    public required long Tokens { get; init; }

    public required long QuantizedBytes { get; init; }

    public required long ExactBytes { get; init; }

    public required long AllocatedBytes { get; init; }

    public required long F16Bytes { get; init; }

    /// <summary>f16 bytes per byte used.</summary>
    public required double Ratio { get; init; }

    public required double KBitsPerElement { get; init; }

    public required double VBitsPerElement { get; init; }

    public static CacheReport Create(CacheUsage usage, KvCacheParams cache)
    {
        long used = usage.QuantizedBytes + usage.ExactBytes;
        return new CacheReport
        {
            TypeK = KvCacheOptions.Name(cache.TypeK),
            TypeV = KvCacheOptions.Name(cache.TypeV),
            Group = cache.Group,
            Residual = cache.Residual,
            Sinks = cache.Sinks,
            Tokens = usage.Tokens,
            QuantizedBytes = usage.QuantizedBytes,
            ExactBytes = usage.ExactBytes,
            AllocatedBytes = usage.AllocatedBytes,
            F16Bytes = usage.F16Bytes,
            Ratio = used > 0 ? (double)usage.F16Bytes / used : 1,
            KBitsPerElement = usage.KeyBitsPerElement,
            VBitsPerElement = usage.ValueBitsPerElement,
        };
    }
}
