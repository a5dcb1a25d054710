using System.Globalization;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Keeps the options of a <c>oneOf</c> apart: a text of one option should fit no other.</summary>
/// <remarks>
/// Options with different types, or with different values of a required property, are apart already. Two objects are kept apart by a property that only one
/// requires: the other is written without it. Options that are nothing but the same type are refused. What remains is read as <c>anyOf</c>.
/// </remarks>
internal sealed class SchemaAlternatives(JsonSchemaGrammar grammar, SchemaPart part, SchemaPart[] around)
{
    private readonly SchemaSet?[] _options = [.. part.Children("oneOf").Select(option => grammar.Document.Expand(option))];  // null: fits nothing

    /// <summary>Schemas that forbid an option's texts what would make them fit another option.</summary>
    /// <param name="option">Number of the option.</param>
    /// <exception cref="GrammarException">The option and another one always fit the same values.</exception>
    public IEnumerable<SchemaPart> Forbidden(int option)
    {
        for (int other = 0; other < _options.Length; other++)
        {
            if (other == option || _options[option] is not { } one || _options[other] is not { } another || AreApart(one, another))
            {
                continue;
            }

            if (IsTypeOnly(one) && IsTypeOnly(another))
            {
                throw part.Refuse("oneOf", string.Create(CultureInfo.InvariantCulture,
                    $"a value can fit its options {Math.Min(option, other)} and {Math.Max(option, other)} at once; use anyOf, or give the options different types or constants"));
            }

            string[] names = Types(one) is not ["object"] ? [] : [.. Required(another).Except(Required(one), StringComparer.Ordinal)];
            if (names.Length > 0)
            {
                string name = Array.Find(names, name => !grammar.Properties.ValueParts(new SchemaSet([.. around, .. one.Parts]), name).Any()) ?? names[0];
                JsonElement schema = JsonDocument.Parse("{\"properties\":{" + JsonText.Quote(name) + ":false}}").RootElement;
                yield return new SchemaPart(schema, string.Create(CultureInfo.InvariantCulture, $"{part.Path}/oneOf/{other}/required"), "!" + name);
            }
        }
    }

    private bool AreApart(SchemaSet one, SchemaSet another)
    {
        grammar.Work.Add(1 + around.Length, part.Path);
        string[] types = Types(one);
        string[] others = Types(another);
        return !types.Intersect(others, StringComparer.Ordinal).Any()
            || (Listed(one) is { } values && Listed(another) is { } otherValues && !Meet(values, otherValues))
            || (types is ["object"] && Required(one).Intersect(Required(another), StringComparer.Ordinal).Any(name =>
                Listed(Property(one, name)) is { } own && Listed(Property(another, name)) is { } foreign && !Meet(own, foreign)));
    }

    private bool Meet(JsonElement[] one, JsonElement[] another)
    {
        grammar.Work.Compare((long)one.Length * another.Length, part.Path);
        return Array.Exists(one, value => Array.Exists(another, other => JsonElement.DeepEquals(value, other)));
    }

    private SchemaSet? Property(SchemaSet option, string name) => grammar.Document.Expand(grammar.Properties.ValueParts(option, name));

    private JsonElement[]? Listed(SchemaSet? set) => set?.Has("enum", "const") == true && !set.Has("anyOf", "oneOf") ? grammar.Values.Listed(set) : null;

    private string[] Types(SchemaSet option) => [.. JsonSchemaGrammar.Types(new SchemaSet([.. around, .. option.Parts])).Select(type => type == "integer" ? "number" : type)];

    private IEnumerable<string> Required(SchemaSet option) => around.Concat(option.Parts).Where(one => one.Has("required"))
        .SelectMany(one => one.List("required").Select(name => one.Text(name, "required")));

    private static bool IsTypeOnly(SchemaSet option) => option.Parts.Length == 1 && option.Has("type")
        && !option.Has([.. KeywordsOf.Number, .. KeywordsOf.String, .. KeywordsOf.Array, .. KeywordsOf.Object, "not", "enum", "const", "anyOf", "oneOf"]);
}
