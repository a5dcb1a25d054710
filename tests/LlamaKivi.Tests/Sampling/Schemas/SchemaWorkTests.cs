using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Xunit;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>A schema whose parts combine in many ways is read quickly, or refused by its place.</summary>
public sealed class SchemaWorkTests
{
    private static readonly TimeSpan MaxTime = TimeSpan.FromSeconds(60);

    public static TheoryData<string, string> Heavy => new()
    {
        { "combined options", "The schema is too complex: up to #" },
        { "options of options", "The schema is too complex: up to #" },
        { "options of a listed item", "The schema is too complex: up to #" },
        { "options of many alternatives", "The schema is too complex: up to #" },
        { "many properties", "The schema is too complex: up to #" },
        { "many references", "The schema is too complex: up to #" },
        { "many large patterns", "The schema is too complex: up to #" },
        { "many large patterns of names", "The schema is too complex: up to #" },
        { "an option of a listed item that leads to itself", "The schema nests too deep at #/$defs/a" },
        { "a long chain of references", "The schema nests too deep at #/$defs/a" },
    };

    [Theory]
    [MemberData(nameof(Heavy))]
    public async Task A_schema_that_takes_too_much_work_is_refused_by_its_place(string kind, string expected)
    {
        GrammarException e = await Assert.ThrowsAsync<GrammarException>(() => ReadAsync(Schema(kind)));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"allOf":[{"$ref":"#/$defs/aNEXT"},{"$ref":"#/$defs/aNEXT"}]}""")]
    [InlineData("""{"$ref":"#/$defs/aNEXT","allOf":[{"$ref":"#/$defs/aNEXT"}]}""")]
    [InlineData("""{"anyOf":[{"$ref":"#/$defs/aNEXT"},{"$ref":"#/$defs/aNEXT"}]}""")]
    public async Task A_schema_that_many_paths_lead_to_is_read_once(string link)
    {
        Grammar grammar = await ReadAsync($$"""{"$ref":"#/$defs/a0",{{Definitions(30, i => link.Replace("NEXT", $"{i + 1}", StringComparison.Ordinal), """{"type":"null"}""")}}}""");
        Assert.InRange(grammar.Gbnf.Length, 1, 2000);
        Assert.Contains("null ::= \"null\"\n", grammar.Gbnf, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_pattern_of_many_names_is_compiled_once()
    {
        string patterns = string.Join(',', Enumerable.Range(0, 6).Select(i => $$"""
            "^q{{i}}x*x{100}y*$":{"type":"integer"}
            """));
        string properties = string.Join(',', Enumerable.Range(0, 1000).Select(i => $$"""
            "p{{i}}":{"type":"null"}
            """));
        Assert.NotEmpty((await ReadAsync("""{"type":"object","properties":{""" + properties + """},"patternProperties":{""" + patterns + "}}")).Gbnf);
    }

    [Fact]
    public void Reading_a_schema_ends_when_the_generation_is_cancelled()
    {
        using StepCancellation.Scope scope = StepCancellation.Enter(new CancellationToken(true));
        Assert.Throws<OperationCanceledException>(() => Grammar.FromJsonSchema("""{"type":"null"}"""));
    }

    private static Task<Grammar> ReadAsync(string schema) => Task.Run(() => Grammar.FromJsonSchema(schema)).WaitAsync(MaxTime);

    private static string Schema(string kind) => kind switch
    {
        "combined options" => $$"""{"allOf":[{{List(30, i => $$"""{"anyOf":[{"minLength":{{i}}},{"maxLength":{{i + 100}}}]}""")}}]}""",
        "options of options" => $$"""{"$ref":"#/$defs/a0",{{Definitions(30, i => $$"""
            {"anyOf":[{"$ref":"#/$defs/a{{i + 1}}","minLength":1},{"$ref":"#/$defs/a{{i + 1}}","minLength":2}]}
            """, """{"type":"string"}""")}}}""",
        "options of a listed item" => $$"""{"const":[1],"items":{"$ref":"#/$defs/a0"},{{Definitions(30, i => $$"""
            {"anyOf":[{"$ref":"#/$defs/a{{i + 1}}"},{"$ref":"#/$defs/a{{i + 1}}"}]}
            """, """{"type":"string"}""")}}}""",
        "options of many alternatives" => $$"""{"oneOf":[{{List(5000, i => $$"""{"type":"object","required":["a{{i}}"],"properties":{"a{{i}}":{} } }""")}}]}""",
        "many properties" => """{"type":"object","properties":{""" + List(100_000, i => $$"""
            "a{{i}}":{"type":"null"}
            """) + "}}",
        "many references" => $$"""{"allOf":[{{List(20_000, i => $$"""{"$ref":"#/$defs/a{{i}}"}""")}}],{{Definitions(20_000, _ => """{"type":"string"}""", """{"type":"string"}""")}}}""",
        "many large patterns" => """{"type":"object","properties":{""" + List(1000, i => $$"""
            "a{{i}}":{"pattern":"^{{i}}x*x{700}y*$","maxLength":900}
            """) + "}}",
        "many large patterns of names" => """{"type":"object","patternProperties":{""" + List(80, i => $$"""
            "^q{{i}}x*x{200}y*$":{"type":"integer"}
            """) + "}}",
        "an option of a listed item that leads to itself" =>
            """{"const":[1],"items":{"$ref":"#/$defs/a"},"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"string"}]}}}""",
        "a long chain of references" => $$"""{"$ref":"#/$defs/a0",{{Definitions(20_000, i => $$"""{"$ref":"#/$defs/a{{i + 1}}"}""", """{"type":"string"}""")}}}""",
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    private static string List(int count, Func<int, string> item) => string.Join(',', Enumerable.Range(0, count).Select(item));

    private static string Definitions(int count, Func<int, string> link, string last) => $$"""
        "$defs":{{{List(count, i => $"\"a{i}\":{link(i)}")}},"a{{count}}":{{last}}}
        """;
}
