using System.Globalization;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>Reads the settings that configuration binders cannot: they have no conversion for the type, or drop a wrong element of a list without an error.</summary>
/// <remarks>
/// A property of such a type has a second one beside it, <c>KvCacheSection</c> beside <c>KvCache</c>, that binders give the section of its name to, with its path; the first one is bound by code
/// alone. The reflection binder and the source generator both set properties of type <see cref="IConfigurationSection"/>.
/// </remarks>
internal static class ConfigurationValues
{
    /// <summary>Begins the key of a property that no configuration sets.</summary>
    public const string Hidden = "(set by code) ";

    private static readonly string[] CacheKeys = [nameof(KvCacheParams.TypeK), nameof(KvCacheParams.TypeV), nameof(KvCacheParams.Group), nameof(KvCacheParams.Residual), nameof(KvCacheParams.Sinks)];
    private static readonly string[] OverrideKeys = ["Key", "Type", "Value"];
    private static readonly string[] BufferKeys = [nameof(TensorBufferOverride.Pattern), nameof(TensorBufferOverride.BufferType)];
    private static readonly string[] GrammarKeys = [nameof(Grammar.Gbnf), nameof(Grammar.Root)];

    /// <summary>Whether the configuration says anything of a section.</summary>
    public static bool IsSet(IConfigurationSection? section) => section is not null && (section.Value is not null || section.GetChildren().Any());

    public static InvalidOperationException Wrong(IConfigurationSection section, string expected, Exception? inner = null) =>
        new($"'{section.Path}' is {(section.Value is { } value ? $"'{value}'" : "a section")}; {expected}.", inner);

    /// <summary>A number, a truth value and whatever else is read from text.</summary>
    public static T Read<T>(IConfigurationSection section, string expected)
        where T : IParsable<T> =>
        T.TryParse(Text(section, expected), CultureInfo.InvariantCulture, out T? value) ? value : throw Wrong(section, $"{expected} is expected");

    public static T ReadEnum<T>(IConfigurationSection section)
        where T : struct, Enum =>
        EnumNames.TryParse(Text(section, "a name"), out T value) ? value : throw Wrong(section, $"names are {string.Join(", ", Enum.GetNames<T>())}");

