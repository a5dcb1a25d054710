using System.Text;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Xunit;

namespace LlamaKivi.Tests.Sampling;

public sealed class GrammarTests : IClassFixture<InferenceTests.DemoModel>
{
    private readonly LLamaWeights _weights;

    public GrammarTests(InferenceTests.DemoModel model) => _weights = model.Weights;

    // Whether a text is one of the grammar's.
    private static bool Matches(string gbnf, string text)
    {
        var states = new GrammarStates(new Grammar(gbnf, "root").Compiled);
        GrammarState? state = states.Start;
        foreach (byte value in Encoding.UTF8.GetBytes(text))
        {
            state = states.Next(state, value);
            if (state is null)
            {
                return false;
            }
        }

        return state.CanEnd;
    }

    [Theory]
    [InlineData("root ::= \"yes\" | \"no\"", "yes", "no", "", "yesno", "y")]
    [InlineData("root ::= [a-c]+ \"-\"? # ends\n", "a", "abc-", "-", "abcd", "a--")]
    [InlineData("root ::= ([0-9]{2,3} \",\")* \"x\"{2}", "xx", "12,345,xx", "1,xx", "1234,xx", "12xx")]
    [InlineData("root ::= [^x\\n]*\n", "hällo", "日本語😀", "axb", "a\nb", "x")]
    [InlineData("root ::= \"\\\"\" [à-ü]{1,} \"\\x41\\u00e9\"", "\"éA\u00e9", "\"àüA\u00e9", "\"A\u00e9", "\"zA\u00e9", "\"éA")]
    [InlineData("root ::= e\ne ::= t (\"+\" t)*\nt ::= \"n\" |\n  \"(\" e \")\"", "n+(n+n)", "((n))", "n+", "(n", "()")]
    [InlineData("root ::= . . \"!\"", "ab!", "é日!", "a!", "abc!", "!")]
    [InlineData("root ::= (\"a\"?)*", "", "aaa", "b", "ab", "ba")]
    [InlineData("root ::= (\"a\"* \"b\"?){40} \"c\"", "c", "aabbac", "a", "cc", "abcb")]
    [InlineData("root ::= a b\na ::= \"x\"?\nb ::= \"y\"*", "", "xyy", "yx", "xx", "z")]
    [InlineData("root ::= ( \"a\" # first\n | \"b\" ) \"c\"", "ac", "bc", "c", "a", "abc")]
    public void Texts_are_matched(string gbnf, string first, string second, params string[] wrong)
    {
        Assert.True(Matches(gbnf, first), first);
        Assert.True(Matches(gbnf, second), second);
        Assert.All(wrong, text => Assert.False(Matches(gbnf, text), text));
    }

    [Fact]
    public void Classes_hold_exactly_their_characters()
    {
        var random = new Random(1);
        for (int i = 0; i < 60; i++)
        {
            int low = random.Next(0x110000 >> random.Next(14));
            int high = Math.Min(0x10FFFF, low + random.Next(1, 0x30000 >> random.Next(18)));
            var states = new GrammarStates(new Grammar($"root ::= [\\U{low:X8}-\\U{high:X8}]", "root") is var g && Rune.IsValid(low) && Rune.IsValid(high) ? g.Compiled : new Grammar("root ::= .", "root").Compiled);
            bool all = !(Rune.IsValid(low) && Rune.IsValid(high));
            foreach (int value in new[] { low - 1, low, low + 1, (low + high) / 2, high - 1, high, high + 1, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF }.Where(Rune.IsValid))
            {
                GrammarState? state = states.Start;
                foreach (byte b in Encoding.UTF8.GetBytes(char.ConvertFromUtf32(value)))
                {
                    state = state is null ? null : states.Next(state, b);
                }

                Assert.Equal(all || (value >= low && value <= high), state is { CanEnd: true });
            }
        }
    }

