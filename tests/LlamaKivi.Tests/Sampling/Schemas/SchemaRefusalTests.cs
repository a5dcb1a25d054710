using System.Text.Json.Nodes;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Xunit;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>Schemas that cannot be enforced are rejected with keyword and JSON pointer, never with a rule of the grammar.</summary>
public sealed class SchemaRefusalTests
{
    [Theory]
    [InlineData("""{"enum":[]}""", "enum at # is empty")]
    [InlineData("""{"enum":["\ud800"]}""", "A string of the schema at 'enum[0]' is not valid Unicode")]
    [InlineData("""{"$ref":"#/$defs/\udc00"}""", "A string of the schema at '$ref' is not valid Unicode")]
    [InlineData("""{"type":"object","properties":{"\ud800":{}}}""", "A name of the schema at 'properties' is not valid Unicode")]
    [InlineData("""{"type":"object","properties":{"a":{"enum":[]}}}""", "enum at #/properties/a is empty")]
    [InlineData("""{"not":true}""", "not at # excludes every value")]
    [InlineData("""{"$comment":"Unsupported .NET type","not":{}}""", "not at # excludes every value")]
    [InlineData("false", "the schema at # is false")]
    [InlineData("""{"type":"integer","minimum":5,"maximum":3}""", "minimum 5 at # and maximum 3 at #")]
    [InlineData("""{"type":"number","exclusiveMinimum":1,"maximum":1}""", "exclusiveMinimum 1 at # and maximum 1 at #")]
    [InlineData("""{"type":"integer","minimum":1,"maximum":6,"multipleOf":7}""", "multipleOf at #")]
    [InlineData("""{"type":"string","minLength":3,"maxLength":2}""", "minLength 3 at # is above maxLength 2 at #")]
    [InlineData("""{"type":"string","pattern":"^\\d{5}$","maxLength":4}""", "pattern at # is as short as maxLength at #")]
    [InlineData("""{"type":"string","pattern":"^\\d{5}$","minLength":6}""", "pattern at # is as long as minLength at #")]
    [InlineData("""{"type":"string","pattern":"^a$","allOf":[{"pattern":"^b$"}]}""", "pattern and pattern at #/allOf/0")]
    [InlineData("""{"type":"string","minLength":9999999999}""", "'minLength' at # is not supported: it is above 1000000000")]
    [InlineData("""{"type":"array","minItems":3,"maxItems":2}""", "minItems 3 at # is above maxItems 2")]
    [InlineData("""{"type":"array","items":false,"minItems":1}""", "is false")]
    [InlineData("""{"type":"array","items":{"enum":[1,2]},"uniqueItems":true,"minItems":3}""", "minItems 3 at # is above the 2 different items")]
    [InlineData("""{"type":"object","minProperties":3,"maxProperties":2}""", "minProperties 3 at # is above maxProperties 2")]
    [InlineData("""{"type":"object","properties":{"a":{},"b":{}},"required":["a","b"],"maxProperties":1}""", "requires 2 properties, which is above maxProperties 1")]
    [InlineData("""{"type":"object","properties":{"a":{"allOf":[{"type":"string"},{"type":"null"}]}},"required":["a"]}""", "the types at #/properties/a/allOf/0 leave none")]
    [InlineData("""{"type":"integer","enum":["a"]}""", "none of the values of enum at # fits")]
    [InlineData("""{"type":"object","properties":{"next":{"$ref":"#"}},"required":["next"]}""", "No text fits the schema at #: its values can only go on forever")]
    [InlineData("""{"type":"object","properties":{"a":{"$ref":"#/$defs/b"}},"required":["a"],"$defs":{"b":{"type":"array","items":{"$ref":"#/$defs/b"},"minItems":1}}}""", "at #/$defs/b: its values can only go on forever")]
    [InlineData("""{"$ref":"#"}""", "The schema at # refers to itself")]
    [InlineData("""{"anyOf":[{"$ref":"#"},{"type":"null"}]}""", "anyOf at # has the schema itself for an option")]
    [InlineData("""{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"},{"type":"null"}]},"b":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"string"}]}},"$ref":"#/$defs/a"}""", "has the schema itself for an option")]
    [InlineData("""{"type":"string","pattern":"^(?=a)b"}""", "'pattern' at # is not supported: lookahead is not supported (character 5 of")]
    [InlineData("""{"type":"string","pattern":"(?<!a)b"}""", "lookbehind is not supported")]
    [InlineData("""{"type":"object","properties":{"a/b":{"type":"string","pattern":"(a)\\1"}}}""", "'pattern' at #/properties/a~1b is not supported: the backreference '\\1'")]
    [InlineData("""{"type":"string","pattern":"\\bx"}""", "the word boundary '\\b' is not supported")]
    [InlineData("""{"type":"string","pattern":"[a"}""", "'pattern' at # is not supported: ']' is expected")]
    [InlineData("""{"type":"string","pattern":"a{3,1}"}""", "the first number is above the second")]
    [InlineData("""{"type":"string","pattern":"(a"}""", "')' is expected")]
    [InlineData("""{"type":"string","pattern":"a)"}""", "')' has no '('")]
    [InlineData("""{"type":"string","pattern":"x*x{7000}y*","maxLength":9000}""", "'pattern' at # is not supported: it takes too many states")]
    [InlineData("""{"type":"string","pattern":"a.*b","maxLength":3000}""", "'pattern' at # is not supported: with minLength 0 and maxLength 3000 it takes more than 5000 states")]
    [InlineData("""{"type":"string","format":"color"}""", "'format' at # is not supported: 'color' is unknown")]
    [InlineData("""{"type":"string","contentEncoding":"quoted-printable"}""", "'contentEncoding' at # is not supported")]
    [InlineData("""{"type":"string","minimum":"x"}""", "'minimum' at # is not supported: 'x' is not a date")]
    [InlineData("""{"type":"integer","minimum":"x"}""", "minimum at # must be a number")]
    [InlineData("""{"type":"integer","multipleOf":0}""", "multipleOf at # must be a number above 0")]
    [InlineData("""{"type":"integer","multipleOf":99991}""", "'multipleOf' at # is not supported: with these bounds it takes too many states")]
    [InlineData("""{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"},"uniqueItems":true}}}""", "'uniqueItems' at #/properties/a is not supported: a grammar can enforce it only for items with an enum; remove it, or give the items an enum")]
    [InlineData("""{"type":"array","items":{"oneOf":[{"type":"integer"},{"type":"null"},{"type":"number","description":"n"}]}}""", "'oneOf' at #/items is not supported: a value can fit its options 0 and 2 at once; use anyOf")]
    [InlineData("""{"type":"object","properties":{"a":{"if":{},"then":{}}}}""", "'if' at #/properties/a is not supported")]
    [InlineData("""{"type":"object","dependentRequired":{}}""", "'dependentRequired' at # is not supported")]
    [InlineData("""{"not":{"minimum":3}}""", "'not' at # is not supported")]
    [InlineData("""{"$ref":"#/allOf/2","allOf":[{"type":"null"}]}""", "$ref '#/allOf/2' at # leads nowhere")]
    [InlineData("""{"$ref":"#nowhere"}""", "$ref '#nowhere' at # leads nowhere")]
    [InlineData("""{"type":"object","maxProperties":"1"}""", "maxProperties at # must be an integer of at least 0")]
    [InlineData("""{"type":"array","uniqueItems":1}""", "uniqueItems at # must be true or false")]
    public void A_refusal_names_the_keyword_and_its_place(string schema, string expected)
    {
        GrammarException e = Assert.Throws<GrammarException>(() => Grammar.FromJsonSchema(schema));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("GBNF", e.Message, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("rule '", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_ambiguous_schema_is_refused_by_its_place()
    {
        // Each bracket may begin any of many lists of lists.
        string options = string.Join(',', Enumerable.Range(1, 200).Select(i => """{"type":"array","items":{"$ref":"#/properties/text"},"maxItems":""" + i + "}"));
        GrammarException e = Assert.Throws<GrammarException>(() => Grammar.FromJsonSchema(
            """{"type":"object","properties":{"text":{"anyOf":[{"type":"null"},""" + options + "]}}}").Validate());
        Assert.Contains("The schema is too ambiguous to be followed", e.Message, StringComparison.Ordinal);
        Assert.Contains("#/properties/text", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("(line ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_schema_that_is_too_large_is_refused_by_its_place()
    {
        string values = string.Join(',', Enumerable.Range(0, 60_000).Select(i => $"\"a value of some length {i}\""));
        GrammarException e = Assert.Throws<GrammarException>(() => Grammar.FromJsonSchema("""{"type":"object","properties":{"a":{"enum":[""" + values + "]}}}").Validate());
        Assert.Contains("The schema is too large: up to #/properties/a", e.Message, StringComparison.Ordinal);
    }

    // Values of any kind in any place, and schemas in each other.
    [Fact]
    public void Mutated_schemas_are_taken_or_refused()
    {
        string[] seeds = [.. SchemaKeywordTests.Cases.Select(row => row.Data.Item1)];
        string[] values =
        [
            "1", "-1", "1.5", "1e400", "1e-300", "null", "true", "false", "\"\"", "\"(\"", "\"(a*)*b\"", "\"a{9}{9}\"", "\"object\"", "\"integer\"", "\"date\"", "[]", "{}", "[1]",
            "[\"string\"]", "{\"$ref\":\"#\"}", "[{\"$ref\":\"#\"}]", "{\"enum\":[1,\"a\",null]}", "[{\"type\":\"string\"},{\"type\":\"null\"}]",
        ];
        string[] keywords =
        [
            "$ref", "anyOf", "oneOf", "allOf", "not", "enum", "const", "type", "nullable", "minimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format",
            "contentEncoding", "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "maxProperties",
        ];
        var random = new Random(5);
        for (int i = 0; i < 1500; i++)
        {
            var schema = (JsonObject)JsonNode.Parse(seeds[random.Next(seeds.Length)])!;
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                JsonObject[] objects = [.. Objects(schema)];
                JsonObject at = objects[random.Next(objects.Length)];
                string keyword = at.Count > 0 && random.Next(2) == 0 ? at.ElementAt(random.Next(at.Count)).Key : keywords[random.Next(keywords.Length)];
                at[keyword] = JsonNode.Parse(random.Next(3) == 0 ? seeds[random.Next(seeds.Length)] : values[random.Next(values.Length)]);
            }

            string text = schema.ToJsonString();
            Exception? error = Record.Exception(() => GbnfParser.Parse(Grammar.FromJsonSchema(text).Gbnf, "root"));
            Assert.True(error is null || (error is GrammarException && !error.Message.StartsWith("The grammar", StringComparison.Ordinal)), $"{text}\n{error}");
        }
    }

    private static IEnumerable<JsonObject> Objects(JsonNode? node) => node switch
    {
        JsonObject value => value.SelectMany(property => Objects(property.Value)).Prepend(value),
        JsonArray values => values.SelectMany(Objects),
        _ => [],
    };
}
