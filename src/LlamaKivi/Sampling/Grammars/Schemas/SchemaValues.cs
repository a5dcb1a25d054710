using System.Runtime.CompilerServices;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Values that schemas list or exclude.</summary>
internal sealed class SchemaValues(JsonSchemaGrammar grammar)
{
    private const string Listing = "!list";

    /// <summary>The values of the first <c>enum</c> or <c>const</c> that fit all of the schemas.</summary>
    public JsonElement[] Listed(SchemaSet set)
    {
        SchemaPart part = set.Parts.First(part => part.Has("const") || part.Has("enum"));
        JsonElement[] values = part.TryGet("const", out JsonElement constant) ? [constant] : part.Choices("enum");
        grammar.Work.Compare(values.Length, part.Path);
        SchemaSet others = new([.. set.Parts.Select(other => other.Path == part.Path ? other with { Chosen = other.Chosen + Listing } : other)]);
        return [.. values.Where(value => Fits(value, others)).DistinctBy(TextOf, StringComparer.Ordinal)];
    }

    /// <summary>A value in the form in which models write it.</summary>
    public static string TextOf(JsonElement value) => JsonText.Of(value);

    /// <summary>Place of a schema that excludes every value; null: none.</summary>
    public static string? ExcludesAll(SchemaSet set)
    {
        foreach (SchemaPart part in set.With("not"))
        {
            JsonElement not = part.Element.GetProperty("not");
            if (not.ValueKind == JsonValueKind.True || (not.ValueKind == JsonValueKind.Object && !not.EnumerateObject().Any()))
            {
                return part.Path;
            }
        }

        return null;
    }

    /// <summary>Types that <c>not</c> excludes.</summary>
    public static IEnumerable<string> ExcludedTypes(SchemaSet set) => Nots(set)
        .Where(not => not.Has("type")).SelectMany(not => not.Element.GetProperty("type").ValueKind == JsonValueKind.Array ? not.Choices("type").Select(type => not.Text(type, "type")) : [not.Text("type")])
        .Concat(Excluded(set).Where(value => value.ValueKind == JsonValueKind.Null).Select(_ => "null"));

    /// <summary>Values that <c>not</c> excludes.</summary>
    public static IEnumerable<JsonElement> Excluded(SchemaSet set) => Nots(set)
        .SelectMany(not => not.TryGet("const", out JsonElement value) ? [value] : not.Has("enum") ? not.Choices("enum") : []);

    /// <summary>Whether <c>not</c> excludes a string.</summary>
    public bool IsExcluded(SchemaSet set, string text) => Excluded(set).Any(value => value.GetRawText() == text);

    /// <summary>Whether a value fits all of some schemas.</summary>
    public bool Fits(JsonElement value, SchemaSet set) =>
        set.Parts.All(part => Fits(value, part)) && !Excluded(set).Any(other => JsonElement.DeepEquals(other, value)) && FitsTypes(value, set);

    private bool Fits(JsonElement value, SchemaPart part)
    {
        // Options of a value in a listed array or object may lead back to themselves.
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new GrammarException($"The schema nests too deep at {part.Path}: its options lead through too many others.");
        }

        foreach (string keyword in new[] { "anyOf", "oneOf" })
        {
            if (part.Has(keyword) && !part.Chosen.Contains(keyword, StringComparison.Ordinal) && !part.Children(keyword).Any(option => FitsAll(value, option)))
            {
                return false;
            }
        }

        // A value of the listing enum fits it; searching a long list for each of its values would be slow.
        bool isListed = part.Chosen.EndsWith(Listing, StringComparison.Ordinal) && !part.Has("const");
        grammar.Work.Compare(isListed || !part.TryGet("enum", out JsonElement list) || list.ValueKind != JsonValueKind.Array ? 1 : list.GetArrayLength(), part.Path);
        return (!part.Has("const") || JsonElement.DeepEquals(part.Element.GetProperty("const"), value))
            && (!part.Has("enum") || isListed || part.Choices("enum").Any(other => JsonElement.DeepEquals(other, value)));
    }

    private bool FitsAll(JsonElement value, SchemaPart part) => grammar.Document.Expand(part) is { } set && Fits(value, set);

    private bool FitsTypes(JsonElement value, SchemaSet set)
    {
        // Without a type, a keyword applies only to values of its own type.
        string[]? types = set.Has("type") || set.Has("not") ? JsonSchemaGrammar.Types(set) : null;
        switch (value.ValueKind)
        {
            case JsonValueKind.Number:
                Decimals? number = Decimals.Parse(value.GetRawText());
                return types?.Contains("number") != false || types.Contains("integer") && number is { Scale: 0 }
                    ? number is null || new SchemaNumbers(grammar, set, isInteger: false).Fits(number.Value) : false;
            case JsonValueKind.String:
                return types?.Contains("string") != false && new SchemaStrings(grammar, set).Fits(value.GetString()!);
            case JsonValueKind.Array:
                return types?.Contains("array") != false && FitsItems(value, set);
            case JsonValueKind.Object:
                return types?.Contains("object") != false && FitsProperties(value, set);
            case JsonValueKind.Null:
                return types?.Contains("null") != false;
            default:
                return types?.Contains("boolean") != false;
        }
    }

    private bool FitsItems(JsonElement value, SchemaSet set)
    {
        int count = value.GetArrayLength();
        return count >= set.Least("minItems") && count <= (set.Most("maxItems") ?? int.MaxValue)
            && value.EnumerateArray().Select((item, i) => (item, i)).All(one => SchemaArrays.ItemParts(set, one.i).All(part => FitsAll(one.item, part)));
    }

    private bool FitsProperties(JsonElement value, SchemaSet set)
    {
        int count = value.GetPropertyCount();
        grammar.Work.Compare((long)count * (set.With("properties").Sum(part => part.Object("properties").GetPropertyCount()) + set.With("required").Sum(part => part.List("required").Length)), set.Path);
        return count >= set.Least("minProperties") && count <= (set.Most("maxProperties") ?? int.MaxValue)
            && set.With("required").All(part => part.List("required").All(name => value.TryGetProperty(part.Text(name, "required"), out _)))
            && value.EnumerateObject().All(property => grammar.Properties.ValueParts(set, property.Name).All(part => FitsAll(property.Value, part)));
    }

    private static IEnumerable<SchemaPart> Nots(SchemaSet set)
    {
        foreach (SchemaPart part in set.With("not"))
        {
            JsonElement not = part.Element.GetProperty("not");
            if (not.ValueKind == JsonValueKind.False)
            {
                continue;
            }

            if (not.ValueKind != JsonValueKind.Object || not.EnumerateObject().FirstOrDefault(property => property.Name is not ("enum" or "const" or "type" or "description" or "title")) is { Value.ValueKind: not JsonValueKind.Undefined }
                || not.EnumerateObject().Count(property => property.Name is "enum" or "const" or "type") > 1)
            {
                throw part.Refuse("not", "only one of enum, const and type can be excluded");
            }

            yield return new SchemaPart(not, $"{part.Path}/not");
        }
    }
}
