using System.Runtime.CompilerServices;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>
/// Writes the rules of the JSON texts that a JSON schema describes. Each rule is for a set of schemas that a value must fit at once: that of a property, those
/// that it refers to, those around it. Options are taken one by one, then the types, then what each type's keywords say.
/// </summary>
/// <remarks>
/// The texts are some of those that the schema allows: properties come in the schema's order, described ones only unless it says otherwise, numbers fit 64 bits.
/// What a grammar cannot hold a text to is refused with its keyword and its path. See docs/structured-output.md.
/// </remarks>
internal sealed class JsonSchemaGrammar
{
    private const int MaxDepth = 500;

    private static readonly string[] AllTypes = ["object", "array", "string", "number", "boolean", "null"];

    private static readonly string[] Choices = ["anyOf", "oneOf"];
    private static readonly string[] Booleans = ["true", "false"];

    private readonly Dictionary<string, string> _names = [];  // [set]: its rule
    private readonly Dictionary<string, int> _open = [];      // [set]: depth at which it is being written
    private int _depth;

    /// <summary>Adds a schema's rules to those of a larger grammar.</summary>
    /// <param name="json">The rules of JSON, shared by the schemas of a grammar.</param>
    /// <param name="schema">The schema; references are resolved in it.</param>
    /// <param name="owner">Owner of the schema, which messages name before a path; null: the grammar has one schema.</param>
    /// <exception cref="GrammarException">The schema has a string that is not Unicode text.</exception>
    public JsonSchemaGrammar(JsonRules json, JsonElement schema, string? owner = null)
    {
        if (JsonUnicode.FirstFault(schema) is { } fault)
        {
            throw new GrammarException($"{(fault.IsName ? "A name" : "A string")} of the schema{(owner is null ? "" : $" of {owner}")} at '{fault.Path}' {JsonUnicode.Reason}.");
        }

        Json = json;
        Document = new SchemaDocument(schema, json.Rules.Work, owner);
        Values = new SchemaValues(this);
        Patterns = new SchemaPatterns(Work);
        Properties = new SchemaProperties(Patterns);
    }

    public JsonRules Json { get; }

    /// <summary>Counts the work.</summary>
    public CompositionWork Work => Json.Rules.Work;

    public SchemaDocument Document { get; }

    public SchemaValues Values { get; }

    public SchemaPatterns Patterns { get; }

    public SchemaProperties Properties { get; }

    /// <summary>The grammar of all JSON texts.</summary>
    public static Grammar AnyJson()
    {
        var rules = new GbnfRules();
        return rules.Write(new JsonRules(rules).Document)!;
    }

    /// <summary>The grammar of a schema's texts.</summary>
    /// <exception cref="GrammarException">The schema is not valid, not supported, or fits no text.</exception>
    public static Grammar Of(JsonElement schema)
    {
        var rules = new GbnfRules();
        return rules.Write(new JsonSchemaGrammar(new JsonRules(rules), schema).Root())!;
    }

    /// <summary>Why a part of the schema fits no text.</summary>
    public string? Reason { get; private set; }

    /// <summary>A value of the schema.</summary>
    /// <exception cref="GrammarException">The schema is not valid, not supported, or fits no text.</exception>
    public Gbnf Root() => Possible(Document.Root);

    /// <summary>A value of one of the schema's properties.</summary>
    /// <param name="name">Name of the property, which <c>properties</c> must have.</param>
    /// <exception cref="GrammarException">Its schema is not valid, not supported, or fits no text.</exception>
    public Gbnf Property(string name) => Possible(Document.Root.Child("properties", name));

    private Gbnf Possible(SchemaPart part)
    {
        Reason = null;
        Gbnf value = Visit(part);
        return Json.Rules.IsPossible(value, out string? endless) ? value
            : throw new GrammarException(
                $"No text fits the schema{(Reason is { } reason ? $": {reason}" : $" at {endless ?? part.Path}: its values can only go on forever; make a property or an item optional")}.");
    }

