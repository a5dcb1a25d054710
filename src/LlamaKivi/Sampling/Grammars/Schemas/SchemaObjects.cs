using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Objects: described properties in the schema's order, then others, within the allowed number.</summary>
internal sealed class SchemaObjects(JsonSchemaGrammar grammar, SchemaSet set)
{
    private const int MaxCounted = 20_000;

    // Maximum number of names from which other names must differ. More would cost more than a rare duplicate.
    private const int MaxExcluded = 2_000;

    private JsonRules Json => grammar.Json;

    public Gbnf Write()
    {
        (int least, int? most) = (set.Least("minProperties"), set.Most("maxProperties"));
        if (most < least)
        {
            return grammar.Nothing(set, $"minProperties {least} at {set.With("minProperties").First().Path} is above maxProperties {most} at {set.With("maxProperties").First().Path}");
        }

        List<Property> properties = Properties();
        foreach (Property property in properties.Where(property => property.IsRequired && property.Body == Gbnf.Never))
        {
            return grammar.Nothing(set, $"the object at {set.Path} requires '{property.Name}', which no value fits{(property.Why is null ? "" : $": {property.Why}")}");
        }

        // A name that its schema forbids must not be written as an undescribed one.
        string[] described = [.. properties.Select(property => property.Name)];
        properties.RemoveAll(property => property.Body == Gbnf.Never);
        int required = properties.Count(property => property.IsRequired);
        if (required > most)
        {
            return grammar.Nothing(set, $"the object at {set.Path} requires {required} properties, which is above maxProperties {most}");
        }

        Gbnf other = Other(described);
        if (other == Gbnf.Never && properties.Count < least)
        {
            return grammar.Nothing(set, $"the object at {set.Path} has {properties.Count} properties, which is below minProperties {least}");
        }

        // Bounds that always hold need no counting.
        least = least <= required ? 0 : least;
        most = other == Gbnf.Never && most >= properties.Count ? null : most;
        Gbnf inner = least == 0 && most is null ? Plain(properties, other)
            : properties.Count == 0 ? Others(other, least, most, isFirst: true)
            : Counted(properties, other, least, most);
        return Json.Rules.Add(Gbnf.Sequence(Gbnf.Text("{"), Json.Blank, inner, Gbnf.Text("}")), set.Path);
    }

    // Described and required properties. A type discriminator comes first, because readers select the type by it.
    private List<Property> Properties()
    {
        var required = new HashSet<string>(set.With("required").SelectMany(part => part.List("required").Select(name => part.Text(name, "required"))), StringComparer.Ordinal);
        string[] described = [.. set.With("properties").SelectMany(part => part.Object("properties").EnumerateObject().Select(property => property.Name)).Concat(ListedNames()).Distinct(StringComparer.Ordinal)];
        var properties = new List<Property>();

        // Each name is looked up among all others.
        grammar.Work.Compare((long)(described.Length + required.Count) * described.Length, set.Path);
        foreach (string name in described.Concat(required).Distinct(StringComparer.Ordinal).OrderBy(name => name.StartsWith('$') ? 0 : 1))
        {
            SchemaPart[] parts = [.. grammar.Properties.ValueParts(set, name)];
            bool isAllowed = described.Contains(name) || (!IsClosed(parts) && !Array.Exists(parts, part => part.Element.ValueKind == JsonValueKind.False));
            if (!isAllowed)
            {
                grammar.Nothing(set, $"the object at {set.Path} requires '{name}', which its properties do not describe");
            }

            isAllowed &= NamesFit(name);
            string? why = null;
            Gbnf value = isAllowed ? grammar.Visit(parts, out why) : Gbnf.Never;
            string key = JsonText.Quote(name)[1..];
            properties.Add(new Property(name, required.Contains(name), Gbnf.Sequence(Gbnf.Text(key), Json.Blank, Gbnf.Text(":"), Json.Blank, value, Json.Blank), why));
        }

        return properties;
    }

    // Names listed by propertyNames count as described: each occurs once.
    private IEnumerable<string> ListedNames()
    {
        SchemaPart[] schemas = [.. set.With("propertyNames").Select(part => part.Child("propertyNames"))];
        return schemas.Length > 0 && grammar.Document.Expand(schemas) is { } names && names.Has("enum", "const")
            ? grammar.Values.Listed(names).Where(value => value.ValueKind == JsonValueKind.String).Select(value => value.GetString()!)
            : [];
    }

