using System.Globalization;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Writes the grammar of the JSON texts that a JSON schema describes.</summary>
/// <remarks>
/// Properties come in the schema's order. Supported: type, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, minLength,
/// maxLength, enum, const, anyOf, oneOf, allOf of objects, $ref within the schema, format date, time, date-time and uuid. What bounds values without being
/// a matter of form (minimum, pattern, uniqueItems, ...) is refused: a text that breaks it would pass for one that follows it.
/// </remarks>
internal sealed class JsonSchemaGrammar
{
    private const string Common =
        """
        ws ::= | " " | "\n" [ \t]{0,20}
        boolean ::= "true" | "false"
        null ::= "null"
        integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
        number ::= integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?
        char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
        string ::= "\"" char* "\""
        value ::= object | array | string | number | boolean | null
        object ::= "{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"
        array ::= "[" ws (value ws ("," ws value ws)*)? "]"

        """;

    private static readonly HashSet<string> Ignored =
    [
        "$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$anchor", "strict",
    ];

    private readonly JsonElement _root;
    private readonly StringBuilder _rules = new();
    private readonly Dictionary<string, string> _references = [];
    private int _count;
    private int _depth;

    private JsonSchemaGrammar(JsonElement root) => _root = root;

    /// <summary>The grammar of all JSON texts.</summary>
    public static string AnyJson { get; } = "root ::= ws value ws\n" + Common;

    public static string ToGbnf(JsonElement schema)
    {
        var writer = new JsonSchemaGrammar(schema);
        string rule = writer.Visit(schema, "#");
        return $"root ::= {rule}\n{writer._rules}{Common}";
    }

    private string NewRule(string body)
    {
        string name = $"r{_count++}";
        _rules.Append(CultureInfo.InvariantCulture, $"{name} ::= {body}\n");
        return name;
    }

    // The expression of a schema: a name or a group.
    private string Visit(JsonElement schema, string path)
    {
        if (++_depth > 100)
        {
            throw new GrammarException($"The schema nests more than 100 deep at {path}.");
        }

        try
        {
            return schema.ValueKind switch
            {
                JsonValueKind.True => "value",
                JsonValueKind.Object => VisitObject(schema, path),
                _ => throw new GrammarException($"The schema at {path} must be an object or true."),
            };
        }
        finally
        {
            _depth--;
        }
    }

    private string VisitObject(JsonElement schema, string path)
    {
        if (schema.TryGetProperty("$ref", out JsonElement reference))
        {
            Refuse(schema, path, "$ref");
            return Reference(Text(reference, "$ref", path), path);
        }

        if (schema.TryGetProperty("const", out JsonElement constant))
        {
            Refuse(schema, path, "const", "type");
            return Literal(constant);
        }

        if (schema.TryGetProperty("enum", out JsonElement values))
        {
            Refuse(schema, path, "enum", "type");
            return "(" + string.Join(" | ", Choices(values, "enum", path).Select(Literal)) + ")";
        }

        foreach (string key in new[] { "anyOf", "oneOf" })
        {
            if (schema.TryGetProperty(key, out JsonElement options))
            {
                Refuse(schema, path, key, "type");
                return "(" + string.Join(" | ", Choices(options, key, path).Select((option, i) => Visit(option, $"{path}/{key}/{i}"))) + ")";
            }
        }

        if (schema.TryGetProperty("allOf", out JsonElement all))
        {
            Refuse(schema, path, "allOf", "type", "properties", "required", "additionalProperties");
            return ObjectOf([.. List(all, "allOf", path).Select((part, i) => (Resolve(part, $"{path}/allOf/{i}"), $"{path}/allOf/{i}")), (schema, path)]);
        }

        if (!schema.TryGetProperty("type", out JsonElement type))
        {
            return schema.TryGetProperty("properties", out _) ? ObjectOf([(schema, path)])
                : schema.TryGetProperty("items", out _) || schema.TryGetProperty("prefixItems", out _) ? ArrayOf(schema, path)
                : Any(schema, path);
        }

        return type.ValueKind == JsonValueKind.Array
            ? "(" + string.Join(" | ", Choices(type, "type", path).Select(one => OfType(Text(one, "type", path), schema, path))) + ")"
            : OfType(Text(type, "type", path), schema, path);
    }

    private static string Any(JsonElement schema, string path)
    {
        Refuse(schema, path);
        return "value";
    }

    private string OfType(string? type, JsonElement schema, string path)
    {
        switch (type)
        {
            case "object":
                return ObjectOf([(schema, path)]);
            case "array":
                return ArrayOf(schema, path);
            case "string":
                return StringOf(schema, path);
            case "boolean" or "null" or "integer" or "number":
                bool several = schema.GetProperty("type").ValueKind == JsonValueKind.Array;
                if (!several)
                {
                    Refuse(schema, path, "type");
                }

                return type;
            default:
                throw new GrammarException($"The schema's type '{type}' at {path} is not known.");
        }
    }

