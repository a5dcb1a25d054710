using System.Text;
using System.Text.Json;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.TestHelpers;
using LlamaKivi.Tests.Tokenization;
using LlamaKivi.Tokenization;
using Xunit;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Grammars are checked in bounded processor time; those that pass have masks in bounded processor time, and the others say why not.</summary>
public sealed class GrammarTimeTests(InferenceTests.DemoModel model, ITestOutputHelper output) : IClassFixture<InferenceTests.DemoModel>
{
    // A fast processor takes a tenth of these.
    private static readonly TimeSpan MaxMedian = TimeSpan.FromMilliseconds(3);
    private static readonly TimeSpan MaxMask = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan MaxMaskOfLarge = TimeSpan.FromMilliseconds(35);
    private static readonly TimeSpan MaxCheck = TimeSpan.FromSeconds(1.5);

    private static string Words(int count, int syllables, string format)
    {
        var random = new Random(count);
        return string.Join(" | ", Enumerable.Range(0, count).Select(i => string.Format(null, format,
            string.Concat(Enumerable.Range(0, syllables).Select(_ => $"{"bcdfghjklmnpqrstvwz"[random.Next(19)]}{"aeiou"[random.Next(5)]}")) + i)));
    }

    private static string Schema(object schema) => Grammar.FromJsonSchema(JsonSerializer.SerializeToElement(schema)).Gbnf;

    private static string Chain(int count, string rule) =>
        $"root ::= {string.Join(' ', Enumerable.Range(0, count).Select(i => $"a{i}"))}\n{string.Concat(Enumerable.Range(0, count).Select(i => $"a{i} ::= {string.Format(null, rule, i)}\n"))}";

    private static string Properties(int count) => Schema(new
    {
        type = "object",
        properties = Enumerable.Range(0, count).ToDictionary(i => $"{"abcdefghijklmnopqrstuvwxyz"[i % 26]}roperty{i}", _ => new { type = new[] { "string", "number" } }),
    });

