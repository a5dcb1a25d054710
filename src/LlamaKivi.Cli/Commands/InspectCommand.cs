using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi inspect`: content of a GGUF file, and the size of its KV cache by type.</summary>
internal static class InspectCommand
{
    private const int LongestText = 60;

    // Size of a cache of one type, and the tokens of one sequence that fit in --kv-memory; or why the type does not fit the model.
    private sealed record CacheRow(string Name, MemoryEstimate? Estimate, string? Reason, int? TokensThatFit = null);

    public static Command Create()
    {
        var common = new CommonOptions();
        var path = new Argument<string>("FILE") { Description = "GGUF file" };
        var command = new Command("inspect", "Show a GGUF file's metadata and tensors, and its KV cache size by type") { path };
        CommonOptions.Add(command, [.. common.CacheSettings, common.Json]);
        return command.Do((parsed, _) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, string.Join(',', KvCacheType.Names));
            using GgufFile file = GgufFile.Open(parsed.GetValue(path)!);
            long? memory = parsed.GetValue(common.Memory);
            List<CacheRow> rows = [.. caches.Select(cache => Estimate(file, cache.Name, cache.Params with { MemoryBudget = null }, memory))];
            if (parsed.GetValue(common.Json))
            {
                WriteJson(file, rows, memory);
            }
            else
            {
                WriteTables(file, rows, memory);
            }

            return Task.FromResult(ExitCode.Ok);
        });
    }

    private static CacheRow Estimate(GgufFile file, string name, KvCacheParams cache, long? memory)
    {
        try
        {
            ContextOptions options = ContextOptionsFactory.Create(cache);
            return new CacheRow(name, ContextHandle.Estimate(file, options), null, memory is { } bytes ? Tokens(file, options, bytes) : null);
        }
        catch (Exception e) when (e is LlamaKiviException or ArgumentException)
        {
            return new CacheRow(name, null, Errors.FirstLine(e));
        }
    }

    // Tokens of the longest sequence that fits in a budget, by bisection.
    private static int Tokens(GgufFile file, ContextOptions options, long budget)
    {
        (int fits, int most) = (0, NumberOptions.MostTokens);
        while (fits < most)
        {
            int middle = fits + (most - fits + 1) / 2;
            (fits, most) = ContextHandle.SequenceBytes(file, options, middle) <= budget ? (middle, most) : (fits, middle - 1);
        }

        return fits;
    }

    // The reason that applies to every type, and so to the file; null: none.
    private static string? NoEstimate(List<CacheRow> rows) => rows.TrueForAll(row => row.Reason is not null && row.Reason == rows[0].Reason) ? rows[0].Reason : null;

    private static string Show(GgufFile file, GgufEntry entry)
    {
        if (entry.Type == GgufValueType.Array)
        {
            return $"{entry.Count} values";
        }

        string text = (Convert.ToString(file.GetValue(entry.Key), CultureInfo.InvariantCulture) ?? "").ReplaceLineEndings(" ");
        return text.Length > LongestText ? string.Concat(text.AsSpan(0, LongestText), "...") : text;
    }

    private static string Type(GgufTensor tensor) => tensor.TypeName ?? $"type {tensor.TypeNumber}";

    private static void WriteTables(GgufFile file, List<CacheRow> rows, long? memory)
    {
        Terminal.Out.WriteLine($"GGUF v{file.Version}, {Terminal.MiB(file.FileSize)} MiB, alignment {file.Alignment}, {file.Entries.Count} entries, {file.Tensors.Count} tensors");
        Table metadata = new Table().Border(TableBorder.Simple).AddColumns("key", "value");
        foreach (GgufEntry entry in file.Entries)
        {
            metadata.AddRow(Markup.Escape(entry.Key), Markup.Escape(Show(file, entry)));
        }

        Terminal.Out.Write(metadata);
        Table tensors = new Table().Border(TableBorder.Simple).AddColumns("tensor", "type", "shape", "MiB");
        foreach (GgufTensor tensor in file.Tensors)
        {
            tensors.AddRow(Markup.Escape(tensor.Name), Type(tensor), string.Join(" x ", tensor.Shape), Terminal.MiB(tensor.Size));
        }

        Terminal.Out.Write(tensors);
        Table types = new Table().Border(TableBorder.Simple).AddColumns("type", "tensors", "MiB");
        foreach (IGrouping<string, GgufTensor> group in file.Tensors.GroupBy(Type, StringComparer.Ordinal))
        {
            types.AddRow(group.Key, group.Count().ToString(CultureInfo.InvariantCulture), Terminal.MiB(group.Sum(tensor => (double)tensor.Size)));
        }

        Terminal.Out.Write(types);
        if (NoEstimate(rows) is { } why)
        {
            Terminal.Out.WriteLine($"no cache estimate: {why}");
            return;
        }

        Table cache = new Table().Border(TableBorder.Simple)
            .AddColumns("KV cache", "bits/element", "bytes/token", "pages at full context MiB", "rings and sinks MiB");
        if (memory is { } budget)
        {
            cache.AddColumn($"tokens in {Terminal.MiB(budget)} MiB");
        }

        foreach (CacheRow row in rows)
        {
            if (row.Estimate is { } e)
            {
                string[] cells = [row.Name, Terminal.Number(e.BitsPerElement, 3), Terminal.Number(e.BytesPerToken, 1), Terminal.MiB(e.CachePageBytes), Terminal.MiB(e.CacheExactBytes)];
                cache.AddRow(row.TokensThatFit is { } tokens ? [.. cells, tokens.ToString(CultureInfo.InvariantCulture)] : cells);
            }
        }

        Terminal.Out.Write(cache);

        // The table shows which types fit, so the reasons do not list them again.
        foreach (IGrouping<string, CacheRow> same in rows.Where(row => row.Reason is not null).GroupBy(row => row.Reason!.Split("; types that fit")[0].Replace($"{row.Name} ", "", StringComparison.Ordinal), StringComparer.Ordinal))
        {
            Terminal.Out.WriteLine($"not available: {string.Join(", ", same.Select(row => row.Name))} ({same.Key})");
        }
    }

    private static void WriteJson(GgufFile file, List<CacheRow> rows, long? memory) => Json.Write(writer =>
    {
        writer.WriteStartObject();
        writer.WriteNumber("version", file.Version);
        writer.WriteNumber("file_size", file.FileSize);
        writer.WriteNumber("alignment", file.Alignment);
        writer.WriteStartObject("metadata");
        foreach (GgufEntry entry in file.Entries)
        {
            writer.WriteString(entry.Key, entry.Type == GgufValueType.Array
                ? $"{entry.Count} values"
                : Convert.ToString(file.GetValue(entry.Key), CultureInfo.InvariantCulture));
        }

        writer.WriteEndObject();
        writer.WriteStartArray("tensors");
        foreach (GgufTensor tensor in file.Tensors)
        {
            writer.WriteStartObject();
            writer.WriteString("name", tensor.Name);
            writer.WriteString("type", Type(tensor));
            writer.WriteStartArray("shape");
            foreach (long n in tensor.Shape)
            {
                writer.WriteNumberValue(n);
            }

            writer.WriteEndArray();
            writer.WriteNumber("bytes", tensor.Size);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        if (memory is { } budget)
        {
            writer.WriteNumber("kv_memory_bytes", budget);
        }

        writer.WriteStartArray("kv_cache");
        foreach (CacheRow row in rows)
        {
            writer.WriteStartObject();
            writer.WriteString("kv_cache", row.Name);
            if (row.Estimate is { } e)
            {
                writer.WriteNumber("bits_per_element", e.BitsPerElement);
                writer.WriteNumber("bytes_per_token", e.BytesPerToken);
                writer.WriteNumber("page_bytes", e.CachePageBytes);
                writer.WriteNumber("ring_and_sink_bytes", e.CacheExactBytes);
                if (row.TokensThatFit is { } tokens)
                {
                    writer.WriteNumber("tokens_that_fit", tokens);
                }
            }
            else
            {
                writer.WriteString("reason", row.Reason);
            }

            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        if (NoEstimate(rows) is { } why)
        {
            writer.WriteString("no_estimate", why);
        }

        writer.WriteEndObject();
    });
}
