using System.Globalization;
using System.Text.RegularExpressions;
using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

/// <summary>Reads settings that configuration binders cannot: types without a conversion, and lists whose invalid elements binders drop silently.</summary>
/// <remarks>
/// Each such property, for example <c>KvCache</c>, is hidden from binders and has a companion, <c>KvCacheSection</c>, bound under its key. Binders assign the section, with its path, to the companion.
/// The reflection binder and the source generator both set properties of type <see cref="IConfigurationSection"/>.
/// </remarks>
internal static partial class ConfigurationValues
{
    /// <summary>Key prefix that hides a property from configuration binders.</summary>
    public const string Hidden = "(set by code) ";

    private static readonly string[] CacheKeys =
    [
        nameof(KvCacheParams.TypeK), nameof(KvCacheParams.TypeV), nameof(KvCacheParams.Group), nameof(KvCacheParams.Residual), nameof(KvCacheParams.Sinks),
        nameof(KvCacheParams.RefinedEighths), nameof(KvCacheParams.ResidualType),
        nameof(KvCacheParams.Undo), nameof(KvCacheParams.MemoryBudget),
    ];

    private static readonly string[] OverrideKeys = ["Key", "Type", "Value"];
    private static readonly string[] GrammarKeys = [nameof(Grammar.Gbnf), nameof(Grammar.Root)];

    /// <summary>Whether the configuration contains the section.</summary>
    public static bool IsSet(IConfigurationSection? section) => section is not null && (section.Value is not null || section.GetChildren().Any());

    public static InvalidOperationException Wrong(IConfigurationSection section, string expected, Exception? inner = null) =>
        new($"'{section.Path}' is {(section.Value is { } value ? $"'{value}'" : "a section")}; {expected}.", inner);

    /// <summary>Parses a scalar of type T, culture-invariant.</summary>
    public static T Read<T>(IConfigurationSection section, string expected)
        where T : IParsable<T> =>
        T.TryParse(Text(section, expected), CultureInfo.InvariantCulture, out T? value) ? value : throw Wrong(section, $"{expected} is expected");

    public static T ReadEnum<T>(IConfigurationSection section)
        where T : struct, Enum =>
        EnumNames.TryParse(Text(section, "a name"), out T value) ? value : throw Wrong(section, $"names are {string.Join(", ", Enum.GetNames<T>())}");

    /// <summary>Runs a setter; an ArgumentException is rethrown with the section's path.</summary>
    public static void Set(IConfigurationSection section, Action set)
    {
        try
        {
            set();
        }
        catch (ArgumentException e)
        {
            throw new InvalidOperationException($"'{section.Path}': {ErrorText.Of(e)}", e);
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
                nameof(cache.Residual) => cache with { Residual = OptionalInteger(child) },
                nameof(cache.Sinks) => cache with { Sinks = OptionalInteger(child) },
                nameof(cache.RefinedEighths) => cache with { RefinedEighths = OptionalInteger(child) },
                nameof(cache.Undo) => cache with { Undo = OptionalInteger(child) },
                nameof(cache.MemoryBudget) => cache with { MemoryBudget = string.IsNullOrEmpty(child.Value) ? null : Read<long>(child, "a number of bytes") },
                _ => cache with { ResidualType = string.IsNullOrEmpty(child.Value) ? null : ReadCacheType(child) },
            };
        }

        try
        {
            cache.Validate();
        }
        catch (ArgumentException e)
        {
            string message = CacheSetting().Replace(ErrorText.Of(e), match => $"'{section.Path}:{match.Groups["name"].Value}'");
            throw new InvalidOperationException(message, e);
        }

