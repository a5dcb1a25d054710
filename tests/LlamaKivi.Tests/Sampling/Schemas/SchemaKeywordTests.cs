using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Json.Schema;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Xunit;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>Each keyword: texts that it allows and texts that it does not, and random texts that a validator accepts.</summary>
public sealed class SchemaKeywordTests
{
    private static readonly int Texts = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_SCHEMA_TEXTS"), out int n) ? n : 20;

    // Schema, texts that fit, texts that do not. A vertical bar parts texts.
    public static readonly TheoryData<string, string, string> Cases = new()
    {
        { """{"type":"integer"}""", "0|-1|9223372036854775807|-9223372036854775808", "9223372036854775808|-9223372036854775809|01|-0|1.0|1e2" },
        { """{"type":"integer","minimum":1,"maximum":10}""", "1|7|10", "0|11|-1|100|01" },
        { """{"type":"integer","minimum":-128,"maximum":127}""", "-128|0|127|-99|99", "-129|128|-1000" },
        { """{"type":"integer","exclusiveMinimum":-3,"exclusiveMaximum":2}""", "-2|-1|0|1", "-3|2" },
        { """{"type":"integer","minimum":0.5,"maximum":3.5}""", "1|3", "0|4" },
        { """{"type":"integer","minimum":5,"exclusiveMinimum":true}""", "6", "5" },
        { """{"type":"integer","minimum":0,"maximum":18446744073709551615}""", "18446744073709551615|0", "18446744073709551616|-1" },
        { """{"type":"integer","format":"uint8"}""", "255|0", "256|-1" },
        { """{"type":"integer","multipleOf":7,"minimum":-20,"maximum":700}""", "-14|0|7|693|700", "-21|1|8|707" },
        { """{"type":"integer","multipleOf":1000}""", "1000|-5000|0|123000", "100|1001|00" },
        { """{"type":"integer","allOf":[{"multipleOf":4},{"multipleOf":6}]}""", "12|24|-36", "4|6|18" },
        { """{"type":"number","minimum":-1.5,"maximum":2.25}""", "-1.5|0|2.25|2.2499|-1.49999|1.0", "-1.51|2.26|2.2500001|3|-2" },
        { """{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1}""", "0.5|0.0001|0.9999", "0|1|0.0|1.0|-0.5" },
        { """{"type":"number","exclusiveMinimum":0.5,"maximum":1.7976931348623157E+308}""", "0.51|1000000", "0.5|0.50|0.4|-1" },
        { """{"type":"number","multipleOf":0.25}""", "0.25|-1.5|3|2.50", "0.3|0.125" },
        { """{"type":"number"}""", "1|-2.5|6.02e23|1E-7|0.1", "1e28|12e5|.5|+1" },
        { """{"type":"number","not":{"const":2},"minimum":1,"maximum":3}""", "1|1.5|3|2.1", "2|2.0|2.00" },
        { """{"type":"string","minLength":2,"maxLength":3}""", """ "ab"|"a\n"|"日本語"|"😀\u00e9"|"\ud83d\ude00x" """, """ "a"|"abcd"|"\ud83dab" """ },
        { """{"type":"string","maxLength":1}""", """ ""|"a"|"日" """, """ "ab"|"😀" """ },
        { """{"type":"string","maxLength":25000}""", """ ""|"abc" """, "1" },
        { """{"type":"string","pattern":"^[A-Z]{2,3}-\\d{4}$"}""", """ "AB-1234"|"ABC-0000" """, """ "A-1234"|"ABCD-1234"|"AB-12345"|"ab-1234" """ },
        { """{"type":"string","pattern":"b+"}""", """ "b"|"abba"|"\"b" """, """ ""|"a" """ },
        { """{"type":"string","pattern":"^(a|bc)*$","minLength":3,"maxLength":4}""", """ "aaa"|"abc"|"bcbc"|"bca" """, """ "aa"|"bc"|"aaaaa"|"bcb" """ },
        { """{"type":"string","pattern":"^https?://\\S+$","maxLength":2048}""", """ "http://a"|"https://b.c/d" """, """ "ftp://a"|"http://"|"http://a b" """ },
        { """{"type":"string","pattern":"^[a-z]{1,5000}$"}""", """ "a"|"abc" """, """ ""|"A" """ },
        { """{"type":"string","pattern":"^[^\\d\\s]+\\.$"}""", """ "a."|"\\.." """, """ "1."|" ."|"a" """ },
        { """{"allOf":[{"pattern":"^a"},{"pattern":"b$"}],"type":"string"}""", """ "ab"|"axb" """, """ "a"|"b"|"ba" """ },
        { """{"type":"string","format":"date"}""", """ "2024-02-29"|"2000-02-29"|"0001-01-01"|"9999-12-31" """, """ "2023-02-29"|"1900-02-29"|"0000-01-01"|"2024-00-01"|"2024-04-31"|"2024-13-01" """ },
        { """{"type":"string","format":"time"}""", """ "23:59:59"|"00:00:00.1234567" """, """ "24:00:00"|"12:60:00"|"12:00:00Z"|"12:00"|"12:00:60" """ },
        { """{"type":"string","format":"date-time"}""", """ "2024-02-29T12:00:00Z"|"2024-01-31T23:59:59.5+13:59" """, """ "2024-02-30T12:00:00Z"|"2024-01-01T12:00:00"|"2024-01-01T12:00:00+14:01"|"0001-01-01T00:00:00+01:00"|"2024-01-01" """ },
        { """{"type":"string","format":"date","minimum":"2020-02-10","exclusiveMaximum":"2021-01-01"}""", """ "2020-02-10"|"2020-12-31" """, """ "2020-02-09"|"2021-01-01" """ },
        { """{"type":"string","format":"duration"}""", """ "P1DT2H3M4S"|"PT5M"|"P30D" """, """ "P"|"PT"|"5M"|"P1Y" """ },
        { """{"type":"string","format":"email"}""", """ "a.b@c.de" """, """ "a@b"|"@c.de"|"a b@c.de" """ },
        { """{"type":"string","format":"uri"}""", """ "https://a.b/c?d=e#f"|"mailto:a@b.cd"|"http://localhost:8080" """, """ "a"|"http://"|"http://a b" """ },
        { """{"type":"string","format":"ipv4"}""", """ "0.0.0.0"|"255.249.10.1" """, """ "256.0.0.1"|"1.2.3"|"01.2.3.4" """ },
        { """{"type":"string","format":"ipv6"}""", """ "::"|"::1"|"fe80::1:2"|"1:2:3:4:5:6:7:8"|"1::" """, """ "1:2"|"1::2::3"|"1:2:3:4:5:6:7:8:9"|"12345::" """ },
        { """{"type":"string","format":"uuid"}""", """ "01234567-89ab-cdef-ABCD-000000000000" """, """ "0123456789abcdefabcd000000000000" """ },
        { """{"type":"string","contentEncoding":"base64","maxLength":8}""", """ ""|"AA=="|"AAA="|"abcd"|"abcdAA==" """, """ "A"|"AB=="|"abc"|"abcdabcdabcd" """ },
        { """{"type":["string","integer"],"pattern":"^-?(?:0|[1-9]\\d*)$"}""", "5|-5", """ "5"|1.5 """ },
        { """{"type":["string","null"],"enum":["a","b",null]}""", """ "a"|null """, """ "c"|1 """ },
        { """{"type":"integer","enum":[1,2,"x",300],"maximum":100}""", "1|2", """ "x"|300 """ },
        { """{"const":{"a":[1,"x\"y"]}}""", """ {"a": [1, "x\"y"]} """, """ {} """ },
        { """{"type":["string","null"],"not":{"enum":["x",null]}}""", """ "y"|""|"xx" """, """ "x"|null """ },
        { """{"type":"integer","minimum":1,"maximum":4,"not":{"enum":[2,3]}}""", "1|4", "2|3|0" },
        { """{"type":"boolean","not":{"const":true}}""", "false", "true" },
        { """{"type":["array","null"],"items":{"type":"integer"},"minimum":1,"maximum":5}""", "[9]|null|[]", "3" },
        { """{"type":["object","null"],"additionalProperties":{"type":"integer"},"minItems":2}""", """ {}|null|{"a":1} """, "[1,2]" },
        { """{"type":"string","nullable":true,"maxLength":1}""", """ null|"a" """, """ "ab" """ },
        { """{"allOf":[{"$ref":"#/$defs/s"}],"$defs":{"s":{"type":"string","maxLength":2}}}""", """ "ab" """, """ "abc"|1 """ },
        { """{"$ref":"#/$defs/s","type":["string","null"],"minLength":2,"$defs":{"s":{"maxLength":2}}}""", """ "ab"|null """, """ "a"|"abc" """ },
        { """{"type":"object","properties":{"x":{"$ref":"#/properties/y/anyOf/1"},"y":{"anyOf":[{"type":"null"},{"type":"boolean"}]}},"required":["x"]}""", """ {"x":true}|{"x":false,"y":null} """, """ {"x":null}|{} """ },
        { """{"type":"object","properties":{"a~/b c":{"type":"null"},"x":{"$ref":"#/properties/a~0~1b%20c"}},"required":["x"]}""", """ {"x":null} """, """ {"x":1} """ },
        { """{"type":"object","properties":{"x":{"$ref":"#here"},"y":{"$anchor":"here","type":"boolean"}},"required":["x"]}""", """ {"x":true} """, """ {"x":1} """ },
        { """{"$id":"https://a.b/c","type":"object","properties":{"x":{"$ref":"https://a.b/c#/properties/y"},"y":{"type":"null"}}}""", """ {"x":null} """, """ {"x":1} """ },
        { """{"type":"object","required":["$type"],"anyOf":[{"properties":{"$type":{"const":"a"},"r":{"type":"number"}},"required":["r"]},{"properties":{"$type":{"const":"b"},"s":{"type":"boolean"}},"required":["s"]}]}""", """ {"$type":"a","r":1.5}|{"$type":"b","s":true} """, """ {"r":1}|{"$type":"a","s":true}|{"$type":"a"} """ },
        { """{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"oneOf":[{"required":["a"]},{"required":["b"]}]}""", """ {"a":null}|{"b":null} """, """ {"a":null,"b":null}|{} """ },
        { """{"oneOf":[{"type":"object","properties":{"k":{"const":"x"},"v":{"type":"null"}},"required":["k"]},{"type":"object","properties":{"k":{"const":"y"},"v":{"type":"null"}},"required":["k","v"]},{"type":"null"}]}""", """ {"k":"x"}|{"k":"x","v":null}|{"k":"y","v":null}|null """, """ {"k":"y"} """ },
        { """{"oneOf":[{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"required":["a"],"additionalProperties":true},{"type":"object","properties":{"b":{"type":"null"}},"required":["b"],"additionalProperties":true}]}""", """ {"a":null}|{"b":null,"c":1} """, """ {"a":null,"b":null}|{"b":null,"a":1} """ },
        { """{"type":"object","properties":{"a":false},"additionalProperties":true}""", """ {"b":1} """, """ {"a":1} """ },
        { """{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"oneOf":[{"properties":{"a":{"type":"null"}},"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]}""", """ {"n":1,"a":null}|{"n":1,"b":null} """, """ {"n":1}|{"a":null} """ },
        { """{"type":"object","properties":{"v":{"type":"integer"},"next":{"type":["object","null"],"properties":{"v":{"type":"integer"},"next":{"$ref":"#/properties/next"}},"required":["v","next"]},"kids":{"$ref":"#/properties/next","description":"x"}},"required":["v","next"]}""", """ {"v":1,"next":null}|{"v":1,"next":{"v":2,"next":null},"kids":null} """, """ {"v":1}|{"v":1,"next":{}} """ },
        { """{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"boolean"}}""", """ {}|{"a":1}|{"a":1,"b":true}|{"b":false,"aa":true} """, """ {"a":true}|{"b":1} """ },
        { """{"type":"object","properties":{"a":true,"b":false},"additionalProperties":false}""", """ {}|{"a":[1]} """, """ {"b":1}|{"c":1} """ },
        { """{"type":"object","required":["a"]}""", """ {"a":1}|{"a":{},"b":2} """, """ {}|{"b":1} """ },
        { """{"type":"object","propertyNames":{"pattern":"^[a-c]$"},"additionalProperties":{"type":"null"}}""", """ {}|{"a":null} """, """ {"d":null}|{"ab":null} """ },
        { """{"type":"object","propertyNames":{"enum":["x","y"]},"additionalProperties":{"type":"null"}}""", """ {"x":null}|{"x":null,"y":null} """, """ {"z":null}|{"x":null,"x":null} """ },
        { """{"type":"object","properties":{"x":{"type":"null"}},"patternProperties":{"^n":{"type":"integer"}},"additionalProperties":false}""", """ {"x":null,"n1":2}|{"n":1} """, """ {"n":null}|{"y":1} """ },
        { """{"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"],"maxProperties":2}""", """ {"b":2}|{"a":1,"b":2}|{"b":2,"c":3} """, """ {"a":1}|{"a":1,"b":2,"c":3} """ },
        { """{"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"minProperties":2}""", """ {"a":1,"c":3}|{"a":1,"b":2,"c":3} """, """ {}|{"b":2} """ },
        { """{"type":"object","additionalProperties":{"const":0},"minProperties":1,"maxProperties":2}""", """ {"a":0}|{"a":0,"b":0} """, """ {}|{"a":0,"b":0,"c":0} """ },
        { """{"type":"array","items":{"type":"null"},"minItems":1,"maxItems":3}""", "[null]|[null, null,null]", "[]|[null,null,null,null]" },
        { """{"type":"array","prefixItems":[{"type":"null"},{"type":"boolean"}],"items":{"type":"integer"},"maxItems":3}""", "[null,true]|[null,false,1]", "[null,true,1,2]|[true]|[null,true,true]" },
        { """{"type":"array","items":[{"type":"null"}],"additionalItems":{"type":"boolean"}}""", "[null]|[null,true]", "[true]|[null,1]" },
        { """{"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true,"minItems":1}""", """ ["a"]|["c","a"]|["b","a","c"] """, """ []|["a","a"]|["a","b","a"] """ },
        { """{"type":"array","items":{"type":"boolean"},"uniqueItems":true}""", "[]|[true,false]|[false]", "[true,true]" },
        { """{"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":1}""", """ []|["a"] """, """ ["a","b"] """ },
        { """{"type":"integer","title":"t","description":"d","default":3,"examples":[1],"deprecated":true,"$comment":"c","x-of":1,"readOnly":true}""", "3", "x" },
        { """{"minimum":3}""", "3|4.5", "2" },
        { """{"anyOf":[{"type":"number"},{"enum":["NaN","Infinity","-Infinity"]}]}""", """ 1.5|"NaN" """, """ "x" """ },
    };

