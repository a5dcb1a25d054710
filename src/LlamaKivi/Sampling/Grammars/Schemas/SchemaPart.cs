using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>A schema and its place in the document.</summary>
/// <param name="Element">An object.</param>
/// <param name="Path">JSON pointer from the root of the document, as a fragment.</param>
/// <param name="Chosen">Keywords of choices whose option is already selected.</param>
/// <param name="Via">Places of the choices whose options led here, for the same value.</param>
internal readonly record struct SchemaPart(JsonElement Element, string Path, string Chosen = "", string Via = "")
{
    /// <summary>Whether the schema was reached through an option of another schema or of itself.</summary>
    public bool IsFrom(string path) => Path == path || Via.Contains($"\n{path}\n", StringComparison.Ordinal);

    public bool Has(string keyword) => Element.TryGetProperty(keyword, out _);

    public bool TryGet(string keyword, out JsonElement value) => Element.TryGetProperty(keyword, out value);

    /// <summary>The schema that is the value of a keyword.</summary>
    public SchemaPart Child(string keyword) => new(Element.GetProperty(keyword), $"{Path}/{keyword}");

    /// <summary>A schema in the object of a keyword.</summary>
    public SchemaPart Child(string keyword, string name) =>
        new(Object(keyword).GetProperty(name), $"{Path}/{keyword}/{Escape(name)}");

    /// <summary>The schemas in the list of a keyword; at least one.</summary>
    public SchemaPart[] Children(string keyword)
    {
        string path = $"{Path}/{keyword}";
        return [.. Choices(keyword).Select((element, i) => new SchemaPart(element, $"{path}/{i}"))];
    }

    public JsonElement Object(string keyword) => Element.GetProperty(keyword) is { ValueKind: JsonValueKind.Object } value
        ? value : throw new GrammarException($"The schema at {Path}/{keyword} must be an object.");

    public string Text(string keyword) => Text(Element.GetProperty(keyword), keyword);

    public string Text(JsonElement value, string keyword) => value.ValueKind == JsonValueKind.String
        ? value.GetString()! : throw new GrammarException($"The schema's {keyword} at {Path} must be a string.");

    public JsonElement[] List(string keyword) => Element.GetProperty(keyword) is { ValueKind: JsonValueKind.Array } value
        ? [.. value.EnumerateArray()] : throw new GrammarException($"The schema's {keyword} at {Path} must be a list.");

    /// <summary>The list of a keyword, of which a text must fit one element.</summary>
    public JsonElement[] Choices(string keyword) => List(keyword) is { Length: > 0 } list
        ? list : throw new GrammarException($"The schema's {keyword} at {Path} is empty, so no text fits it.");

    public bool Flag(string keyword) => Element.TryGetProperty(keyword, out JsonElement value) && (value.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw new GrammarException($"The schema's {keyword} at {Path} must be true or false."),
    });

    /// <summary>A number of characters, items or properties; null: the keyword is absent.</summary>
    public int? Count(string keyword)
    {
        if (!Element.TryGetProperty(keyword, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.Number && Decimals.Parse(value.GetRawText()) is { Sign: >= 0, Scale: 0 } n
            ? (int)System.Numerics.BigInteger.Min(n.Value, int.MaxValue)
            : throw new GrammarException($"The schema's {keyword} at {Path} must be an integer of at least 0.");
    }

    public GrammarException Refuse(string keyword, string why) => new($"The schema's '{keyword}' at {Path} is not supported: {why}.");

    public static string Escape(string name) => name.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal);
}

/// <summary>Schemas that a value must all fit, including referenced ones.</summary>
internal sealed class SchemaSet(SchemaPart[] parts)
{
    public SchemaPart[] Parts => parts;

    /// <summary>Equal for sets of the same schemas.</summary>
    public string Key { get; } = string.Join('\n', parts.Select(part => part.Path + part.Chosen));

    /// <summary>Place of the set, for messages.</summary>
    public string Path => parts.Length == 0 ? "#" : parts[0].Path;

    /// <summary>The schemas that have a keyword.</summary>
    public IEnumerable<SchemaPart> With(string keyword) => parts.Where(part => part.Has(keyword));

    public bool Has(params ReadOnlySpan<string> keywords)
    {
        foreach (string keyword in keywords)
        {
            if (With(keyword).Any())
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>The largest value of a count keyword.</summary>
    public int Least(string keyword) => With(keyword)
        .Max(part => part.Count(keyword) is > Unbounded ? throw part.Refuse(keyword, $"it is above {Unbounded}") : part.Count(keyword)) ?? 0;

    /// <summary>The smallest value of a count keyword; null: no bound.</summary>
    public int? Most(string keyword) => With(keyword).Min(part => part.Count(keyword)) is { } most && most < Unbounded ? most : null;

    // No text is this long.
    private const int Unbounded = 1_000_000_000;
}