    [Theory]
    [InlineData("root ::= \"a", "'\"' is expected")]
    [InlineData("root = x", "'::=' is expected (line 1, column 6)")]
    [InlineData("root ::= b", "no rule 'b'")]
    [InlineData("start ::= \"a\"", "no root rule 'root'")]
    [InlineData("root ::= root \"a\" | \"a\"", "'root' can begin with itself")]
    [InlineData("root ::= \"x\"\nb ::= \"b\" | c? \"y\"\nc ::= \"z\"* b", "'c' can begin with itself (left recursion, line 3)")]
    [InlineData("root ::= (\"a\"* root){500}", "'root' can begin with itself (left recursion, line 1)")]
    [InlineData("root ::= \"a\"\nroot ::= \"b\"", "'root' twice")]
    [InlineData("root ::= [z-a]", "a range ends before it begins")]
    [InlineData("root ::= \"a\"{3,1}", "the first number not above the second")]
    [InlineData("root ::= \"a\"{2000000000}", "repetitions go from 0 to 1000000000")]
    [InlineData("root ::= \"\\q\"", "'\\q' is not known")]
    [InlineData("root ::= (\"a\"", "')' is expected")]
    public void Bad_grammars_are_refused(string gbnf, string expected)
    {
        GrammarException e = Assert.Throws<GrammarException>(() => new Grammar(gbnf, "root").Validate());
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{}", "{\"a\": [1, -2.5e3, \"x\\u00e9\", null, true]}", "[]", "nul", "{\"a\":}", "01")]
    [InlineData("{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\"},\"ok\":{\"type\":\"boolean\"}},\"required\":[\"age\"]}",
        "{\"name\": \"A\", \"age\": 3}", "{\"age\":3,\"ok\":true}", "{\"name\":\"A\"}", "{\"age\":3,}", "{\"age\":3,\"x\":1}")]
    [InlineData("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}}}", "{}", "{\"b\":null}", "{\"b\":null,\"a\":null}", "{,}", "{\"a\":null \"b\":null}")]
    [InlineData("{\"type\":\"array\",\"items\":{\"enum\":[\"red\",2,null]},\"minItems\":1,\"maxItems\":2}", "[\"red\"]", "[2, null]", "[]", "[2,2,2]", "[\"blue\"]")]
    [InlineData("{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}},\"$ref\":\"#/$defs/n\"}",
        "{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}", "{\"v\":1}", "{\"v\":1,\"next\":{}}", "null")]
    [InlineData("{\"type\":[\"string\",\"number\"],\"minLength\":2,\"maxLength\":3}", "\"ab\"", "7", "\"a\"", "\"abcd\"", "true")]
    [InlineData("{\"type\":\"string\",\"format\":\"date\"}", "\"2026-11-23\"", "\"1999-01-31\"", "\"99-1-1\"", "\"2026-11-23T\"", "2026")]
    [InlineData("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"const\":\"a\\\"b\"}],\"items\":false}", "[1,\"a\\\"b\"]", "[22, \"a\\\"b\"]", "[1]", "[1,\"a\\\"b\",3]", "[\"a\\\"b\",1]")]
    [InlineData("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", "{}", "{\"x\":1, \"y\":2}", "{\"x\":\"1\"}", "{\"x\":1,}", "{1:1}")]
    public void Schemas_describe_texts(string schema, string first, string second, params string[] wrong)
    {
        string gbnf = Grammar.FromJsonSchema(JsonDocument.Parse(schema).RootElement).Gbnf;
        Assert.True(Matches(gbnf, first), first);
        Assert.True(Matches(gbnf, second), second);
        Assert.All(wrong, text => Assert.False(Matches(gbnf, text), text));
    }

