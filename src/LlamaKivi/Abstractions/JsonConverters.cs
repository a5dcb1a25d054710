using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Abstractions;

/// <summary>A <see cref="TensorSplitsCollection"/> as an array of numbers.</summary>
public sealed class TensorSplitsCollectionConverter : JsonConverter<TensorSplitsCollection>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">It is no array of at most as many numbers as there are devices.</exception>
    public override TensorSplitsCollection Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var splits = new TensorSplitsCollection();
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            throw new JsonException($"An array of numbers was expected, not {reader.TokenType}.");
        }

        for (int i = 0; reader.Read() && reader.TokenType != JsonTokenType.EndArray; i++)
        {
            if (i == splits.Length)
            {
                throw new JsonException($"The array has more than {splits.Length} numbers.");
            }

            splits[i] = reader.GetSingle();
        }

        return splits;
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, TensorSplitsCollection value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartArray();
        foreach (float split in value)
        {
            writer.WriteNumberValue(split);
        }

        writer.WriteEndArray();
    }
}

/// <summary>A <see cref="MetadataOverride"/> as an object with "Key", "Type" (int, float, bool or string) and "Value".</summary>
public sealed class MetadataOverrideConverter : JsonConverter<MetadataOverride>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">It is no such object.</exception>
    public override MetadataOverride Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using JsonDocument document = JsonDocument.ParseValue(ref reader);
        JsonElement root = document.RootElement;
        if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("Key", out JsonElement key) || !root.TryGetProperty("Value", out JsonElement value))
        {
            throw new JsonException("An object with Key, Type and Value was expected.");
        }

        string name = key.GetString() ?? throw new JsonException("Key is null.");
        string? type = root.TryGetProperty("Type", out JsonElement given) ? given.GetString() : null;
        return (type, value.ValueKind) switch
        {
            ("int", JsonValueKind.Number) => new MetadataOverride(name, value.GetInt32()),
            ("float", JsonValueKind.Number) => new MetadataOverride(name, value.GetSingle()),
            ("bool", JsonValueKind.True or JsonValueKind.False) => new MetadataOverride(name, value.GetBoolean()),
            ("string", JsonValueKind.String) => new MetadataOverride(name, value.GetString()!),
            _ => throw new JsonException($"Type is '{type}' and Value is a {value.ValueKind}; types are int, float, bool and string."),
        };
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, MetadataOverride value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartObject();
        writer.WriteString("Key", value.Key);
        switch (value.Value)
        {
            case int number:
                writer.WriteString("Type", "int");
                writer.WriteNumber("Value", number);
                break;
            case float number:
                writer.WriteString("Type", "float");
                writer.WriteNumber("Value", number);
                break;
            case bool truth:
                writer.WriteString("Type", "bool");
                writer.WriteBoolean("Value", truth);
                break;
            default:
                writer.WriteString("Type", "string");
                writer.WriteString("Value", (string)value.Value);
                break;
        }

        writer.WriteEndObject();
    }
}