    private bool IsClosed(SchemaPart[] parts) => parts.Length == 0 && set.With("unevaluatedProperties").Any(part => part.Element.GetProperty("unevaluatedProperties").ValueKind == JsonValueKind.False);

    private bool NamesFit(string name)
    {
        foreach (SchemaPart part in set.With("propertyNames"))
        {
            if (grammar.Document.Expand(part.Child("propertyNames")) is not { } names || !grammar.Values.Fits(JsonDocument.Parse(JsonText.Quote(name)).RootElement, names))
            {
                return false;
            }
        }

        return true;
    }

    // Undescribed properties, after the opening quote of the name.
    private Gbnf Other(string[] described)
    {
        SchemaPart[] additional = [.. set.With("additionalProperties").Select(part => part.Child("additionalProperties"))];
        SchemaPart[] patterned = [.. set.With("patternProperties")];
        if (patterned.Length > 1)
        {
            throw patterned[1].Refuse("patternProperties", $"they cannot be combined with those at {patterned[0].Path}");
        }

        (SchemaPart Value, Automaton Names)[] patterns = patterned.Length == 0 ? [] : [.. grammar.Properties.PatternsOf(patterned[0])];
        var options = new List<Gbnf>();
        for (int i = 0; i < patterns.Length; i++)
        {
            // Names that match only this pattern; names that match several would need to fit all their schemas.
            Automaton? names = patterns[i].Names;
            foreach (Automaton others in patterns.Where((_, j) => j != i).Select(pattern => pattern.Names))
            {
                names = names?.Except(others);
                grammar.Work.Add(10L * names?.Accepts.Length ?? 0, patterned[0].Path);
            }

            options.Add(Entry(Name(names ?? throw patterned[0].Refuse("patternProperties", "they take too many states"), described), grammar.Visit([patterns[i].Value])));
        }

        // Described properties only, unless a schema allows others or describes none.
        bool isOpen = additional.Length > 0 || (patterns.Length == 0 && !set.Has("properties"));
        if (isOpen && !set.With("unevaluatedProperties").Any(part => part.Element.GetProperty("unevaluatedProperties").ValueKind == JsonValueKind.False)
            && !Array.Exists(additional, part => part.Element.ValueKind == JsonValueKind.False))
        {
            Automaton? rest = null;
            foreach ((_, Automaton names) in patterns)
            {
                rest = (rest ?? Automaton.Universal).Except(names) ?? throw patterned[0].Refuse("patternProperties", "they take too many states");
            }

            Gbnf value = grammar.Visit(additional);
            options.Add(Entry(Name(rest, described), value));
        }

        return Gbnf.Choice(options) is var other && (other == Gbnf.Never || options.Count == 0) ? Gbnf.Never : Json.Rules.Add(other, $"additionalProperties at {set.Path}");
    }

    private Gbnf Entry(Gbnf name, Gbnf value) => Gbnf.Sequence(name, Json.Blank, Gbnf.Text(":"), Json.Blank, value, Json.Blank);

    // A name after its opening quote: accepted by an automaton and by propertyNames, and not a described one.
    private Gbnf Name(Automaton? names, string[] described)
    {
        string[] excluded = described.Sum(name => name.Length) > MaxExcluded ? [] : described;
        SchemaPart[] schemas = [.. set.With("propertyNames").Select(part => part.Child("propertyNames"))];
        if (schemas.Length > 0)
        {
            if (names is not null)
            {
                throw set.With("propertyNames").First().Refuse("propertyNames", "it cannot be combined with patternProperties");
            }

            return grammar.Document.Expand(schemas) is { } all ? NameOf(all, excluded) : Gbnf.Never;
        }

        if (names is null && excluded.Length == 0)
        {
            return Gbnf.Sequence(Gbnf.Repeat(Json.Character, 0, null), Gbnf.Text("\""));
        }

        Automaton rest = (names ?? Automaton.Universal).Except(Automaton.OfWords(excluded)) ?? throw set.Parts[0].Refuse("properties", "their names take too many states");
        return Json.Of(rest, Json.InString, $"properties at {set.Path}", Gbnf.Text("\""));
    }

