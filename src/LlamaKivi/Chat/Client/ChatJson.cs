using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Values of calls, results and options as JSON.</summary>
internal static class ChatJson
{
    /// <summary>A value as JSON, as Microsoft.Extensions.AI writes it.</summary>
    /// <exception cref="NotSupportedException">The value has a type that cannot be written as JSON.</exception>
    public static JsonElement ToElement(object? value, string what)
    {
        JsonSerializerOptions options = AIJsonUtilities.DefaultOptions;
        try
        {
            return value is JsonElement element ? element : JsonSerializer.SerializeToElement(value, options.GetTypeInfo(value?.GetType() ?? typeof(object)));
        }
        catch (Exception e) when (e is NotSupportedException or JsonException or InvalidOperationException)
        {
            throw new NotSupportedException($"{what} is a {value?.GetType()} that cannot be written as JSON: {e.Message}", e);
        }
    }

    /// <summary>A text as it is, other values as JSON on one line.</summary>
    public static string ToText(JsonElement value)
    {
        if (value.ValueKind == JsonValueKind.String)
        {
            return value.GetString()!;
        }

        using var text = new MemoryStream();
        using (var writer = new Utf8JsonWriter(text, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            value.WriteTo(writer);
        }

        return Encoding.UTF8.GetString(text.ToArray());
    }

    /// <summary>The value of a JSON text; null: it is none.</summary>
    public static JsonElement? TryParse(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            return document.RootElement.Clone();
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
