using System.Globalization;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>JSON in the form in which models write it: unescaped characters, a space after each comma and colon, numbers unchanged.</summary>
internal static class JsonText
{
    public static string Of(JsonElement value)
    {
        var text = new StringBuilder();
        Write(text, value);
        return text.ToString();
    }

    /// <summary>A quoted string.</summary>
    public static string Quote(string value)
    {
        var text = new StringBuilder();
        Write(text, value);
        return text.ToString();
    }

    private static void Write(StringBuilder text, JsonElement value)
    {
        string separator = "";
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                text.Append('{');
                foreach (JsonProperty property in value.EnumerateObject())
                {
                    Write(text.Append(separator), property.Name);
                    Write(text.Append(": "), property.Value);
                    separator = ", ";
                }

                text.Append('}');
                break;
            case JsonValueKind.Array:
                text.Append('[');
                foreach (JsonElement item in value.EnumerateArray())
                {
                    Write(text.Append(separator), item);
                    separator = ", ";
                }

                text.Append(']');
                break;
            case JsonValueKind.String:
                Write(text, value.GetString()!);
                break;
            default:
                text.Append(value.GetRawText());
                break;
        }
    }

    private static void Write(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            _ = c switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append("\\\\"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                '\b' => text.Append("\\b"),
                '\f' => text.Append("\\f"),
                < ' ' or '\x7F' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => text.Append(c),
            };
        }

        text.Append('"');
    }
}
