using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Reads and writes a <see cref="DefaultSamplingPipeline"/> as an object; other pipelines cannot be written.</summary>
public sealed class SamplingPipelineConverter : JsonConverter<ISamplingPipeline>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not such an object; the message names the property.</exception>
    public override ISamplingPipeline? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        try
        {
            return JsonSerializer.Deserialize(ref reader, TypeInfo(options));
        }
        catch (JsonException e)
        {
            throw new JsonException($"SamplingPipeline: {e.Message}", e);  // the outer reader adds the path to this property
        }
    }

    /// <inheritdoc/>
    /// <exception cref="NotSupportedException">The pipeline has another type.</exception>
    public override void Write(Utf8JsonWriter writer, ISamplingPipeline value, JsonSerializerOptions options)
    {
        if (value is null || value.GetType() != typeof(DefaultSamplingPipeline))
        {
            throw new NotSupportedException($"SamplingPipeline is a {value?.GetType().Name}; only {nameof(DefaultSamplingPipeline)} can be written as JSON.");
        }

        JsonSerializer.Serialize(writer, (DefaultSamplingPipeline)value, TypeInfo(options));
    }

    // A program's source-generated context may know only the interface.
    private static JsonTypeInfo<DefaultSamplingPipeline> TypeInfo(JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        return options.TryGetTypeInfo(typeof(DefaultSamplingPipeline), out JsonTypeInfo? known) ? (JsonTypeInfo<DefaultSamplingPipeline>)known : LlamaKiviJson.Default.DefaultSamplingPipeline;
    }
}

/// <summary>Reads and writes logit biases as an object that maps token ids to numbers: <c>{"13": -1.5, "2": "-infinity"}</c>.</summary>
public sealed class LogitBiasConverter : JsonConverter<IReadOnlyDictionary<LLamaToken, float>>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not an object that maps token ids to numbers.</exception>
    public override IReadOnlyDictionary<LLamaToken, float> Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using JsonDocument document = JsonDocument.ParseValue(ref reader);
        if (document.RootElement.ValueKind != JsonValueKind.Object)
        {
            throw new JsonException($"An object that maps token ids to numbers was expected, not {document.RootElement.ValueKind}.");
        }

        return document.RootElement.EnumerateObject().ToDictionary(
            bias => int.TryParse(bias.Name, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? (LLamaToken)id : throw new JsonException($"'{bias.Name}' is not a token id."),
            bias => bias.Value.ValueKind == JsonValueKind.String && IsMinusInfinity(bias.Value.GetString()!) ? float.NegativeInfinity
                : bias.Value.ValueKind == JsonValueKind.Number && bias.Value.TryGetSingle(out float number) ? number
                : throw new JsonException($"The bias of token {bias.Name} is {bias.Value.GetRawText()}; it must be a number or \"-infinity\"."));
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, IReadOnlyDictionary<LLamaToken, float> value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartObject();
        foreach ((LLamaToken token, float bias) in value)
        {
            writer.WritePropertyName(token.ToString());
            if (float.IsNegativeInfinity(bias))
            {
                writer.WriteStringValue("-infinity");
            }
            else
            {
                writer.WriteNumberValue(bias);
            }
        }

        writer.WriteEndObject();
    }

    internal static bool IsMinusInfinity(string text) => text.ToUpperInvariant() is "-INFINITY" or "-INF" or "-∞";
}

/// <summary>Reads and writes a set of tokens as an array of ids.</summary>
public sealed class TokenSetConverter : JsonConverter<IReadOnlySet<LLamaToken>>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not an array of integers.</exception>
    public override IReadOnlySet<LLamaToken> Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var tokens = new HashSet<LLamaToken>();
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            throw new JsonException($"An array of token ids was expected, not {reader.TokenType}.");
        }

        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            tokens.Add(reader.TokenType == JsonTokenType.Number && reader.TryGetInt32(out int id) ? id : throw new JsonException("A token id must be an integer."));
        }

        return tokens;
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, IReadOnlySet<LLamaToken> value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartArray();
        foreach (LLamaToken token in value)
        {
            writer.WriteNumberValue((int)token);
        }

        writer.WriteEndArray();
    }
}

/// <summary>Writes a grammar as an object with Gbnf and Root; reads such an object, or rules as a string with root rule "root".</summary>
public sealed class GrammarJsonConverter : JsonConverter<Grammar>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is neither a string nor such an object.</exception>
    public override Grammar Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using JsonDocument document = JsonDocument.ParseValue(ref reader);
        JsonElement root = document.RootElement;
        return root.ValueKind == JsonValueKind.String ? new Grammar(root.GetString()!, "root")
            : root.ValueKind == JsonValueKind.Object && Text(root, nameof(Grammar.Gbnf)) is { } rules ? new Grammar(rules, Text(root, nameof(Grammar.Root)) ?? "root")
            : throw new JsonException("A grammar must be a string or an object with Gbnf and Root.");
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, Grammar value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartObject();
        writer.WriteString(nameof(Grammar.Gbnf), value.Gbnf);
        writer.WriteString(nameof(Grammar.Root), value.Root);
        writer.WriteEndObject();
    }

    private static string? Text(JsonElement parent, string name) => parent.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}