        return cache;
    }

    // Matches a cache setting in a message, which is replaced by the setting's configuration path.
    [GeneratedRegex(@"KvCache\.(?<name>\w+)", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: Timeout.Infinite)]
    private static partial Regex CacheSetting();

    // Accepts ggml's name with or without its prefix, as command lines do.
    public static GGMLType? ReadGgmlType(IConfigurationSection section) => string.IsNullOrEmpty(section.Value) && !section.GetChildren().Any() ? null
        : EnumNames.TryParse(Text(section, "a name"), out GGMLType type) ? type
        : throw Wrong(section, $"it takes {ContextOptionsFactory.StockCacheTypes}. {ContextOptionsFactory.OtherCacheTypes($"{section.Path[..^section.Key.Length]}KvCache:{section.Key}")}");

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

    /// <summary>A list of strings; a single string is a list of one.</summary>
    public static string[] ReadTexts(IConfigurationSection section) => section.Value is { Length: > 0 } text
        ? [text]
        : [.. section.GetChildren().Select(child => Text(child, "a text"))];

    /// <summary>A grammar: either its rules as one string with root rule "root", or a section with Gbnf and Root.</summary>
    public static Grammar? ReadGrammar(IConfigurationSection section)
    {
        if (section.Value is { } text && !section.GetChildren().Any())
        {
            return text.Length == 0 ? null : new Grammar(text, "root");
        }

        Dictionary<string, IConfigurationSection> parts = Parts(section, GrammarKeys, required: ["Gbnf"]);
        return new Grammar(Text(parts["Gbnf"], "grammar rules"), parts.TryGetValue("Root", out IConfigurationSection? root) ? Text(root, "a rule's name") : "root");
    }

    public static Dictionary<LLamaToken, float> ReadLogitBias(IConfigurationSection section)
    {
        NoText(section, "a section that maps tokens to biases is expected");
        return section.GetChildren().ToDictionary(
            child => int.TryParse(child.Key, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? (LLamaToken)id : throw Wrong(child, "the key must be a token id"),
            child => child.Value is { } text && LogitBiasConverter.IsMinusInfinity(text) ? float.NegativeInfinity : Read<float>(child, "a number or -infinity"));
    }

    public static HashSet<LLamaToken> ReadTokens(IConfigurationSection section) => [.. Items(section).Select(child => (LLamaToken)Read<int>(child, "a token id"))];

    /// <summary>Sets the pipeline properties that the section contains.</summary>
    public static void ReadPipeline(IConfigurationSection section, DefaultSamplingPipeline pipeline)
    {
        NoText(section, $"a section with {nameof(DefaultSamplingPipeline)}'s properties is expected");
        foreach (IConfigurationSection child in Children(section, SamplingSettings.Names))
        {
            Set(child, () => SamplingSettings.Set(pipeline, Name(child, SamplingSettings.Names), child));
        }
    }

    private static int? OptionalInteger(IConfigurationSection section) => string.IsNullOrEmpty(section.Value) ? null : Read<int>(section, "an integer");

    private static KvCacheType ReadCacheType(IConfigurationSection section) =>
        KvCacheType.TryParse(Text(section, "a KV cache type"), out KvCacheType type) ? type : throw Wrong(section, $"KV cache types are {string.Join(", ", KvCacheType.Names)}");

    private static string Text(IConfigurationSection section, string expected) => section.Value ?? throw Wrong(section, $"{expected} is expected");

    private static IEnumerable<IConfigurationSection> Items(IConfigurationSection section)
    {
        NoText(section, "a list is expected");
        return section.GetChildren();
    }

    // Configuration represents an empty list as an empty string.
    private static void NoText(IConfigurationSection section, string expected)
    {
        if (!string.IsNullOrEmpty(section.Value))
        {
            throw Wrong(section, expected);
        }
    }

    private static IEnumerable<IConfigurationSection> Children(IConfigurationSection section, IReadOnlyList<string> names) => section.GetChildren().Select(child =>
        names.Contains(child.Key, StringComparer.OrdinalIgnoreCase) ? child : throw new InvalidOperationException($"'{child.Path}' is not a known setting; the settings are {string.Join(", ", names)}."));

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
