using System.Globalization;
using System.Text.Json;
using LlamaKivi.Native;

namespace LlamaKivi.Server;

/// <summary>Reads the sampling fields that several APIs share.</summary>
internal static class SamplingFields
{
    /// <summary>Reads temperature, top_p, top_k, min_p, penalties, logit_bias and seed.</summary>
    public static void Read(JsonFields body, SamplingChatOptions options, int vocabularySize)
    {
        options.Temperature = body.Number("temperature", 0, 100);
        options.TopP = body.Number("top_p", 0, 1);
        options.TopK = (int?)body.Whole("top_k", 0, int.MaxValue);
        options.MinP = body.Number("min_p", 0, 1);
        options.FrequencyPenalty = body.Number("frequency_penalty", -2, 2);
        options.PresencePenalty = body.Number("presence_penalty", -2, 2);
        options.RepeatPenalty = body.Number("repeat_penalty", 0.01, 100);
        options.Seed = Seed(body);
        options.LogitBias = Bias(body, vocabularySize);
    }

    /// <summary>Reads stop strings.</summary>
    public static IList<string>? Stops(JsonFields body, string name)
    {
        IReadOnlyList<string>? stops = body.Texts(name);
        return stops is { Count: > 64 }
            ? throw ApiException.Bad(body.Path(name), $"{name} has {stops.Count} strings; at most 64 are supported.", "invalid_value")
            : stops is null ? null : [.. stops];
    }

    /// <summary>The smaller of the request's and the server's limit of generated tokens.</summary>
    public static int? MaxTokens(long? requested, LlamaKiviServerOptions options) => (requested, options.MaxOutputTokens) switch
    {
        ({ } n, { } limit) => (int)Math.Min(n, limit),
        ({ } n, null) => (int)n,
        (null, var limit) => limit,
    };

    /// <summary>Reads the slot in which the request should run; null: any, which llama.cpp writes as -1.</summary>
    public static int? Slot(JsonFields body, ServedModel model) => body.Whole("id_slot", -1, model.Engine.Options.SeqMax - 1L) is { } slot and >= 0 ? (int)slot : null;

    // The generator's seed has 32 bits. -1 is llama.cpp's random seed.
    private static long? Seed(JsonFields body) => body.Whole("seed", -(1L << 53), 1L << 53) is { } seed && seed != -1 ? seed & uint.MaxValue : null;

    private static Dictionary<LLamaToken, float>? Bias(JsonFields body, int vocabularySize)
    {
        if (!body.TryGet("logit_bias", out JsonElement value))
        {
            return null;
        }

        var fields = new JsonFields(value, body.Path("logit_bias"));
        var bias = new Dictionary<LLamaToken, float>();
        foreach (JsonProperty property in value.EnumerateObject())
        {
            // Without leading zeros, a token has one key.
            if (!int.TryParse(property.Name, NumberStyles.None, CultureInfo.InvariantCulture, out int token) || token >= vocabularySize
                || (property.Name[0] == '0' && property.Name.Length > 1))
            {
                throw ApiException.Bad("logit_bias", $"logit_bias has the key '{property.Name}'; keys are token ids from 0 to {vocabularySize - 1}.", "invalid_value");
            }

            bias[(LLamaToken)token] = property.Value.ValueKind == JsonValueKind.Null ? 0 : JsonFields.Number(property.Value, fields.Path(property.Name), -100, 100);
        }

        return bias;
    }
}
