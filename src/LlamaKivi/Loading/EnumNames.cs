using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Parses enumeration names, case-insensitive.</summary>
internal static class EnumNames
{
    private const string GgmlPrefix = "GGML_TYPE_";

    /// <summary>Parses a name or a number. Names of <see cref="GGMLType"/> may omit their prefix: "q8_0".</summary>
    public static bool TryParse<T>(string text, out T value)
        where T : struct, Enum =>
        (Enum.TryParse(text, ignoreCase: true, out value) || (typeof(T) == typeof(GGMLType) && Enum.TryParse(GgmlPrefix + text, ignoreCase: true, out value))) && Enum.IsDefined(value);

    /// <summary>The valid names. Parameters use <see cref="GGMLType"/> only for KV caches, which take few of the types.</summary>
    public static string Advice<T>()
        where T : struct, Enum =>
        typeof(T) == typeof(GGMLType) ? $"TypeK and TypeV take {ContextOptionsFactory.StockCacheTypes}. {ContextOptionsFactory.OtherCacheTypes("KvCache")}" : $"the names are {string.Join(", ", Enum.GetNames<T>())}";
}

/// <summary>Writes an enumeration as its number; reads a number or a name, case-insensitive.</summary>
/// <typeparam name="T">The enumeration.</typeparam>
public sealed class EnumNumberConverter<T> : JsonConverter<T>
    where T : struct, Enum
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is neither a number nor a member's name; the message lists the names.</exception>
    public override T Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.TokenType switch
    {
        JsonTokenType.Number when reader.TryGetInt32(out int number) => (T)Enum.ToObject(typeof(T), number),
        JsonTokenType.String when EnumNames.TryParse(reader.GetString()!, out T value) => value,
        JsonTokenType.String => throw new JsonException($"'{reader.GetString()}' is not a {typeof(T).Name}; {EnumNames.Advice<T>()}"),
        _ => throw new JsonException($"A name or a number of {typeof(T).Name} was expected, not {reader.TokenType}."),
    };

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteNumberValue(Convert.ToInt32(value, null));
    }
}