    private static bool Matches(GrammarStates states, string text)
    {
        GrammarState? state = states.Start;
        foreach (byte value in Encoding.UTF8.GetBytes(text))
        {
            state = state is null ? null : states.Next(state, value);
        }

        return state is { CanEnd: true };
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Texts_fit_or_do_not(string schema, string fitting, string others)
    {
        var states = new GrammarStates(Grammar.FromJsonSchema(schema).Compiled);
        Assert.All(fitting.Trim().Split('|'), text => Assert.True(Matches(states, text), $"{schema} has {text}"));
        Assert.All(others.Trim().Split('|'), text => Assert.False(Matches(states, text), $"{schema} does not have {text}"));
    }

    // The validator's time of day demands an offset, which no TimeOnly reads. It reads no bounds that are dates, true or beyond decimal.
    [Theory]
    [MemberData(nameof(Cases))]
    public void A_validator_accepts_random_texts(string schema, string fitting, string others)
    {
        Assert.NotEqual(fitting, others);
        Assert.SkipWhen(schema.Contains("\"format\":\"time\"", StringComparison.Ordinal) || schema.Contains("\"minimum\":\"", StringComparison.Ordinal)
            || schema.Contains("\"exclusiveMinimum\":true", StringComparison.Ordinal) || schema.Contains("additionalItems", StringComparison.Ordinal) || schema.Contains("E+308", StringComparison.Ordinal), "The validator reads this keyword otherwise.");
        JsonSchema validator = JsonSchema.FromText(schema);
        var options = new EvaluationOptions { RequireFormatValidation = true };
        var texts = new RandomTexts(Grammar.FromJsonSchema(schema));
        var random = new Random(3);
        for (int i = 0; i < Texts; i++)
        {
            string text = texts.Next(random, random.Next(1, 120));
            if ((schema.Contains("\"nullable\"", StringComparison.Ordinal) && text == "null") || HasDuplicates(text) || HasCombinations(text))
            {
                continue;
            }

            Assert.True(validator.Evaluate(JsonNode.Parse(text), options).IsValid, $"{schema} accepts {text}");
        }
    }

    // The validator counts a letter and its marks as one character; JSON Schema counts code points.
    private static bool HasCombinations(string text) => new StringInfo(text).LengthInTextElements != text.EnumerateRunes().Count();

    // Names that the schema does not describe may come twice, which the validator cannot read.
    private static bool HasDuplicates(string text) => JsonDocument.Parse(text).RootElement is { ValueKind: JsonValueKind.Object } value
        && value.EnumerateObject().Select(property => property.Name).Distinct().Count() < value.EnumerateObject().Count();
}
