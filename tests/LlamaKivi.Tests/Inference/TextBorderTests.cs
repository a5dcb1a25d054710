using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Texts cut inside a character or an antiprompt continue seamlessly.</summary>
public sealed class TextBorderTests : IClassFixture<InferenceTests.DemoModel>, IDisposable
{
    private const string Character = "\U0001F9E9";  // four bytes

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private readonly LLamaWeights _weights;
    private readonly LLamaContext _context;
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-border").FullName;

    public TextBorderTests(InferenceTests.DemoModel model)
    {
        _weights = model.Weights;
        _context = CreateContext();
    }

    public void Dispose()
    {
        _context.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private LLamaContext CreateContext() =>
        _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 256, Threads = 1, KvCache = KvCacheParams.Parse("f16") });

    private int[] Tokens(string text) => _weights.Tokenizer.Encode(text, addBos: false, parseSpecial: true);

    // One token per byte.
    private int[] Bytes(string text) => [.. System.Text.Encoding.UTF8.GetBytes(text).Select(value =>
        Enumerable.Range(0, _weights.Tokenizer.VocabularySize).First(id => _weights.Tokenizer.GetBytes(id).Span.SequenceEqual([value])))];

    private static InferenceParams Script(params int[] tokens) => new() { MaxTokens = tokens.Length, SamplingPipeline = new ScriptedPipeline(tokens) };

    private static async Task<string> ReadAsync(IAsyncEnumerable<string> pieces) => string.Concat(await pieces.ToListAsync());

    [Fact]
    public async Task A_character_cut_by_the_length_comes_whole_with_the_rest()
    {
        int[] tokens = Bytes(Character);
        Assert.Equal(4, tokens.Length);
        for (int cut = 1; cut < tokens.Length; cut++)
        {
            var executor = new InteractiveExecutor(_context);
            Assert.Equal("a", await ReadAsync(executor.InferAsync("A piece:", Script([.. Tokens("a"), .. tokens[..cut]]))));
            Assert.Equal("", await ReadAsync(executor.InferAsync(null, Script([]))));
            Assert.Equal(Character + "b", await ReadAsync(executor.InferAsync(null, Script([.. tokens[cut..], .. Tokens("b")]))));
        }
    }

    [Fact]
    public async Task A_character_token_by_token_comes_with_its_last()
    {
        var executor = new InteractiveExecutor(_context);
        string[] pieces = new string[4];
        await executor.PrefillPromptAsync("A piece:", Token);
        for (int i = 0; i < pieces.Length; i++)
        {
            pieces[i] = await ReadAsync(executor.InferAsync(null, Script(Bytes(Character)[i])));
        }

        Assert.Equal(["", "", "", Character], pieces);
    }

    [Fact]
    public async Task A_stop_inside_a_character_loses_nothing()
    {
        var executor = new InteractiveExecutor(_context);
        using var source = new CancellationTokenSource();
        InferenceParams inference = Script(Bytes("a" + Character));
        inference.SamplingPipeline = new ScriptedPipeline(Bytes("a" + Character)) { BeforeToken = n => { if (n == 2) { source.Cancel(); } } };
        Assert.Equal("a", await ReadAsync(executor.InferAsync("A piece:", inference, source.Token)));
        int written = executor.GeneratedTokens.Count;
        Assert.Equal(Character, await ReadAsync(executor.InferAsync(null, Script(Bytes("a" + Character)[written..]))));
    }

    [Fact]
    public async Task A_refused_prompt_keeps_an_unfinished_character()
    {
        var executor = new InteractiveExecutor(_context);
        await ReadAsync(executor.InferAsync("A piece:", Script(Bytes(Character)[..2])));
        await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(executor.InferAsync(string.Concat(Enumerable.Repeat("compiler ", 300)), Script(1))));
        await Assert.ThrowsAsync<ContextOverflowException>(() => ReadAsync(executor.InferAsync(string.Concat(Enumerable.Repeat("compiler ", 254)), Script(1))));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => ReadAsync(executor.InferAsync("Another:", Script(1), new CancellationToken(canceled: true))));
        Assert.Equal(Character, await ReadAsync(executor.InferAsync(null, Script(Bytes(Character)[2..]))));
    }

    [Fact]
    public async Task A_new_text_does_not_begin_with_an_old_partial_character()
    {
        var executor = new InteractiveExecutor(_context);
        await ReadAsync(executor.InferAsync("A piece:", Script(Bytes(Character)[..2])));
        Assert.Equal("b", await ReadAsync(executor.InferAsync("Another:", Script(Tokens("b")))));
    }

    [Fact]
    public async Task Unfinished_bytes_are_written_at_the_end_of_the_text()
    {
        var executor = new InteractiveExecutor(_context);
        int end = _weights.Tokenizer.EosId!.Value;
        Assert.Equal("a\uFFFD", await ReadAsync(executor.InferAsync("A piece:", Script([.. Tokens("a"), .. Bytes(Character)[..2], end]))));
        Assert.Equal("b", await ReadAsync(executor.InferAsync(null, Script(Tokens("b")))));
        Assert.Equal("\uFFFDc", await ReadAsync(executor.InferAsync(null, Script([.. Bytes(Character)[..2], .. Tokens("c")]))));
    }

    [Fact]
    public async Task A_saved_executor_continues_inside_a_character_and_an_antiprompt()
    {
        string file = Path.Combine(_folder, "executor.json");
        var executor = new InteractiveExecutor(_context);
        await ReadAsync(executor.InferAsync("A piece:", Script([.. Tokens("Us"), .. Bytes(Character)[..3]])));
        await executor.SaveState(file, Token);
        using LLamaContext.State state = _context.GetState();
        using LLamaContext other = CreateContext();
        other.LoadState(state);
        var restored = new InteractiveExecutor(other);
        await restored.LoadState(file, Token);
        InferenceParams rest = Script([Bytes(Character)[3], .. Tokens("and more")]);
        rest.AntiPrompts = ["s" + Character];
        Assert.Equal(Character, await ReadAsync(restored.InferAsync(null, rest)));
        Assert.Equal(StopReason.AntiPrompt, restored.StopReason);
    }

    [Fact]
    public async Task An_antiprompt_cut_by_the_length_is_found_with_the_rest()
    {
        var executor = new InteractiveExecutor(_context);
        Assert.Equal("Us", await ReadAsync(executor.InferAsync("A talk:\n", Script(Tokens("Us")))));
        InferenceParams rest = Script([.. Tokens("er"), .. Tokens(":"), .. Tokens("more")]);
        rest.AntiPrompts = ["User:"];
        Assert.Equal("er:", await ReadAsync(executor.InferAsync(null, rest)));
        Assert.Equal(StopReason.AntiPrompt, executor.StopReason);

        // Prompt text does not count as generated, and a reported antiprompt is not reported again.
        await executor.PrefillPromptAsync("\n", Token);
        rest = Script([.. Tokens("\n"), .. Tokens("more")]);
        rest.AntiPrompts = ["\n\n", "User:"];
        Assert.Equal("\nmore", await ReadAsync(executor.InferAsync(null, rest)));
    }

    [Fact]
    public async Task An_empty_antiprompt_ends_nothing()
    {
        InferenceParams inference = Script(Tokens("a text of words"));
        inference.AntiPrompts = [""];
        Assert.Equal("a text of words", await ReadAsync(new InteractiveExecutor(_context).InferAsync("A piece:", inference)));
        Assert.False(new StopStrings([""]).Add("x"));
        Assert.False(new AntipromptProcessor([""]).Add("x"));

        using IChatClient client = new StatelessExecutor(_weights, _context.Params).AsChatClient();
        var options = new ChatOptions { Temperature = 0, MaxOutputTokens = 5 };
        string expected = (await client.GetResponseAsync("A compiler", options, Token)).Text;
        options.StopSequences = [""];
        Assert.NotEqual("", expected);
        Assert.Equal(expected, (await client.GetResponseAsync("A compiler", options, Token)).Text);
    }
}