    private static readonly Dictionary<string, Func<(string Gbnf, string Before)>> Cases = new()
    {
        ["5,000 optional letters"] = () => ("root ::= (\"a\"?){5000}", ""),
        ["nested counts"] = () => ("root ::= ((\"a\"{0,50}){0,50}){0,50}", "aaaaaaaa"),
        ["nested counts of words"] = () => ("root ::= (([a-z]{1,50} \" \"?){0,50} \".\"?){0,50}", "the cat"),
        ["nested repetitions"] = () => ("root ::= ((\"a\"*)* | (\"a\"+)+)*", "aaaa"),
        ["counts of two lengths"] = () => ("root ::= (\"a\" | \"aa\"){0,4096}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ["ambiguous recursion"] = () => ("root ::= (\"a\" | \"a\" root | b)*\nb ::= \"b\" root", "aaaabaaaa"),
        ["ambiguous sentences"] = () => ("root ::= s\ns ::= n | n \" \" s | s2\ns2 ::= n \" and \" s\nn ::= [a-z]+ | [a-z]+ \" of \" n", "cat of dog and bird"),
        ["words with optional blanks"] = () => ("root ::= (word \" \"?)+\nword ::= [a-z]{1,30}", "thecatandthedog"),
        ["a letter 20 from the end"] = () => ("root ::= [a-z]* \"a\" [a-z]{20} \"b\"", "abaabbabaaab"),
        ["counted letters of counted words"] = () => ("root ::= ([a-z]{1,5000} \" \"?){1,5000}", "thecatandthedog"),
        ["nested brackets"] = () => ("root ::= e\ne ::= \"(\" e \")\" | \"[\" e \"]\" | \"{\" e* \"}\" | [a-z]+", string.Concat(Enumerable.Repeat("([{", 100))),
        ["dangling else"] = () => ("root ::= s\ns ::= \"if \" [a-z]+ \" then \" s (\" else \" s)? | [a-z]+", string.Concat(Enumerable.Repeat("if x then ", 40)) + "y"),
        ["palindromes of two letters"] = () => ("root ::= \"a\" root \"a\" | \"b\" root \"b\" | \"\"", "abababababab"),
        ["palindromes of words"] = () => ($"root ::= {string.Join(" | ", "abcdefghijklmnopqrstuvwxyz".Select(c => $"\"{c}\" root \"{c}\""))} | \"\"", "abc"),
        ["arithmetic"] = () => ("root ::= t ([-+] t)*\nt ::= f ([*/] f)*\nf ::= [0-9]+ | [a-z]+ | \"(\" root \")\" | \"-\" f", "((a+b)*(c"),
        ["a million characters"] = () => ($"root ::= [{string.Concat(Enumerable.Range(0x4E00, 20_000).Where(i => i % 3 > 0).Select(i => (char)i))}]+", "\u4E01"),
        ["3,000 long texts"] = () => ($"root ::= ({Words(3000, 20, "\"{0}\"")})+", ""),
        ["enum of 5,000"] = () => (Schema(new { type = "array", items = new { @enum = Enumerable.Range(0, 5000).Select(i => $"value {i * 7919 % 5000}") } }), "[\""),
        ["500 optional properties"] = () => (Properties(500), "{\"aroperty0\": 1, "),
        ["maxLength 4096"] = () => (Schema(new { type = "string", maxLength = 4096 }), "\"" + new string('x', 100)),
        ["minLength 4096"] = () => (Schema(new { type = "string", minLength = 4096 }), "\"" + new string('x', 100)),
        ["close to maxLength"] = () => (Schema(new { type = "string", maxLength = 4096 }), "\"" + new string('x', 4080)),
        ["maxItems 4096"] = () => (Schema(new { type = "array", maxItems = 4096, items = new { type = "object", properties = new { text = new { type = "string", maxLength = 4096 }, n = new { type = "number" } } } }), "[{\"text\": \"a"),
        ["formats and bounds"] = () => (Schema(new
        {
            type = "object",
            properties = new
            {
                site = new { type = "string", format = "uri" },
                at = new { type = "string", format = "date-time" },
                rate = new { type = "number", minimum = -1.5, maximum = 1e6 },
                count = new { type = "integer", multipleOf = 7 },
                code = new { type = "string", pattern = "^[A-Z]{2,3}-[0-9]+(x|y)?$", maxLength = 40 },
            },
            required = new[] { "site", "at", "rate", "count", "code" },
        }), "{\"site\":\"https://"),
        ["a pattern anywhere"] = () => (Schema(new { type = "string", pattern = "foo.*bar", maxLength = 500 }), "\"the fo"),
        ["any JSON"] = () => (Grammar.Json().Gbnf, "{\"a\": [[[{\"b\": \"c"),
        ["20,000 optional rules"] = () => (Chain(20_000, "\"x\"?"), ""),
        ["2,000 optional rules"] = () => (Chain(2_000, "\"x\"?"), "xx"),
        ["300 optional rules of different texts"] = () => (Chain(300, "\"x{0}y\"?"), "x7y"),
        ["20,000 rules one in the other"] = () => ($"root ::= a0\n{string.Concat(Enumerable.Range(0, 20_000).Select(i => $"a{i} ::= \"<\" a{i + 1} \">\" | \"x\"\n"))}a20000 ::= \"y\"", "<<<<<<<<<<"),
        ["20,000 options"] = () => ($"root ::= {string.Join(" | ", Enumerable.Range(0, 20_000).Select(i => $"a{i}"))}\n{string.Concat(Enumerable.Range(0, 20_000).Select(i => $"a{i} ::= [a-z] \"{i}\"\n"))}", "a"),
    };

    public static TheoryData<string> Names => [.. Cases.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Checks_and_masks_are_bounded_in_time(string name)
    {
        (string gbnf, string before) = Cases[name]();
        GrammarException? refused = null;
        TimeSpan check = Median(() => refused = (GrammarException?)Record.Exception(new Grammar(gbnf, "root").Validate));
        output.WriteLine($"{name}: {(refused is null ? "accepted" : "refused")} in {check.TotalMilliseconds:0.0} ms {refused?.Message}");
        Assert.True(check < MaxCheck, $"{check.TotalMilliseconds} ms to check");
        if (refused is null)
        {
            AssertMasks(gbnf, before, model.Weights.Tokenizer, 64, MaxMask);
        }
    }

    [Theory]
    [InlineData("maxLength 4096")]
    [InlineData("any JSON")]
    [InlineData("500 optional properties")]
    public void A_large_vocabulary_has_its_masks_in_time(string name)
    {
        (string gbnf, string before) = Cases[name]();
        AssertMasks(gbnf, before, LargeVocabulary(), 200, MaxMaskOfLarge);
    }

    [Fact]
    public void Masks_of_random_grammars_that_pass_take_bounded_work()
    {
        const long MaxWork = 100_000;  // some 5 ms
        int cases = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_GRAMMAR_CASES"), out int n) ? n : 200;
        Tokenizer tokenizer = model.Weights.Tokenizer;
        TokenTrie trie = TokenTrie.Of(tokenizer);
        int accepted = 0;
        int ambiguous = 0;
        long most = 0;
        for (int seed = 0; seed < cases; seed++)
        {
            var random = new Random(seed);
            int rules = random.Next(1, 5);
            string gbnf = string.Concat(Enumerable.Range(0, rules).Select(i => $"r{i} ::= {Expression(random, rules, 3)}\n"));
            if (Record.Exception(new Grammar(gbnf, "r0").Validate) is { } error)
            {
                ambiguous += Assert.IsType<GrammarException>(error).Message.Contains("too ambiguous", StringComparison.Ordinal) ? 1 : 0;
                continue;
            }

            accepted++;
            var masks = new GrammarMasks(new Grammar(gbnf, "r0").Compiled, trie, MaxWork);
            GrammarState state = masks.Start();
            for (int step = 0; step < 30; step++)
            {
                (ulong[] shorts, ulong[] longs) mask = ([], []);
                Exception? tooLong = Record.Exception(() => mask = masks.Allowed(ref state));
                Assert.True(tooLong is null, $"seed {seed}, step {step}: {tooLong?.Message}\n{gbnf}");
                (ulong[] shorts, ulong[] longs) = mask;
                most = Math.Max(most, masks.Work);
                int[] allowed = [.. Enumerable.Range(0, trie.Size).Where(i => ((shorts[i >> 6] | (longs.Length == 0 ? 0 : longs[i >> 6])) >> (i & 63) & 1) != 0 && !tokenizer.IsEndOfGeneration(i))];
                if (allowed.Length == 0)
                {
                    break;
                }

                state = masks.After(state, tokenizer.GetBytes(Enumerable.Range(0, 3).Select(_ => allowed[random.Next(allowed.Length)]).MaxBy(token => tokenizer.GetBytes(token).Length)))!;
            }
        }

        output.WriteLine($"{accepted} accepted, {ambiguous} too ambiguous; most work {most}");
        Assert.True(accepted > cases / 3, $"{accepted} accepted");
    }

    private static string Expression(Random random, int rules, int depth)
    {
        string[] classes = ["[a-z]", "[a-zA-Z0-9]", "[^\"]", ".", "[ab]", "[0-9]", "[a-m]", "[^a]", "[ \\n]"];
        IEnumerable<string> Parts(int count) => Enumerable.Range(0, count).Select(_ => Expression(random, rules, depth - 1));
        switch (depth == 0 ? random.Next(4) : random.Next(11))
        {
            case 0 or 1:
                return classes[random.Next(classes.Length)];
            case 2:
                return $"\"{(char)('a' + random.Next(26))}{(random.Next(2) == 0 ? "" : (char)('a' + random.Next(26)))}\"";
            case 3:
                return $"r{random.Next(rules)}";
            case 4 or 5 or 6:
                return $"({string.Join(' ', Parts(random.Next(1, 5)))})";
            case 7 or 8:
                return $"({string.Join(" | ", Parts(random.Next(1, 6)))})";
            default:
                int least = random.Next(3) == 0 ? random.Next(30) : 0;
                string most = random.Next(3) switch { 0 => "", 1 => $"{least + random.Next(1, 10)}", _ => $"{least + random.Next(1, 3000)}" };
                return $"({Expression(random, rules, depth - 1)}){{{least},{most}}}";
        }
    }

    // Follows a text of random tokens three times, from nothing known each time.
    private void AssertMasks(string gbnf, string before, Tokenizer tokenizer, int length, TimeSpan most)
    {
        var times = new List<List<TimeSpan>>();
        for (int run = 0; run < 3; run++)
        {
            var grammar = new Grammar(gbnf, "root");
            var random = new Random(1);
            var matcher = new GrammarMatcher(grammar.Compiled, tokenizer);
            matcher.AcceptText(Encoding.UTF8.GetBytes(before));
            var logits = new float[tokenizer.VocabularySize];
            var steps = new List<TimeSpan>();
            for (int step = 0; step < length; step++)
            {
                logits.AsSpan().Clear();
                TimeSpan start = ThreadTime.Now;
                matcher.Mask(logits);
                TimeSpan mask = ThreadTime.Now - start;
                int[] allowed = [.. Enumerable.Range(0, logits.Length).Where(i => logits[i] == 0 && !tokenizer.IsEndOfGeneration(i))];
                if (allowed.Length == 0)
                {
                    break;
                }

                // Rather long tokens: ends of texts are reached soon enough.
                int token = Enumerable.Range(0, 4).Select(_ => allowed[random.Next(allowed.Length)]).MaxBy(t => tokenizer.GetBytes(t).Length);
                start = ThreadTime.Now;
                matcher.Accept(token);
                steps.Add(mask + ThreadTime.Now - start);
            }

            times.Add(steps);
        }

        TimeSpan[] fastest = [.. Enumerable.Range(0, times.Min(steps => steps.Count)).Select(step => times.Min(steps => steps[step]))];
        TimeSpan worst = fastest.DefaultIfEmpty().Max();
        TimeSpan median = fastest.Order().ElementAtOrDefault(fastest.Length / 2);
        output.WriteLine($"{fastest.Length} masks: median {median.TotalMilliseconds:0.00} ms, mean {fastest.DefaultIfEmpty().Average(t => t.TotalMilliseconds):0.00} ms, worst {worst.TotalMilliseconds:0.00} ms");
        Assert.True(median < MaxMedian, $"{median.TotalMilliseconds} ms for half of the masks");
        Assert.True(worst < most, $"{worst.TotalMilliseconds} ms for a mask");
    }

    private static TimeSpan Median(Action action) => Enumerable.Range(0, 3).Select(_ =>
    {
        TimeSpan start = ThreadTime.Now;
        action();
        return ThreadTime.Now - start;
    }).Order().ElementAt(1);

    // 128,000 tokens: words, words after a blank, numbers and marks.
    private static Tokenizer LargeVocabulary()
    {
        var random = new Random(3);
        var texts = new HashSet<string>();
        while (texts.Count < 128_000 - 257)
        {
            string word = string.Concat(Enumerable.Range(0, random.Next(1, 6)).Select(_ => $"{"bcdfghjklmnpqrstvwxyz"[random.Next(21)]}{"aeiouy"[random.Next(6)]}{"nrst"[random.Next(4)]}"));
            texts.Add(random.Next(20) switch
            {
                < 8 => "Ġ" + word,
                < 15 => word,
                < 17 => char.ToUpperInvariant(word[0]) + word[1..],
                17 => $"{random.Next(100_000)}",
                18 => $"\"{word}",
                _ => new string("=-*_#/.,:;)}]\""[random.Next(14)], random.Next(2, 20)) + new string(")}],:"[random.Next(5)], random.Next(4)),
            });
        }

        texts.RemoveWhere(text => text.Length == 1);
        return TestVocabulary.BytePair("gpt-2", [], [("<end>", TokenType.Control), .. texts.Select(text => (text, TokenType.Normal))]).Set("tokenizer.ggml.eos_token_id", 256u).Load();
    }
}
