using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Common;

namespace LlamaKivi.Abstractions;

/// <summary>Writes <see cref="KvCacheParams"/> as an object; reads an object or just a type name such as "kivi4".</summary>
public sealed class KvCacheParamsConverter : JsonConverter<KvCacheParams>
{
    private static readonly KvCacheTypeJsonConverter TypeConverter = new();

    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is neither a type name nor a KV cache object.</exception>
    public override KvCacheParams Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var cache = new KvCacheParams();
        if (reader.TokenType == JsonTokenType.String)
        {
            KvCacheType type = TypeConverter.Read(ref reader, typeof(KvCacheType), options);
            return cache with { TypeK = type, TypeV = type };
        }

        if (reader.TokenType != JsonTokenType.StartObject)
        {
            throw new JsonException($"The name of a KV cache type or an object was expected, not {reader.TokenType}.");
        }

        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            string name = reader.GetString()!;
            reader.Read();
            switch (name.ToUpperInvariant())
            {
                case "TYPEK":
                    cache = cache with { TypeK = TypeConverter.Read(ref reader, typeof(KvCacheType), options) };
                    break;
                case "TYPEV":
                    cache = cache with { TypeV = TypeConverter.Read(ref reader, typeof(KvCacheType), options) };
                    break;
                case "GROUP":
                    cache = cache with { Group = Integer(ref reader, name) };
                    break;
                case "RESIDUAL":
                    cache = cache with { Residual = OptionalInteger(ref reader, name) };
                    break;
                case "SINKS":
                    cache = cache with { Sinks = OptionalInteger(ref reader, name) };
                    break;
                case "REFINEDEIGHTHS":
                    cache = cache with { RefinedEighths = OptionalInteger(ref reader, name) };
                    break;
                case "RESIDUALTYPE":
                    cache = cache with { ResidualType = reader.TokenType == JsonTokenType.Null ? null : TypeConverter.Read(ref reader, typeof(KvCacheType), options) };
                    break;
                case "UNDO":
                    cache = cache with { Undo = OptionalInteger(ref reader, name) };
                    break;
                case "MEMORYBUDGET":
                    cache = cache with { MemoryBudget = reader.TokenType == JsonTokenType.Null ? null : Bytes(ref reader, name) };
                    break;
                default:
                    throw new JsonException(
                        $"'{name}' is not a known setting of a KV cache; the settings are TypeK, TypeV, Group, Residual, Sinks, RefinedEighths, ResidualType, Undo, MemoryBudget.");
            }
        }

        return cache;
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, KvCacheParams value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartObject();
        writer.WriteString(nameof(value.TypeK), value.TypeK.ToString());
        writer.WriteString(nameof(value.TypeV), value.TypeV.ToString());
        writer.WriteNumber(nameof(value.Group), value.Group);
        WriteOptional(writer, nameof(value.Residual), value.Residual);
        WriteOptional(writer, nameof(value.Sinks), value.Sinks);
        WriteOptional(writer, nameof(value.RefinedEighths), value.RefinedEighths);
        writer.WriteString(nameof(value.ResidualType), value.ResidualType?.ToString());
        WriteOptional(writer, nameof(value.Undo), value.Undo);
        WriteOptional(writer, nameof(value.MemoryBudget), value.MemoryBudget);
        writer.WriteEndObject();
    }

    private static void WriteOptional(Utf8JsonWriter writer, string name, long? value)
    {
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
        else
        {
            writer.WriteNull(name);
        }
    }

    private static int? OptionalInteger(ref Utf8JsonReader reader, string name) => reader.TokenType == JsonTokenType.Null ? null : Integer(ref reader, name);

    private static long Bytes(ref Utf8JsonReader reader, string name) =>
        reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out long value) ? value : throw new JsonException($"{name} must be a number of bytes.");

    private static int Integer(ref Utf8JsonReader reader, string name) =>
        reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out int value) ? value : throw new JsonException($"{name} must be an integer.");
}

/// <summary>A <see cref="MetadataOverride"/> as an object with "Type" (0: integer, 1: float, 2: Boolean, 3: string), "Key" and "Value".</summary>
public class MetadataOverrideConverter : JsonConverter<MetadataOverride>
{
    private static readonly string[] Types = ["int", "float", "bool", "string"];  // type names written by earlier versions

    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not an object of this form.</exception>
    public override MetadataOverride Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using JsonDocument document = JsonDocument.ParseValue(ref reader);
        JsonElement root = document.RootElement;
        if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("Key", out JsonElement key) || !root.TryGetProperty("Value", out JsonElement value) ||
            !root.TryGetProperty("Type", out JsonElement type) || key.ValueKind != JsonValueKind.String)
        {
            throw new JsonException("An object with Type, Key (a string) and Value was expected.");
        }

        string name = key.GetString()!;
        int number = type.ValueKind == JsonValueKind.String ? Array.IndexOf(Types, type.GetString()) : type.ValueKind == JsonValueKind.Number && type.TryGetInt32(out int given) ? given : -1;
        return (number, value.ValueKind) switch
        {
            (0, JsonValueKind.Number) when value.TryGetInt32(out int integer) => new MetadataOverride(name, integer),
            (1, JsonValueKind.Number) => new MetadataOverride(name, value.GetSingle()),
            (2, JsonValueKind.True or JsonValueKind.False) => new MetadataOverride(name, value.GetBoolean()),
            (3, JsonValueKind.String) => new MetadataOverride(name, value.GetString()!),
            _ => throw new JsonException($"Type {type} does not fit the value {value.GetRawText()}; types are 0 (integer), 1 (number), 2 (true or false) and 3 (text)."),
        };
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, MetadataOverride value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartObject();
        writer.WriteNumber("Type", value.Value switch { int => 0, float => 1, bool => 2, _ => 3 });
        writer.WriteString("Key", value.Key);
        switch (value.Value)
        {
            case int number:
                writer.WriteNumber("Value", number);
                break;
            case float number:
                writer.WriteNumber("Value", number);
                break;
            case bool truth:
                writer.WriteBoolean("Value", truth);
                break;
            default:
                writer.WriteString("Value", (string)value.Value);
                break;
        }

        writer.WriteEndObject();
    }
}