    // Keys that would be passed over in silence.
    private static void Refuse(JsonElement schema, string path, params string[] known)
    {
        foreach (JsonProperty property in Object(schema, path).EnumerateObject())
        {
            if (!Ignored.Contains(property.Name) && Array.IndexOf(known, property.Name) < 0)
            {
                throw new GrammarException($"The schema's '{property.Name}' at {path} is not supported: the grammar could not hold a text to it.");
            }
        }
    }

    private string Reference(string reference, string path)
    {
        if (_references.TryGetValue(reference, out string? rule))
        {
            return rule;
        }

        JsonElement target = Target(reference, path);
        rule = $"ref{_references.Count}";
        _references.Add(reference, rule);
        string body = Visit(target, reference);
        _rules.Append(CultureInfo.InvariantCulture, $"{rule} ::= {body}\n");
        return rule;
    }

    private JsonElement Target(string reference, string path)
    {
        JsonElement at = _root;
        if (!reference.StartsWith('#'))
        {
            throw new GrammarException($"The schema's $ref '{reference}' at {path} leads out of the schema.");
        }

        foreach (string part in reference[1..].Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            string key = Uri.UnescapeDataString(part).Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);
            if (at.ValueKind != JsonValueKind.Object || !at.TryGetProperty(key, out at))
            {
                throw new GrammarException($"The schema's $ref '{reference}' at {path} leads nowhere.");
            }
        }