    /// <summary>A value that fits all of some schemas.</summary>
    public Gbnf Visit(params IEnumerable<SchemaPart> parts)
    {
        SchemaPart[] all = [.. parts];
        if (++_depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new GrammarException($"The schema nests too deep at {all.FirstOrDefault(Document.Root).Path}: its references lead through more than {Math.Min(_depth, MaxDepth)} values.");
        }

        try
        {
            return Document.Expand(all) is { } set ? Rule(set) : Nothing(null, $"the schema at {all[^1].Path} is false");
        }
        finally
        {
            _depth--;
        }
    }

    /// <summary>A value that fits all of some schemas.</summary>
    /// <param name="parts">The schemas.</param>
    /// <param name="why">Why there is none.</param>
    public Gbnf Visit(IEnumerable<SchemaPart> parts, out string? why)
    {
        string? before = Reason;
        Reason = null;
        Gbnf value = Visit(parts);
        why = value == Gbnf.Never ? Reason : null;
        Reason = before ?? Reason;
        return value;
    }

    /// <summary>What no text fits. One schema that contradicts itself is refused at once; of several, another choice may fit.</summary>
    public Gbnf Nothing(SchemaSet? set, string why)
    {
        Reason ??= why;
        return set is { Parts.Length: 1 } && set.Parts[0].Chosen.Length == 0 ? throw new GrammarException($"No text fits the schema: {why}.") : Gbnf.Never;
    }

    private Gbnf Rule(SchemaSet set)
    {
        if (set.Parts.Length == 0)
        {
            return Json.Value;
        }

        if (_names.TryGetValue(set.Key, out string? name))
        {
            return _open.TryGetValue(set.Key, out int depth) && depth == _depth
                ? throw new GrammarException($"The schema at {set.Path} refers to itself without a value between.")
                : Gbnf.Rule(name);
        }

        Work.Add(set.Parts.Length, set.Path);
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new GrammarException($"The schema nests too deep at {set.Path}: its options lead through too many others.");
        }