    [Theory]
    [InlineData("{\"type\":\"integer\",\"if\":{}}", "'if' at # is not supported")]
    [InlineData("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(?=x)\"}}}", "'pattern' at #/properties/a")]
    [InlineData("{\"$ref\":\"#/$defs/none\"}", "leads nowhere")]
    [InlineData("{\"$ref\":\"https://example.org\"}", "leads out of the schema")]
    [InlineData("{\"type\":\"thing\"}", "type 'thing'")]
    [InlineData("{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}", "requires 'a'")]
    [InlineData("[]", "must be an object or true")]
    [InlineData("{\"properties\":[]}", "The schema at #/properties must be an object")]
    [InlineData("{\"required\":1,\"properties\":{}}", "required at # must be a list")]
    [InlineData("{\"required\":[1],\"properties\":{}}", "required at # must be a string")]
    [InlineData("{\"$ref\":1}", "$ref at # must be a string")]
    [InlineData("{\"type\":1}", "type at # must be a string")]
    [InlineData("{\"type\":[]}", "type at # is empty")]
    [InlineData("{\"enum\":{}}", "enum at # must be a list")]
    [InlineData("{\"enum\":[]}", "enum at # is empty")]
    [InlineData("{\"anyOf\":[]}", "anyOf at # is empty")]
    [InlineData("{\"allOf\":[1]}", "The schema at #/allOf/0 must be an object")]
    [InlineData("{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "the types at #/allOf/0 leave none")]
    [InlineData("{\"allOf\":[{\"allOf\":[{\"properties\":{\"a\":{\"dependentSchemas\":1}}}]}]}", "'dependentSchemas' at #/allOf/0/allOf/0/properties/a is not supported")]
    [InlineData("{\"type\":\"string\",\"minLength\":\"1\"}", "minLength at # must be an integer of at least 0")]
    [InlineData("{\"type\":\"string\",\"format\":1}", "format at # must be a string")]
    [InlineData("{\"type\":\"array\",\"prefixItems\":1}", "prefixItems at # must be a list")]
    public void Bad_schemas_are_refused(string schema, string expected)
    {
        GrammarException e = Assert.Throws<GrammarException>(() => Grammar.FromJsonSchema(JsonDocument.Parse(schema).RootElement));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(1.5f)]
    public async Task A_model_writes_what_the_schema_says(float temperature)
    {
        Grammar grammar = Grammar.FromJsonSchema(JsonDocument.Parse(
            """{"type":"object","properties":{"title":{"type":"string","maxLength":12},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":3},"ok":{"type":"boolean"}},"required":["title","tags","ok"]}""").RootElement);
        var executor = new StatelessExecutor(_weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 512 });
        using var pipeline = new DefaultSamplingPipeline { Grammar = grammar, Temperature = temperature, Seed = 5, TopK = 0, TopP = 1, MinP = 0 };
        for (int run = 0; run < 2; run++)
        {
            var text = new StringBuilder();
            await foreach (string piece in executor.InferAsync("JSON:", new InferenceParams { MaxTokens = 200, SamplingPipeline = pipeline }))
            {
                text.Append(piece);
            }

            Assert.Equal(StopReason.EndOfGeneration, executor.StopReason);
            JsonElement root = JsonDocument.Parse(text.ToString()).RootElement;
            Assert.True(root.GetProperty("title").GetString()!.Length <= 12);
            Assert.True(root.GetProperty("tags").GetArrayLength() <= 3);
            Assert.Equal(3, root.EnumerateObject().Count());
        }
    }

    [Fact]
    public void A_mask_is_what_trying_every_token_gives()
    {
        var grammar = new Grammar("root ::= (\"The \" [a-z]+ \" \" [0-9]{1,3} \"é\")+", "root");
        var matcher = new GrammarMatcher(grammar.Compiled, _weights.Tokenizer);
        var states = new GrammarStates(grammar.Compiled);
        GrammarState state = states.Start;
        var random = new Random(2);
        for (int step = 0; step < 12; step++)
        {
            var logits = new float[_weights.Tokenizer.VocabularySize];
            matcher.Mask(logits);
            var allowed = new List<int>();
            for (int id = 0; id < logits.Length; id++)
            {
                GrammarState? next = state;
                ReadOnlySpan<byte> bytes = _weights.Tokenizer.GetBytes(id).Span;
                foreach (byte b in bytes)
                {
                    next = next is null ? null : states.Next(next, b);
                }

                bool expected = _weights.Tokenizer.IsEndOfGeneration(id) ? state.CanEnd : bytes.Length > 0 && next is not null;
                Assert.Equal(expected, logits[id] == 0);
                if (expected && bytes.Length > 0 && !_weights.Tokenizer.IsEndOfGeneration(id))
                {
                    allowed.Add(id);
                }
            }

            int token = allowed[random.Next(allowed.Count)];
            matcher.Accept(token);
            foreach (byte b in _weights.Tokenizer.GetBytes(token).Span)
            {
                state = states.Next(state, b)!;
            }
        }
    }
}