        return at;
    }

    private JsonElement Resolve(JsonElement schema, string path) =>
        Object(schema, path).TryGetProperty("$ref", out JsonElement reference) ? Object(Target(Text(reference, "$ref", path), path), path) : schema;

    private static JsonElement Object(JsonElement value, string path) => value.ValueKind == JsonValueKind.Object
        ? value : throw new GrammarException($"The schema at {path} must be an object.");

    private static string Text(JsonElement value, string key, string path) => value.ValueKind == JsonValueKind.String
        ? value.GetString()! : throw new GrammarException($"The schema's {key} at {path} must be a text.");

    private static JsonElement.ArrayEnumerator List(JsonElement value, string key, string path) => value.ValueKind == JsonValueKind.Array
        ? value.EnumerateArray() : throw new GrammarException($"The schema's {key} at {path} must be a list.");

    // Of which a text is one.
    private static JsonElement.ArrayEnumerator Choices(JsonElement value, string key, string path) => List(value, key, path).Any()
        ? value.EnumerateArray() : throw new GrammarException($"The schema's {key} at {path} is empty, so that no text fits it.");

    private static string Literal(JsonElement value) => Quote(JinjaJson(value));

    // As a model writes JSON by itself.
    private static string JinjaJson(JsonElement value) => Templates.JinjaValues.JsonOf(value);

    private static string Quote(string text)
    {
        var quoted = new StringBuilder("\"");
        foreach (Rune rune in text.EnumerateRunes())
        {
            quoted.Append(rune.Value switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                < 32 => string.Create(CultureInfo.InvariantCulture, $"\\x{rune.Value:X2}"),
                _ => rune.ToString(),
            });
        }

        return quoted.Append('"').ToString();
    }

    private static int? Bound(JsonElement schema, string key, string path)
    {
        if (!schema.TryGetProperty(key, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int n) && n >= 0 ? n : throw new GrammarException($"The schema's {key} at {path} is no number of 0 or more.");
    }

    private static string Times(int? least, int? most) => $"{{{least ?? 0},{(most is null ? "" : most.Value.ToString(CultureInfo.InvariantCulture))}}}";

    private string StringOf(JsonElement schema, string path)
    {
        Refuse(schema, path, "type", "minLength", "maxLength", "format");
        if (schema.TryGetProperty("format", out JsonElement format))
        {
            const string Date = "[0-9]{4} \"-\" [01] [0-9] \"-\" [0-3] [0-9]";
            const string Time = "[0-2] [0-9] \":\" [0-5] [0-9] \":\" [0-5] [0-9] (\".\" [0-9]{1,9})? (\"Z\" | [-+] [0-2] [0-9] \":\" [0-5] [0-9])";
            string? form = Text(format, "format", path) switch
            {
                "date" => Date,
                "time" => Time,
                "date-time" => $"{Date} \"T\" {Time}",
                "uuid" => "[0-9a-fA-F]{8} (\"-\" [0-9a-fA-F]{4}){3} \"-\" [0-9a-fA-F]{12}",
                _ => throw new GrammarException($"The schema's format '{format}' at {path} is not supported."),
            };
            return NewRule($"\"\\\"\" {form} \"\\\"\"");
        }

        int? least = Bound(schema, "minLength", path);
        int? most = Bound(schema, "maxLength", path);
        return least is null && most is null ? "string" : NewRule($"\"\\\"\" char{Times(least, most)} \"\\\"\"");
    }

    private string ArrayOf(JsonElement schema, string path)
    {
        Refuse(schema, path, "type", "items", "prefixItems", "minItems", "maxItems");
        int least = Bound(schema, "minItems", path) ?? 0;
        int? most = Bound(schema, "maxItems", path);
        if (most < least)
        {
            throw new GrammarException($"The schema's maxItems at {path} is below minItems.");
        }

        string[] first = schema.TryGetProperty("prefixItems", out JsonElement prefix)
            ? [.. List(prefix, "prefixItems", path).Select((item, i) => Visit(item, $"{path}/prefixItems/{i}"))]
            : [];
        bool closed = schema.TryGetProperty("items", out JsonElement items) && items.ValueKind == JsonValueKind.False;
        if (first.Length > 0)
        {
            string rest = closed || most == first.Length ? "" : $" (ws \",\" ws {(items.ValueKind == JsonValueKind.Undefined ? "value" : Visit(items, path + "/items"))}){Times(Math.Max(least - first.Length, 0), most - first.Length)}";
            return NewRule($"\"[\" ws {string.Join(" ws \",\" ws ", first)}{rest} ws \"]\"");
        }

        if (most == 0 || closed)
        {
            return NewRule("\"[\" ws \"]\"");
        }

        string item = items.ValueKind == JsonValueKind.Undefined ? "value" : Visit(items, path + "/items");
        string some = $"{item} (ws \",\" ws {item}){Times(Math.Max(least - 1, 0), most - 1)} ws";
        return NewRule($"\"[\" ws {(least > 0 ? some : $"({some})?")} \"]\"");
    }

    private string ObjectOf((JsonElement Schema, string Path)[] parts)
    {
        var properties = new List<(string Name, string Body, bool Required)>();  // Body: after the quote that a name begins with
        var required = new HashSet<string>();
        string? others = null;
        bool isOpen = true;
        foreach ((JsonElement schema, string path) in parts)
        {
            // The last one is of the schema that the others are parts of.
            Refuse(schema, path, "type", "properties", "required", "additionalProperties", path == parts[^1].Path ? "allOf" : "type");
            if (schema.TryGetProperty("type", out JsonElement type) && !(type.ValueKind == JsonValueKind.String && type.ValueEquals("object")))
            {
                throw new GrammarException($"The schema's type {type.GetRawText()} at {path} is not supported beside allOf: only \"object\" is.");
            }

            if (schema.TryGetProperty("required", out JsonElement names))
            {
                required.UnionWith(List(names, "required", path).Select(name => Text(name, "required", path)));
            }

            if (schema.TryGetProperty("additionalProperties", out JsonElement additional))
            {
                isOpen = additional.ValueKind != JsonValueKind.False;
                others = isOpen ? Visit(additional, path + "/additionalProperties") : null;
            }
        }

        foreach ((JsonElement schema, string path) in parts)
        {
            if (schema.TryGetProperty("properties", out JsonElement described))
            {
                foreach (JsonProperty property in Object(described, $"{path}/properties").EnumerateObject())
                {
                    string value = Visit(property.Value, $"{path}/properties/{property.Name}");
                    string key = Quote(Templates.JinjaValues.JsonOf(property.Name)[1..]);
                    properties.Add((property.Name, $"{key} ws \":\" ws {value} ws", required.Contains(property.Name)));
                }
            }
        }

        foreach (string name in required)
        {
            if (!properties.Exists(property => property.Name == name))
            {
                throw new GrammarException($"The schema's object at {parts[0].Path} requires '{name}', which its properties do not describe.");
            }
        }

        // Described properties only, unless the schema says otherwise or describes none.
        others ??= isOpen && properties.Count == 0 ? "value" : null;
        // rest: one or more properties after the quote of the first, from the last described one backwards; null: none is left. What follows a property begins
        // with its comma, and what follows that with a quote, so that many properties that may come next cost no more than one until their names differ.
        string? rest = others is null ? null : NewRule($"char* \"\\\"\" ws \":\" ws {others} ws (\",\" ws string ws \":\" ws {others} ws)*");
        bool optional = true;
        for (int i = properties.Count - 1; i >= 0; i--)
        {
            (_, string body, bool isRequired) = properties[i];
            rest = NewRule($"{body} {Following("\",\" ws ")}{(isRequired || rest is null ? "" : $" | {rest}")}");
            optional &= !isRequired;
        }

        return NewRule($"\"{{\" ws {Following("")} \"}}\"");

        string Following(string comma) => rest is null ? "" : optional ? $"({comma}\"\\\"\" {rest})?" : $"{comma}\"\\\"\" {rest}";
    }
}