    private Gbnf NameOf(SchemaSet schema, string[] excluded) => schema.Has("enum", "const") ? Gbnf.Never  // all names are described
        : schema.Has("anyOf", "oneOf") ? throw schema.Parts[0].Refuse(schema.Has("anyOf") ? "anyOf" : "oneOf", "choices of names cannot be enforced; use an enum or a pattern")
        : new SchemaStrings(grammar, schema).Rest(excluded);

    // The continuation after a property begins with the comma, then a quote, so that many possible properties cost no more than one until
    // their names differ. Built from the last described property backwards.
    private Gbnf Plain(List<Property> properties, Gbnf other)
    {
        Gbnf? rest = other == Gbnf.Never ? null
            : Json.Rules.Add(Gbnf.Sequence(other, Gbnf.Repeat(Gbnf.Sequence(Comma, Quote, other), 0, null)), set.Path);
        bool optional = true;
        for (int i = properties.Count - 1; i >= 0; i--)
        {
            Property property = properties[i];
            Gbnf one = Gbnf.Sequence(property.Body, Following(Comma));
            rest = Json.Rules.Add(property.IsRequired || rest is null ? one : Gbnf.Choice(one, rest), set.Path);
            optional &= !property.IsRequired;
        }

        return Following(Gbnf.Empty);

        Gbnf Following(Gbnf comma) => rest is null ? Gbnf.Empty
            : Gbnf.Repeat(Gbnf.Sequence(comma, Quote, rest), optional ? 0 : 1, 1);
    }

    private Gbnf Others(Gbnf other, int least, int? most, bool isFirst)
    {
        Gbnf one = Gbnf.Sequence(Quote, other);
        if (!isFirst)
        {
            return Gbnf.Repeat(Gbnf.Sequence(Comma, one), Math.Max(least, 0), most);
        }

        Gbnf some = Gbnf.Sequence(one, Gbnf.Repeat(Gbnf.Sequence(Comma, one), Math.Max(least - 1, 0), most - 1));
        return most == 0 ? Gbnf.Empty : least > 0 ? some : Gbnf.Optional(some);
    }

    // One rule per described property and number of preceding properties.
    private Gbnf Counted(List<Property> properties, Gbnf other, int least, int? most)
    {
        if ((long)properties.Count * properties.Count > MaxCounted)
        {
            SchemaPart part = set.Parts.First(part => part.Has("minProperties") || part.Has("maxProperties"));
            throw part.Refuse(part.Has("maxProperties") ? "maxProperties" : "minProperties", $"beside {properties.Count} described properties it takes too many rules");
        }

        var known = new Dictionary<(int, int), Gbnf>();
        return From(0, 0);

        Gbnf From(int index, int count)
        {
            if (known.TryGetValue((index, count), out Gbnf? rule))
            {
                return rule;
            }

            Gbnf comma = count == 0 ? Gbnf.Empty : Comma;
            if (index == properties.Count)
            {
                rule = count > most ? Gbnf.Never
                    : other == Gbnf.Never ? count >= least ? Gbnf.Empty : Gbnf.Never
                    : Others(other, least - count, most - count, isFirst: count == 0);
            }
            else
            {
                Gbnf with = count >= most ? Gbnf.Never : Gbnf.Sequence(comma, Quote, properties[index].Body, From(index + 1, count + 1));
                rule = properties[index].IsRequired ? with : Gbnf.Choice(with, From(index + 1, count));
            }

            rule = Json.Rules.Add(rule, set.Path);
            known.Add((index, count), rule);
            return rule;
        }
    }

    private static readonly Gbnf Quote = Gbnf.Text("\"");

    private Gbnf Comma => Gbnf.Sequence(Gbnf.Text(","), Json.Blank);

    /// <param name="Name">Name of the property.</param>
    /// <param name="IsRequired">Whether it is required.</param>
    /// <param name="Body">The property after the opening quote of its name.</param>
    /// <param name="Why">The reason why no value fits; null: some do.</param>
    private sealed record Property(string Name, bool IsRequired, Gbnf Body, string? Why);
}
