using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Unicode;

namespace LlamaKivi;

/// <summary>Finds names and strings of JSON that are not Unicode text.</summary>
/// <remarks>The parser accepts bytes that are not UTF-8, and escapes of half a surrogate pair; reading such a string throws.</remarks>
internal static class JsonUnicode
{
    /// <summary>What is wrong, for messages.</summary>
    public const string Reason = "is not valid Unicode: it has half of a surrogate pair, or bytes that are not UTF-8";

    /// <summary>The first name or string that is not Unicode text; null: there is none.</summary>
    public static JsonFault? FirstFault(JsonElement value)
    {
        if (value.ValueKind == JsonValueKind.Undefined)
        {
            return null;
        }

        ReadOnlySpan<byte> text = JsonMarshal.GetRawUtf8Value(value);
        bool isPlain = Utf8.IsValid(text) && text.IndexOf("\\ud"u8) < 0 && text.IndexOf("\\uD"u8) < 0;
        return !isPlain && Find(value) is { } fault ? fault with { Path = fault.Path.TrimStart('.') } : null;
    }

    // Paths are written on the way back, so that long names cost nothing where all is well.
    private static JsonFault? Find(JsonElement value)
    {
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (JsonProperty property in value.EnumerateObject())
                {
                    if (!TryRead(() => property.Name))
                    {
                        return new JsonFault("", IsName: true);
                    }

                    if (Find(property.Value) is { } fault)
                    {
                        return fault with { Path = $".{property.Name}{fault.Path}" };
                    }
                }

                return null;
            case JsonValueKind.Array:
                int i = 0;
                foreach (JsonElement item in value.EnumerateArray())
                {
                    if (Find(item) is { } fault)
                    {
                        return fault with { Path = $"[{i}]{fault.Path}" };
                    }

                    i++;
                }

                return null;
            case JsonValueKind.String:
                return TryRead(value.GetString) ? null : new JsonFault("", IsName: false);
            default:
                return null;
        }
    }

    private static bool TryRead(Func<string?> read)
    {
        try
        {
            read();
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }
}

/// <summary>A string that is not Unicode text.</summary>
/// <param name="Path">Path of the string, or of the object whose name it is; empty: the root.</param>
/// <param name="IsName">Whether it is a name.</param>
internal readonly record struct JsonFault(string Path, bool IsName);