    /// <summary>Does what may refuse the section's value; the refusal then names the section.</summary>
    public static void Set(IConfigurationSection section, Action set)
    {
        try
        {
            set();
        }
        catch (ArgumentException e)
        {
            throw new InvalidOperationException($"'{section.Path}': {e.Message.Split(" (Parameter '")[0]}", e);
        }
    }

    public static KvCacheParams ReadKvCache(IConfigurationSection section, KvCacheParams cache)
    {
        if (section.Value is not null)
        {
            KvCacheType type = ReadCacheType(section);
            cache = cache with { TypeK = type, TypeV = type };
        }

        foreach (IConfigurationSection child in Children(section, CacheKeys))
        {
            cache = Name(child, CacheKeys) switch
            {
                nameof(cache.TypeK) => cache with { TypeK = ReadCacheType(child) },
                nameof(cache.TypeV) => cache with { TypeV = ReadCacheType(child) },
                nameof(cache.Group) => cache with { Group = Read<int>(child, "an integer") },
                nameof(cache.Residual) => cache with { Residual = Read<int>(child, "an integer") },
                _ => cache with { Sinks = string.IsNullOrEmpty(child.Value) ? null : Read<int>(child, "an integer") },
            };
        }

        Set(section, cache.Validate);
        return cache;
    }

    // Ggml's name of a type or its end: what command lines call it.
    public static GGMLType? ReadGgmlType(IConfigurationSection section) => string.IsNullOrEmpty(section.Value) && !section.GetChildren().Any() ? null
        : EnumNames.TryParse(Text(section, "a name"), out GGMLType type) ? type
        : throw Wrong(section, $"it takes f16, q8_0 and q4_0; KvCache:{section.Key} takes {string.Join(", ", KvCacheType.Names)}");

    public static System.Text.Encoding ReadEncoding(IConfigurationSection section)
    {
        string name = Text(section, "the name of an encoding");
        try
        {
            return System.Text.Encoding.GetEncoding(name);
        }
        catch (ArgumentException e)
        {
            throw Wrong(section, "no encoding has that name", e);
        }
    }

    public static TensorSplitsCollection ReadTensorSplits(IConfigurationSection section)
    {
        float[] parts = section.Value is { Length: > 0 } text
            ? [.. text.Split(',').Select(part => float.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out float value) ? value : throw Wrong(section, "numbers are expected"))]
            : [.. section.GetChildren().Select(child => Read<float>(child, "a number"))];
        TensorSplitsCollection? splits = null;
        Set(section, () => splits = new TensorSplitsCollection(parts));
        return splits!;
    }

    public static List<MetadataOverride> ReadMetadataOverrides(IConfigurationSection section) => [.. Items(section).Select(item =>
    {
        Dictionary<string, IConfigurationSection> parts = Parts(item, OverrideKeys, required: ["Key", "Value"]);
        (string key, IConfigurationSection value) = (Text(parts["Key"], "a key"), parts["Value"]);
        string text = Text(value, "a value");
        string kind = parts.TryGetValue("Type", out IConfigurationSection? type) ? Text(type, "a type") : Kind(text);
        return kind.ToUpperInvariant() switch
        {
            "INT" or "0" => new MetadataOverride(key, Read<int>(value, "an integer")),
            "FLOAT" or "1" => new MetadataOverride(key, Read<float>(value, "a number")),
            "BOOL" or "2" => new MetadataOverride(key, Read<bool>(value, "true or false")),
            "STRING" or "3" => new MetadataOverride(key, text),
            _ => throw Wrong(type!, "types are int (0), float (1), bool (2) and string (3)"),
        };
    })];

    public static List<TensorBufferOverride> ReadTensorBufferOverrides(IConfigurationSection section) => [.. Items(section).Select(item =>
    {
        Dictionary<string, IConfigurationSection> parts = Parts(item, BufferKeys, BufferKeys);
        return new TensorBufferOverride(Text(parts["Pattern"], "a pattern"), Text(parts["BufferType"], "a buffer's type"));
    })];

    /// <summary>Texts; one text alone is a list of one.</summary>
    public static string[] ReadTexts(IConfigurationSection section) => section.Value is { Length: > 0 } text
        ? [text]
        : [.. section.GetChildren().Select(child => Text(child, "a text"))];

    /// <summary>A grammar: its rules alone, whose first is "root", or Gbnf and Root.</summary>
    public static Grammar? ReadGrammar(IConfigurationSection section)
    {
        if (section.Value is { } text && !section.GetChildren().Any())
        {
            return text.Length == 0 ? null : new Grammar(text, "root");
        }

        Dictionary<string, IConfigurationSection> parts = Parts(section, GrammarKeys, required: ["Gbnf"]);
        return new Grammar(Text(parts["Gbnf"], "rules"), parts.TryGetValue("Root", out IConfigurationSection? root) ? Text(root, "a rule's name") : "root");
    }

    public static Dictionary<LLamaToken, float> ReadLogitBias(IConfigurationSection section)
    {
        NoText(section, "a section of biases by token is expected");
        return section.GetChildren().ToDictionary(
            child => int.TryParse(child.Key, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? (LLamaToken)id : throw Wrong(child, "its key is the number of a token"),
            child => child.Value is { } text && LogitBiasConverter.IsMinusInfinity(text) ? float.NegativeInfinity : Read<float>(child, "a number or -infinity"));
    }

    public static HashSet<LLamaToken> ReadTokens(IConfigurationSection section) => [.. Items(section).Select(child => (LLamaToken)Read<int>(child, "the number of a token"))];

    /// <summary>Sets the properties of a pipeline that a section names.</summary>
    public static void ReadPipeline(IConfigurationSection section, DefaultSamplingPipeline pipeline)
    {
        NoText(section, $"a section with {nameof(DefaultSamplingPipeline)}'s properties is expected");
        foreach (IConfigurationSection child in Children(section, SamplingSettings.Names))
        {
            Set(child, () => SamplingSettings.Set(pipeline, Name(child, SamplingSettings.Names), child));
        }
    }

    private static KvCacheType ReadCacheType(IConfigurationSection section) =>
        KvCacheType.TryParse(Text(section, "a KV cache type"), out KvCacheType type) ? type : throw Wrong(section, $"KV cache types are {string.Join(", ", KvCacheType.Names)}");

    private static string Text(IConfigurationSection section, string expected) => section.Value ?? throw Wrong(section, $"{expected} is expected");

    private static IEnumerable<IConfigurationSection> Items(IConfigurationSection section)
    {
        NoText(section, "a list is expected");
        return section.GetChildren();
    }

    // An empty list is an empty text in configuration.
    private static void NoText(IConfigurationSection section, string expected)
    {
        if (!string.IsNullOrEmpty(section.Value))
        {
            throw Wrong(section, expected);
        }
    }

    private static IEnumerable<IConfigurationSection> Children(IConfigurationSection section, IReadOnlyList<string> names) => section.GetChildren().Select(child =>
        names.Contains(child.Key, StringComparer.OrdinalIgnoreCase) ? child : throw new InvalidOperationException($"'{child.Path}' is not known; there are: {string.Join(", ", names)}."));

    private static string Name(IConfigurationSection child, IReadOnlyList<string> names) => names.First(name => name.Equals(child.Key, StringComparison.OrdinalIgnoreCase));

    private static Dictionary<string, IConfigurationSection> Parts(IConfigurationSection section, IReadOnlyList<string> names, IReadOnlyList<string> required)
    {
        NoText(section, $"a section with {string.Join(", ", names)} is expected");
        var parts = Children(section, names).ToDictionary(child => Name(child, names), StringComparer.Ordinal);
        return required.FirstOrDefault(name => !parts.ContainsKey(name)) is { } missing
            ? throw new InvalidOperationException($"'{section.Path}' has no {missing}; it needs {string.Join(" and ", required)}.")
            : parts;
    }

    private static string Kind(string text) => int.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out _) ? "int"
        : float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out _) ? "float"
        : bool.TryParse(text, out _) ? "bool"
        : "string";
}
