using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using LlamaKivi.Cli.Options;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Commands;

/// <summary>What `inspect` found.</summary>
internal sealed record InspectReport
{
    public required string File { get; init; }

    public required int Version { get; init; }

    public required long FileBytes { get; init; }

    public required int Alignment { get; init; }

    public required IReadOnlyList<MetadataEntry> Metadata { get; init; }

    public required IReadOnlyList<TensorEntry> Tensors { get; init; }

    public required IReadOnlyList<TensorTypeSummary> TensorTypes { get; init; }

    /// <summary>Tokens the estimates are for; null if the file does not say.</summary>
    public required long? ContextLength { get; init; }

    public required IReadOnlyList<CacheEstimate> CacheEstimates { get; init; }

    /// <summary>Why no type has an estimate; null where one has.</summary>
    public required string? CacheEstimateError { get; init; }

    public static InspectReport Create(string path, GgufFile gguf)
    {
        TensorEntry[] tensors = [.. gguf.Tensors.Select(TensorEntry.Create)];
        CacheEstimate[] estimates = [.. KvCacheTypes.Names.Select(name => CacheEstimate.Create(gguf, KvCacheOptions.ParseType(name)))];
        return new InspectReport
        {
            File = path,
            Version = gguf.Version,
            FileBytes = gguf.FileSize,
            Alignment = gguf.Alignment,
            Metadata = [.. gguf.Entries.Select(entry => MetadataEntry.Create(gguf, entry))],
            Tensors = tensors,
            TensorTypes = [.. tensors.GroupBy(tensor => tensor.Type).Select(TensorTypeSummary.Create).OrderByDescending(type => type.Bytes)],
            ContextLength = gguf.GetInteger($"{gguf.GetString("general.architecture")}.context_length"),
            CacheEstimates = estimates,
            CacheEstimateError = Array.TrueForAll(estimates, estimate => estimate.Error is not null) ? estimates[0].Error : null,
        };
    }
}

/// <summary>A metadata entry. Of arrays only the first elements are kept in <paramref name="Value"/>.</summary>
/// <param name="Key">The key.</param>
/// <param name="Type">"string", "u32", "array of i32".</param>
/// <param name="Count">Elements of an array; null for others.</param>
/// <param name="Value">The value.</param>
/// <param name="Display">The value on one short line.</param>
internal sealed record MetadataEntry(string Key, string Type, long? Count, JsonNode? Value, [property: JsonIgnore] string Display)
{
    private const int ShownElements = 8;
    private const int ShownCharacters = 96;

    public static MetadataEntry Create(GgufFile gguf, GgufEntry entry)
    {
        object? value = gguf.GetValue(entry.Key);
        if (value is not Array array)
        {
            JsonNode? scalar = ToNode(value);
            return new MetadataEntry(entry.Key, TypeName(entry.Type), null, scalar, Shorten(scalar));
        }

        JsonNode?[] first = [.. array.Cast<object>().Take(ShownElements).Select(ToNode)];
        string more = array.Length > first.Length ? $", ... {array.Length} in all" : "";
        string display = $"[{string.Join(", ", first.Select(Shorten))}{more}]";
        return new MetadataEntry(entry.Key, $"{TypeName(entry.ElementType)}[]", array.Length, new JsonArray(first), display);
    }

    private static string TypeName(lk_value_type type)
    {
        const string prefix = "LK_VALUE_";
        string name = type.ToString();
        return (name.StartsWith(prefix, StringComparison.Ordinal) ? name[prefix.Length..] : name).ToLowerInvariant();
    }

    private static JsonNode? ToNode(object? value) => value switch
    {
        null => null,
        string text => JsonValue.Create(text),
        bool flag => JsonValue.Create(flag),
        float number => float.IsFinite(number) ? JsonValue.Create(number) : JsonValue.Create(number.ToString()),
        double number => double.IsFinite(number) ? JsonValue.Create(number) : JsonValue.Create(number.ToString()),
        ulong number => JsonValue.Create(number),
        _ => JsonValue.Create(Convert.ToInt64(value)),
    };

    private static string Shorten(JsonNode? node)
    {
        // One line, and nothing that a terminal would obey.
        string text = string.Concat((node?.ToString() ?? "").Select(c => c switch
        {
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            _ when char.IsControl(c) => $"\\u{(int)c:x4}",
            _ => c.ToString(),
        }));
        return text.Length <= ShownCharacters ? text : $"{text[..ShownCharacters]}... ({text.Length} characters)";
    }
}

internal sealed record TensorEntry(string Name, string Type, IReadOnlyList<long> Shape, long Offset, long Bytes)
{
    public static TensorEntry Create(GgufTensor tensor) =>
        new(tensor.Name, tensor.TypeName ?? $"type {tensor.TypeNumber}", tensor.Shape, tensor.Offset, tensor.Size);
}

internal sealed record TensorTypeSummary(string Type, int Tensors, long Elements, long Bytes, double BitsPerWeight)
{
    public static TensorTypeSummary Create(IGrouping<string, TensorEntry> tensors)
    {
        long elements = tensors.Sum(tensor => tensor.Shape.Aggregate(1L, (product, dimension) => product * dimension));
        long bytes = tensors.Sum(tensor => tensor.Bytes);
        return new TensorTypeSummary(tensors.Key, tensors.Count(), elements, bytes, elements > 0 ? 8.0 * bytes / elements : 0);
    }
}

/// <summary>What the KV cache takes for one sequence of the model's context length, or why that is not known.</summary>
internal sealed record CacheEstimate
{
    public required string KvCache { get; init; }

    public double BitsPerElement { get; init; }

    public double BytesPerToken { get; init; }

    public long RingBytes { get; init; }

    public long TotalBytes { get; init; }

    public string? Error { get; init; }

    public static CacheEstimate Create(GgufFile gguf, lk_cache_type type)
    {
        string name = KvCacheOptions.Name(type);
        try
        {
            MemoryEstimate estimate = ContextHandle.Estimate(gguf, new ContextOptions { KeyType = type, ValueType = type });
            return new CacheEstimate
            {
                KvCache = name,
                BitsPerElement = estimate.BitsPerElement,
                BytesPerToken = estimate.BytesPerToken,
                RingBytes = estimate.CacheExactBytes,
                TotalBytes = estimate.CachePageBytes + estimate.CacheExactBytes,
            };
        }
        catch (Exception e) when (e is LlamaKiviException or ArgumentException)
        {
            return new CacheEstimate { KvCache = name, Error = CommandRunner.Message(e) };
        }
    }
}
