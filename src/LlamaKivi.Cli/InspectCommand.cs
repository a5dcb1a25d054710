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

    // Size of a cache of one type, or why the type does not fit the model.
    private sealed record CacheRow(string Name, MemoryEstimate? Estimate, string? Reason);

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
            List<CacheRow> rows = [.. caches.Select(cache => Estimate(file, cache.Name, cache.Params))];
            if (parsed.GetValue(common.Json))
            {
                WriteJson(file, rows);
            }
            else
            {
                WriteTables(file, rows);
            }

            return Task.FromResult(ExitCode.Ok);
        });
    }

    private static CacheRow Estimate(GgufFile file, string name, KvCacheParams cache)
    {
        try
        {
            return new CacheRow(name, ContextHandle.Estimate(file, ContextOptionsFactory.Create(cache)), null);
        }
        catch (Exception e) when (e is LlamaKiviException or ArgumentException)
        {
            return new CacheRow(name, null, Errors.FirstLine(e));
        }
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

    private static void WriteTables(GgufFile file, List<CacheRow> rows)
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
        foreach (CacheRow row in rows)
        {
            if (row.Estimate is { } e)
            {
                cache.AddRow(row.Name, Terminal.Number(e.BitsPerElement, 3), Terminal.Number(e.BytesPerToken, 1), Terminal.MiB(e.CachePageBytes), Terminal.MiB(e.CacheExactBytes));
            }
            else
            {
                cache.AddRow(row.Name, "-", "-", "-", "-");
            }
        }

        Terminal.Out.Write(cache);
        foreach (CacheRow row in rows.Where(row => row.Reason is not null))
        {
            Terminal.Out.WriteLine($"{row.Name}: {row.Reason}");
        }
    }

    private static void WriteJson(GgufFile file, List<CacheRow> rows) => Json.Write(writer =>
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
                writer.WriteNumber("full_precision_bytes", e.CacheExactBytes);
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
