using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Converts arguments, results and option values to JSON.</summary>
internal static class ChatJson
{
    /// <summary>Converts a value to JSON with the options of Microsoft.Extensions.AI.</summary>
    /// <exception cref="NotSupportedException">The value's type cannot be serialized.</exception>
    public static JsonElement ToElement(object? value, string what)
    {
        JsonSerializerOptions options = AIJsonUtilities.DefaultOptions;
        try
        {
            return value is JsonElement element ? element : JsonSerializer.SerializeToElement(value, options.GetTypeInfo(value?.GetType() ?? typeof(object)));
        }
        catch (Exception e) when (e is NotSupportedException or JsonException or InvalidOperationException)
        {
            throw new NotSupportedException($"{what} has the type {value?.GetType()}, which cannot be serialized to JSON: {e.Message}", e);
        }
    }

    /// <summary>Returns a string's text unquoted, and other values as JSON on one line.</summary>
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

    /// <summary>Parses JSON; null: the text is not JSON, or has a string that is not Unicode text.</summary>
    public static JsonElement? TryParse(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            return JsonUnicode.FirstFault(document.RootElement) is null ? document.RootElement.Clone() : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
