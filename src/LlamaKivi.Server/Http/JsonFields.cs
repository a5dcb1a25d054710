using System.Globalization;
using System.Text.Json;

namespace LlamaKivi.Server;

/// <summary>Reads the fields of a JSON object of a request. Errors name the field by its path.</summary>
/// <remarks>A field whose value is null counts as absent. <see cref="RequestJson"/> has checked all names and strings.</remarks>
internal sealed class JsonFields
{
    private readonly JsonElement _object;
    private readonly string _path;
    private readonly HashSet<string> _known = new(StringComparer.Ordinal);

    /// <summary>Reads an object.</summary>
    /// <param name="value">The object.</param>
    /// <param name="path">Its path; empty: the body.</param>
    public JsonFields(JsonElement value, string path)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            throw ApiException.Bad(path.Length == 0 ? null : path, $"{(path.Length == 0 ? "The body" : path)} is {Kind(value)}; it must be an object.", "invalid_type");
        }

        (_object, _path) = (value, path);
    }

    /// <summary>The object.</summary>
    public JsonElement Element => _object;

    /// <summary>A field's path.</summary>
    public string Path(string name) => _path.Length == 0 ? name : $"{_path}.{name}";

    /// <summary>Whether a field is present; marks it as known.</summary>
    public bool TryGet(string name, out JsonElement value)
    {
        _known.Add(name);
        return _object.TryGetProperty(name, out value) && value.ValueKind != JsonValueKind.Null;
    }

    public string? Text(string name) => TryGet(name, out JsonElement value) ? Text(value, Path(name)) : null;

    public string RequiredText(string name) => Text(name) ?? throw Missing(name);

    /// <summary>A text that is more than spaces.</summary>
    public string RequiredName(string name) => RequiredText(name) is var text && !string.IsNullOrWhiteSpace(text)
        ? text
        : throw ApiException.Bad(Path(name), $"{Path(name)} is empty.", "invalid_value");

    public JsonElement Required(string name) => TryGet(name, out JsonElement value) ? value : throw Missing(name);

    public bool? Flag(string name) => !TryGet(name, out JsonElement value) ? null
        : value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean()
        : throw Wrong(Path(name), value, "true or false");

    public long? Whole(string name, long least, long most)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return null;
        }

        string range = string.Create(CultureInfo.InvariantCulture, $"a whole number from {least} to {most}");
        if (value.ValueKind != JsonValueKind.Number)
        {
            throw Wrong(Path(name), value, range);
        }

        // 1.0 and 1e2 are whole numbers too.
        return value.TryGetDouble(out double number) && number == Math.Floor(number) && number >= least && number <= most
            ? value.TryGetInt64(out long whole) ? whole : (long)number
            : throw ApiException.Bad(Path(name), $"{Path(name)} is {Shortened(value)}; it must be {range}.", "invalid_value");
    }

    public float? Number(string name, double least, double most) => TryGet(name, out JsonElement value) ? Number(value, Path(name), least, most) : null;

    public static float Number(JsonElement value, string path, double least, double most)
    {
        string range = string.Create(CultureInfo.InvariantCulture, $"a number from {least} to {most}");
        return value.ValueKind != JsonValueKind.Number ? throw Wrong(path, value, range)
            : value.TryGetDouble(out double number) && number >= least && number <= most ? (float)number
            : throw ApiException.Bad(path, $"{path} is {Shortened(value)}; it must be {range}.", "invalid_value");
    }

    public JsonFields? Object(string name) => TryGet(name, out JsonElement value) ? new JsonFields(value, Path(name)) : null;

    /// <summary>The items of an array with their paths; null: absent.</summary>
    public IReadOnlyList<(JsonElement Value, string Path)>? Items(string name) => TryGet(name, out JsonElement value) ? Items(value, Path(name)) : null;

    public static IReadOnlyList<(JsonElement Value, string Path)> Items(JsonElement value, string path) => value.ValueKind == JsonValueKind.Array
        ? [.. value.EnumerateArray().Select((item, i) => (item, $"{path}[{i}]"))]
        : throw Wrong(path, value, "an array");

    /// <summary>A string, or an array of strings.</summary>
    public IReadOnlyList<string>? Texts(string name) => !TryGet(name, out JsonElement value) ? null
        : value.ValueKind == JsonValueKind.String ? [Text(value, Path(name))]
        : value.ValueKind == JsonValueKind.Array ? [.. Items(value, Path(name)).Select(item => Text(item.Value, item.Path))]
        : throw Wrong(Path(name), value, "a string or an array of strings");

    /// <summary>One of several texts.</summary>
    public string? OneOf(string name, params ReadOnlySpan<string> values)
    {
        string? text = Text(name);
        return text is null || values.Contains(text)
            ? text
            : throw ApiException.Bad(Path(name), $"{Path(name)} is '{Shortened(text)}'; it must be one of: {string.Join(", ", values)}.", "invalid_value");
    }

    /// <summary>Accepts fields that do not change the result.</summary>
    public void Accept(params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
        {
            _known.Add(name);
        }
    }

    /// <summary>Accepts a field that has only one supported value.</summary>
    public void AcceptOnly(string name, Predicate<JsonElement> isSupported, string supported)
    {
        if (TryGet(name, out JsonElement value) && !isSupported(value))
        {
            throw ApiException.Bad(Path(name), $"{Path(name)} is {Shortened(value)}, which this server does not support; {supported}.", "unsupported_value");
        }
    }

    /// <summary>Accepts a field that has only one supported text.</summary>
    public void AcceptOnly(string name, string text, string supported) => AcceptOnly(name, value => Is(value, text), supported);

    /// <summary>Whether a value is a text.</summary>
    public static bool Is(JsonElement value, string text) => value.ValueKind == JsonValueKind.String && value.ValueEquals(text);

    /// <summary>Refuses fields that were neither read nor accepted.</summary>
    public void RefuseUnknown()
    {
        foreach (JsonProperty property in _object.EnumerateObject())
        {
            if (!_known.Contains(property.Name) && property.Value.ValueKind != JsonValueKind.Null)
            {
                string path = Shortened(Path(property.Name));
                throw ApiException.Bad(path, $"The field '{path}' is unknown or not supported; remove it.", "unknown_parameter");
            }
        }
    }

    public static string Text(JsonElement value, string path) => value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Wrong(path, value, "a string");

    /// <summary>A text of at least one character.</summary>
    public static string NotEmpty(JsonElement value, string path) => Text(value, path) is { Length: > 0 } text ? text : throw ApiException.Bad(path, $"{path} is empty.", "invalid_value");

    public static ApiException Wrong(string path, JsonElement value, string expected) =>
        ApiException.Bad(path, $"{path} is {Kind(value)}; it must be {expected}.", "invalid_type");

    public ApiException Missing(string name) => ApiException.Bad(Path(name), $"{Path(name)} is missing.", "missing_required_parameter");

    private static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => "a string",
        JsonValueKind.Number => "a number",
        JsonValueKind.Null => "null",
        _ => "true or false",
    };

    private static string Shortened(JsonElement value) => Shortened(value.GetRawText());

    /// <summary>A text for messages.</summary>
    public static string Shortened(string text, int most = 80) => text.Length <= most ? text : string.Concat(text.AsSpan(0, most - 3), "...");
}
