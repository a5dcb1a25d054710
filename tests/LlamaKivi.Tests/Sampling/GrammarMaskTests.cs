using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Xunit;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Masks are those that the definition of the grammar gives; computing one can be cancelled and is bounded.</summary>
public sealed class GrammarMaskTests(InferenceTests.DemoModel model, ITestOutputHelper output) : IClassFixture<InferenceTests.DemoModel>
{
    // Slow: every letter may be the middle, and each token leads to a different state.
    private static readonly string Palindromes = $"root ::= {string.Join(" | ", "abcdefghijklmnopqrstuvwxyz".Select(c => $"\"{c}\" root \"{c}\""))} | \"\"";

    private static readonly byte[][] Tokens =
    [
        .. new[]
        {
            "a", "b", "c", "d", "ab", "ba", "aa", "bb", "cc", "abc", "aaa", "bab", "aab", "é", "日", "😀", "aé", "éa", "éé", "日b", "c日", "日😀", "😀a",
            "aaaaaaaa", "abababab", "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababababababab", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "éééééééééééé",
        }.Select(Encoding.UTF8.GetBytes),
        [0xC3], [0xA9], [0xA9, (byte)'a'], [(byte)'b', 0xC3], [0xE6], [0xE6, 0x97], [0x97, 0xA5], [0xA5], [0xA5, (byte)'c'], [0xF0], [0xF0, 0x9F], [0x98, 0x80], [0x9F, 0x98], [0x80], [0xFF],
    ];

    private static TokenTrie Trie() => new(Tokens.Length + 1, Tokens.Select((token, id) => (id, token)), [Tokens.Length]);

    private static bool IsAllowed((ulong[] Short, ulong[] Long) mask, int token) =>
        ((mask.Short[token >> 6] | (mask.Long.Length == 0 ? 0 : mask.Long[token >> 6])) >> (token & 63) & 1) != 0;

    [Fact]
    public void Masks_are_those_of_the_definition()
    {
        int cases = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_GRAMMAR_CASES"), out int n) ? n : 120;
        TokenTrie trie = Trie();
        int followed = 0;
        int masks = 0;
        int refused = 0;
        for (int seed = 0; seed < cases; seed++)
        {
            var random = new Random(seed);
            GrammarOracle oracle = GrammarOracle.Random(random);
            CompiledGrammar grammar;
            try
            {
                grammar = new Grammar(oracle.Gbnf, "root").Compiled;
            }
            catch (GrammarException e)
            {
                Assert.True(e.Message.Contains("can begin with itself", StringComparison.Ordinal) || e.Message.Contains("too ambiguous", StringComparison.Ordinal), e.Message);
                refused += e.Message.Contains("too ambiguous", StringComparison.Ordinal) ? 1 : 0;
                continue;
            }

            // Tables that are emptied at every step give the same masks.
            var matched = new GrammarMasks(grammar, trie, maxSize: seed % 2 == 0 ? 1 : GrammarStates.DefaultMaxSize);
            GrammarState state = matched.Start();
            byte[] text = [];
            followed++;
            for (int step = 0; step < 8; step++)
            {
                (ulong[], ulong[]) mask = matched.Allowed(ref state);
                var allowed = new List<byte[]>();
                for (int token = 0; token < Tokens.Length; token++)
                {
                    bool expected = oracle.Read([.. text, .. Tokens[token]]).Begins;
                    Assert.True(expected == IsAllowed(mask, token), $"seed {seed}: after '{Show(text)}', '{Show(Tokens[token])}' {(expected ? "must" : "must not")} be allowed by\n{oracle.Gbnf}");
                    if (expected)
                    {
                        allowed.Add(Tokens[token]);
                    }
                }

                Assert.True(oracle.Read(text).Is == IsAllowed(mask, Tokens.Length), $"seed {seed}: the end after '{Show(text)}'\n{oracle.Gbnf}");
                masks++;
                if (allowed.Count == 0)
                {
                    break;
                }

                byte[] next = allowed[random.Next(allowed.Count)];
                state = matched.After(state, next)!;
                text = [.. text, .. next];
            }
        }

        output.WriteLine($"{masks} masks of {followed} grammars; {refused} too ambiguous");
        Assert.True(followed > cases / 2 && refused < cases / 20, $"{followed} grammars, {refused} too ambiguous");

        static string Show(byte[] bytes) => Encoding.Latin1.GetString(bytes);
    }

    [Theory]
    [InlineData("root ::= [a-z]{40,600} \"!\"", "abcabcabcabcabcabcabcabcabcabcabcabc")]
    [InlineData("root ::= (([a-z]{1,50} \" \"?){3,200} \".\"?){2,100}", "the cat.and")]
    [InlineData("root ::= \"\\\"\" ([^\\\"\\\\] | \"\\\\\" [nt\\\"]){0,100} \"\\\"\"", "\"éabc")]
    [InlineData("root ::= (\"The \" [a-z]+ \" \" [0-9]{1,3} \"é\")+", "")]
    public void Masks_of_a_model_are_what_trying_every_token_gives(string gbnf, string before)
    {
        CompiledGrammar grammar = new Grammar(gbnf, "root").Compiled;
        var matcher = new GrammarMatcher(grammar, model.Weights.Tokenizer);
        var states = new GrammarStates(grammar);
        GrammarState state = Encoding.UTF8.GetBytes(before).Aggregate(states.Start, (at, b) => states.Next(at, b)!);
        matcher.AcceptText(Encoding.UTF8.GetBytes(before));
        var random = new Random(2);
        for (int step = 0; step < 40; step++)
        {
            var logits = new float[model.Weights.Tokenizer.VocabularySize];
            matcher.Mask(logits);
            var allowed = new List<int>();
            for (int id = 0; id < logits.Length; id++)
            {
                GrammarState? next = state;
                ReadOnlySpan<byte> bytes = model.Weights.Tokenizer.GetBytes(id).Span;
                for (int i = 0; i < bytes.Length && next is not null; i++)
                {
                    next = states.Next(next, bytes[i]);
                }

                bool isEnd = model.Weights.Tokenizer.IsEndOfGeneration(id);
                Assert.Equal(isEnd ? state.CanEnd : bytes.Length > 0 && next is not null, logits[id] == 0);
                if (logits[id] == 0 && !isEnd)
                {
                    allowed.Add(id);
                }
            }

            if (allowed.Count == 0)
            {
                break;
            }

            int token = allowed[random.Next(allowed.Count)];
            matcher.Accept(token);
            state = model.Weights.Tokenizer.GetBytes(token).ToArray().Aggregate(state, (at, b) => states.Next(at, b)!);
        }
    }

    [Fact]
    public void A_mask_that_was_cancelled_is_computed_again()
    {
        TokenTrie trie = TokenTrie.Of(model.Weights.Tokenizer);
        var masks = new GrammarMasks(GbnfParser.Parse(Palindromes, "root"), trie, maxWork: long.MaxValue);
        var undisturbed = new GrammarMasks(GbnfParser.Parse(Palindromes, "root"), trie, maxWork: long.MaxValue);
        GrammarState state = undisturbed.Start();
        ulong[] expected = undisturbed.Allowed(ref state).Short;
        state = masks.Start();
        for (int i = 0; i < 20; i++)
        {
            using var source = new CancellationTokenSource();
            source.Cancel();
            using StepCancellation.Scope scope = StepCancellation.Enter(source.Token);
            Assert.Throws<OperationCanceledException>(() => masks.Allowed(ref state));
            Assert.InRange(masks.Work, 1, 20_000);  // of some 500,000
        }

        Assert.Equal(expected, masks.Allowed(ref state).Short);
        Assert.True(masks.Work > 100_000);
    }

    [Fact]
    public void A_mask_that_takes_too_long_is_an_error_that_names_the_rule()
    {
        var masks = new GrammarMasks(GbnfParser.Parse("start ::= root\n\n" + Palindromes, "start"), TokenTrie.Of(model.Weights.Tokenizer), maxWork: 50_000);
        GrammarState state = masks.Start();
        Assert.Contains("'root' (line 3)", Assert.Throws<GrammarException>(() => masks.Allowed(ref state)).Message, StringComparison.Ordinal);
        Assert.Contains("'root' (line 1)", Assert.Throws<GrammarException>(() => new Grammar(Palindromes, "root").Validate()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_cancelled_generation_ends_while_a_mask_is_computed()
    {
        using var source = new CancellationTokenSource();
        using var pipeline = new SlowPipeline(new GrammarMasks(GbnfParser.Parse(Palindromes, "root"), TokenTrie.Of(model.Weights.Tokenizer), maxWork: long.MaxValue), source);
        var executor = new StatelessExecutor(model.Weights, new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 64 });
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (string _ in executor.InferAsync("a", new InferenceParams { MaxTokens = 5, SamplingPipeline = pipeline }, source.Token))
            {
            }
        });
        Assert.Equal(1, pipeline.Began);
        Assert.Equal(0, pipeline.Ended);
    }

    [Fact]
    public async Task Texts_under_one_grammar_may_be_followed_at_once()
    {
        var grammar = new Grammar("root ::= (\"[\" root \"]\" | [a-z]{1,3} \",\")*", "root");
        float[][] first = await Task.WhenAll(Enumerable.Range(0, 8).Select(thread => Task.Run(() => Follow(thread % 2))));
        Assert.All(Enumerable.Range(0, 8), thread => Assert.Equal(first[thread % 2], first[thread]));

        float[] Follow(int seed)
        {
            var matcher = new GrammarMatcher(grammar.Compiled, model.Weights.Tokenizer);
            var random = new Random(seed);
            var logits = new float[model.Weights.Tokenizer.VocabularySize];
            for (int step = 0; step < 50; step++)
            {
                logits.AsSpan().Clear();
                matcher.Mask(logits);
                int[] allowed = [.. Enumerable.Range(0, logits.Length).Where(i => logits[i] == 0 && !model.Weights.Tokenizer.IsEndOfGeneration(i))];
                matcher.Accept(allowed[random.Next(allowed.Length)]);
            }

            return logits;
        }
    }

    // Cancels the generation in the middle of a step, then looks for a mask that takes long.
    private sealed class SlowPipeline(GrammarMasks masks, CancellationTokenSource source) : ISamplingPipeline
    {
        public int Began { get; private set; }

        public int Ended { get; private set; }

        public LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
        {
            Began++;
            source.Cancel();
            GrammarState state = masks.Start();
            masks.Allowed(ref state);
            Ended++;
            return 0;
        }

        public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
        {
        }

        public void Reset()
        {
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Dispose()
        {
        }
    }
}
