namespace LlamaKivi.Evaluation.Tests.Generation;

/// <summary>Prompts cut out of a text.</summary>
public sealed class GenerationPromptsTests(DemoModel model) : IClassFixture<DemoModel>
{
    private static readonly string Text = string.Concat(Enumerable.Range(100, 100).Select(i => $"Line {i} tells of the parser and of its {i} tokens.\n"));

    [Fact]
    public void Prompts_start_at_lines_at_evenly_spaced_places()
    {
        IReadOnlyList<int[]> prompts = GenerationPrompts.FromText(model.Weights.Tokenizer, Text, 4, 20);
        Assert.All(prompts, prompt => Assert.Equal(20, prompt.Length));
        string[] texts = [.. prompts.Select(prompt => model.Weights.Tokenizer.Decode(prompt).TrimStart())];
        Assert.All(texts.Zip([100, 125, 150, 175]), pair => Assert.StartsWith($"Line {pair.Second} tells", pair.First, StringComparison.Ordinal));
        Assert.Equal(prompts, GenerationPrompts.FromText(model.Weights.Tokenizer, Text, 4, 20));
    }

    [Fact]
    public void A_prompt_has_the_tokens_of_the_whole_text()
    {
        int[] whole = model.Weights.Tokenizer.Encode(Text, addBos: model.Weights.Tokenizer.AddBos, parseSpecial: false);
        Assert.Equal(whole[..200], GenerationPrompts.FromText(model.Weights.Tokenizer, Text, 1, 200)[0]);
    }

    [Fact]
    public void A_text_without_lines_is_cut_at_characters()
    {
        string text = string.Concat(Enumerable.Repeat("\U0001F600", 101));  // two UTF-16 units each; the second place lies within one
        IReadOnlyList<int[]> prompts = GenerationPrompts.FromText(model.Weights.Tokenizer, text, 2, 8);
        Assert.DoesNotContain('\uFFFD', model.Weights.Tokenizer.Decode(prompts[1].AsSpan(0, 4)));
    }

    [Fact]
    public void A_short_text_is_an_error()
    {
        ArgumentException e = Assert.Throws<ArgumentException>(() => GenerationPrompts.FromText(model.Weights.Tokenizer, "One line.\nTwo.\n", 2, 64));
        Assert.StartsWith("prompt 1 of 2 starts at character 0 of 15, and fewer than 64 tokens follow; use a longer text, or fewer or shorter prompts", e.Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => GenerationPrompts.FromText(model.Weights.Tokenizer, "", 1, 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => GenerationPrompts.FromText(model.Weights.Tokenizer, Text, 0, 1));
    }
}
