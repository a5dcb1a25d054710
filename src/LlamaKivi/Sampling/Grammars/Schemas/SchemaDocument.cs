using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>A schema document: resolves references, and finds all schemas that one value must fit.</summary>
/// <param name="root">The schema.</param>
/// <param name="work">Counts the work.</param>
/// <param name="owner">Owner of the schema, which paths begin with; null: paths need none.</param>
internal sealed class SchemaDocument(JsonElement root, CompositionWork work, string? owner = null)
{
    // Maximum number of references and allOf from one schema to the next. Each takes a part of the stack.
    private const int MaxDepth = 500;

    private static readonly HashSet<string> Constraints =
        ["anyOf", "oneOf", "not", "enum", "const", "type", "nullable", .. KeywordsOf.Number, .. KeywordsOf.String, .. KeywordsOf.Array, .. KeywordsOf.Object];

    private static readonly HashSet<string> Others =
    [
        "$ref", "allOf", "$schema", "$id", "id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary", "title", "description", "default", "example", "examples",
        "deprecated", "readOnly", "writeOnly", "strict", "contentMediaType", "contentSchema", "discriminator", "externalDocs", "xml",
    ];

    private Dictionary<string, SchemaPart>? _anchors;

    public SchemaPart Root => new(root, owner is null ? "#" : $"{owner}, #");

    /// <summary>The schemas themselves, those that they refer to and those of their <c>allOf</c>.</summary>
    /// <returns>The set; null: one of them is <c>false</c>.</returns>
    public SchemaSet? Expand(params IEnumerable<SchemaPart> parts)
    {
        var found = new List<SchemaPart>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        bool never = false;
        foreach (SchemaPart part in parts)
        {
            Add(part, []);
        }

        return never ? null : new SchemaSet([.. found]);

        void Add(SchemaPart part, HashSet<string> trail)
        {
            if (part.Element.ValueKind is JsonValueKind.True or JsonValueKind.False)
            {
                never |= part.Element.ValueKind == JsonValueKind.False;
                return;
            }

            if (part.Element.ValueKind != JsonValueKind.Object)
            {
                throw new GrammarException($"The schema at {part.Path} must be an object or true or false.");
            }

            if (!trail.Add(part.Path))
            {
                throw new GrammarException($"The schema at {part.Path} refers to itself without a value between.");
            }

            if (trail.Count > MaxDepth)
            {
                throw new GrammarException($"The schema nests too deep at {part.Path}: more than {MaxDepth} references follow each other.");
            }

            // What several schemas refer to is followed once.
            if (!seen.Add(part.Path))
            {
                trail.Remove(part.Path);
                return;
            }

            work.Add(1 + part.Element.GetPropertyCount() / 8, part.Path);
            bool isConstraint = Check(part);
            if (part.Has("$ref"))
            {
                Add(Resolve(part.Text("$ref"), part), trail);
            }

            if (part.Has("allOf"))
            {
                foreach (SchemaPart one in part.Children("allOf"))
                {
                    Add(one, trail);
                }
            }

            trail.Remove(part.Path);
            if (isConstraint)
            {
                found.Add(part);
            }
        }
    }

    // Whether the schema says something itself. Refuses keywords that would be passed over in silence.
    private static bool Check(SchemaPart part)
    {
        bool isConstraint = false;
        foreach (JsonProperty property in part.Element.EnumerateObject())
        {
            if (Constraints.Contains(property.Name))
            {
                isConstraint = true;
            }
            else if (!Others.Contains(property.Name) && !property.Name.StartsWith("x-", StringComparison.Ordinal))
            {
                throw part.Refuse(property.Name, "a text could not be held to it");
            }
        }

        return isConstraint;
    }

    private SchemaPart Resolve(string reference, SchemaPart from)
    {
        string fragment = reference;
        if (root.TryGetProperty("$id", out JsonElement id) && id.ValueKind == JsonValueKind.String && id.GetString()!.TrimEnd('#') is { Length: > 0 } name
            && (reference == name || reference.StartsWith(name + "#", StringComparison.Ordinal)))
        {
            fragment = reference.Length == name.Length ? "#" : reference[name.Length..];
        }

        if (!fragment.StartsWith('#'))
        {
            throw new GrammarException($"The schema's $ref '{reference}' at {from.Path} leads out of the schema.");
        }

        if (fragment.Length > 1 && fragment[1] != '/')
        {
            _anchors ??= Anchors();
            return _anchors.TryGetValue(Uri.UnescapeDataString(fragment[1..]), out SchemaPart anchored) ? anchored : throw Nowhere();
        }

        return Follow(root, Root.Path, fragment) ?? (Wrapped() is { } inner ? Follow(inner, $"{Root.Path}/properties/data", fragment) : null) ?? throw Nowhere();

        GrammarException Nowhere() => new($"The schema's $ref '{reference}' at {from.Path} leads nowhere.");
    }

    private SchemaPart? Follow(JsonElement at, string path, string fragment)
    {
        foreach (string part in fragment.Split('/').Skip(1))
        {
            string key = Uri.UnescapeDataString(part).Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);
            path += "/" + SchemaPart.Escape(key);
            if (at.ValueKind == JsonValueKind.Object)
            {
                work.Compare(at.GetPropertyCount(), path);
                if (!at.TryGetProperty(key, out at))
                {
                    return null;
                }
            }
            else if (at.ValueKind == JsonValueKind.Array && int.TryParse(key, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int i) && i < at.GetArrayLength()
                && (key == "0" || key[0] != '0'))
            {
                at = at[i];
            }
            else
            {
                return null;
            }
        }

        return new SchemaPart(at, path);
    }

    // GetResponseAsync<T> of Microsoft.Extensions.AI puts the schema of a list or a number into {"data": ...} and leaves its references as they were.
    private JsonElement? Wrapped() =>
        root.ValueKind == JsonValueKind.Object && root.TryGetProperty("properties", out JsonElement properties) && properties.ValueKind == JsonValueKind.Object &&
        properties.EnumerateObject().Count() == 1 && properties.TryGetProperty("data", out JsonElement data) ? data : null;

    private Dictionary<string, SchemaPart> Anchors()
    {
        var anchors = new Dictionary<string, SchemaPart>(StringComparer.Ordinal);
        var open = new Stack<SchemaPart>([Root]);
        while (open.TryPop(out SchemaPart part))
        {
            if (part.Element.ValueKind == JsonValueKind.Object)
            {
                if (part.TryGet("$anchor", out JsonElement anchor) && anchor.ValueKind == JsonValueKind.String)
                {
                    anchors.TryAdd(anchor.GetString()!, part);
                }

                foreach (JsonProperty property in part.Element.EnumerateObject().Where(property => property.Name is not ("enum" or "const" or "default" or "examples")))
                {
                    open.Push(new SchemaPart(property.Value, $"{part.Path}/{SchemaPart.Escape(property.Name)}"));
                }
            }
            else if (part.Element.ValueKind == JsonValueKind.Array)
            {
                int i = 0;
                foreach (JsonElement element in part.Element.EnumerateArray())
                {
                    open.Push(new SchemaPart(element, $"{part.Path}/{i++}"));
                }
            }
        }

        return anchors;
    }
}

/// <summary>Keywords by the type of the values that they are about; values of other types fit them all.</summary>
internal static class KeywordsOf
{
    public static readonly string[] Number = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];

    public static readonly string[] String = ["minLength", "maxLength", "pattern", "format", "contentEncoding"];

    public static readonly string[] Array = ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"];

    public static readonly string[] Object =
        ["properties", "required", "additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties"];
}