        name = Json.Rules.NewName();
        _names.Add(set.Key, name);
        _open.Add(set.Key, _depth);
        Gbnf body = Body(set);
        _open.Remove(set.Key);
        Json.Rules.Define(name, body, set.Path);
        return body == Gbnf.Never || body.IsRule ? body : Gbnf.Rule(name);
    }

    private Gbnf Body(SchemaSet set)
    {
        if (SchemaValues.ExcludesAll(set) is { } path)
        {
            return Nothing(set, $"not at {path} excludes every value");
        }

        foreach (string keyword in Choices)
        {
            int at = Array.FindIndex(set.Parts, part => part.Has(keyword) && !part.Chosen.Contains(keyword, StringComparison.Ordinal));
            if (at >= 0)
            {
                return Options(set, at, keyword);
            }
        }

        if (set.Has("enum", "const"))
        {
            return Values.Listed(set) is { Length: > 0 } values
                ? Gbnf.Choice(values.Select(value => Gbnf.Text(SchemaValues.TextOf(value))))
                : Nothing(set, $"none of the values of {(set.Has("enum") ? "enum" : "const")} at {set.With(set.Has("enum") ? "enum" : "const").First().Path} fits the rest of it");
        }

        string[] types = Types(set);
        if (types.Length == 0)
        {
            return Nothing(set, $"the types at {set.Path} leave none");
        }

        if (types.Length == AllTypes.Length && !set.Has([.. KeywordsOf.Number, .. KeywordsOf.String, .. KeywordsOf.Array, .. KeywordsOf.Object, "not"]))
        {
            return Json.Value;
        }

        return Gbnf.Choice(types.Select(type => OfType(type, set)));
    }

    // One rule for each option, with everything around it.
    private Gbnf Options(SchemaSet set, int at, string keyword)
    {
        SchemaPart part = set.Parts[at];
        SchemaPart[] rest = [.. set.Parts];
        rest[at] = part with { Chosen = $"{part.Chosen}!{keyword}" };
        var options = new List<Gbnf>();
        SchemaAlternatives? alternatives = keyword == "oneOf" ? new SchemaAlternatives(this, part, rest) : null;
        foreach ((int number, SchemaPart option) in part.Children(keyword).Index())
        {
            SchemaSet? expanded = Document.Expand(option);
            if (expanded is not null)
            {
                if (Array.Exists(expanded.Parts, one => part.IsFrom(one.Path)))
                {
                    throw new GrammarException($"The schema's {keyword} at {part.Path} has the schema itself for an option.");
                }

                IEnumerable<SchemaPart> added = expanded.Parts.Where(one => !Array.Exists(rest, other => other.Path == one.Path));
                options.Add(Rule(new SchemaSet([.. rest, .. added.Select(one => one with { Via = $"{part.Via}\n{part.Path}\n" }), .. alternatives?.Forbidden(number) ?? []])));
            }
        }

        return Gbnf.Choice(options) is var choice && choice == Gbnf.Never ? Nothing(null, $"no option of {keyword} at {part.Path} fits") : choice;
    }

    private Gbnf OfType(string type, SchemaSet set) => type switch
    {
        "object" => new SchemaObjects(this, set).Write(),
        "array" => new SchemaArrays(this, set).Write(),
        "string" => new SchemaStrings(this, set).Write(),
        "integer" or "number" => new SchemaNumbers(this, set, isInteger: type == "integer").Write(),
        "boolean" => Gbnf.Choice(Booleans.Where(text => !Values.IsExcluded(set, text)).Select(Gbnf.Text)),
        _ => Json.Null,
    };

    /// <summary>The types that all schemas allow. Without any, those that their keywords are about; all, if there are none of those either.</summary>
    public static string[] Types(SchemaSet set)
    {
        HashSet<string>? types = null;
        foreach (SchemaPart part in set.With("type"))
        {
            string[] named = part.Element.GetProperty("type").ValueKind == JsonValueKind.Array
                ? [.. part.Choices("type").Select(type => part.Text(type, "type"))]
                : [part.Text("type")];
            if (Array.Find(named, type => type != "integer" && !AllTypes.Contains(type)) is { } unknown)
            {
                throw new GrammarException($"The schema's type '{unknown}' at {part.Path} is not known.");
            }

            named = [.. named, .. part.Flag("nullable") ? ["null"] : Array.Empty<string>()];
            types = types is null ? [.. named] : [.. types.SelectMany(type => Both(type, named))];
        }

        if (types is null)
        {
            types = [];
            AddIf("object", KeywordsOf.Object);
            AddIf("array", KeywordsOf.Array);
            AddIf("string", KeywordsOf.String);
            AddIf("number", KeywordsOf.Number);
            types = types.Count == 0 ? [.. AllTypes] : types;
        }

        foreach (string? excluded in SchemaValues.ExcludedTypes(set))
        {
            types.Remove(excluded);
            _ = excluded == "number" && types.Remove("integer");
        }

        if (types.Contains("number"))
        {
            types.Remove("integer");
        }

        // Serializers that also read numbers from strings say so; the number itself will do.
        if ((types.Contains("number") || types.Contains("integer")) && types.Contains("string")
            && set.With("pattern").Any(part => SchemaFormats.IsNumber(part.Text("pattern"))))
        {
            types.Remove("string");
        }

        return [.. types];

        void AddIf(string type, string[] keywords)
        {
            if (set.Has(keywords))
            {
                types.Add(type);
            }
        }
    }

    private static IEnumerable<string> Both(string type, string[] named) =>
        named.Contains(type) || (type == "integer" && named.Contains("number")) ? [type]
        : type == "number" && named.Contains("integer") ? ["integer"] : [];
}
