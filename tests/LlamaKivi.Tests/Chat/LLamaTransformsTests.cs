using LlamaKivi.Common;

namespace LlamaKivi.Tests;

public class LLamaTransformsTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_conversation_is_lines_with_names(bool isInstructMode)
    {
        var transform = new LLamaTransforms.DefaultHistoryTransform("U", "A", "S", "X", isInstructMode);
        var history = new ChatHistory([new(AuthorRole.System, "s"), new(AuthorRole.User, " u "), new(AuthorRole.Assistant, "a\n"), new(AuthorRole.Unknown, "x")]);
        Assert.Equal("S: s\nU:  u \nA: a\n\nX: x\n", transform.HistoryToText(history));
    }

    [Theory]
    [InlineData(AuthorRole.User, "U: hi", "hi")]
    [InlineData(AuthorRole.User, "U:", "")]
    [InlineData(AuthorRole.User, "A: hi", "A: hi")]
    [InlineData(AuthorRole.User, "\nU:", "\nU:")]
    [InlineData(AuthorRole.Assistant, "hi A:", "hi")]
    [InlineData(AuthorRole.Assistant, "hi U:", "hi U:")]
    [InlineData(AuthorRole.Assistant, "\nU:", "\nU:")]
    [InlineData(AuthorRole.Assistant, "hi\nA: ", "hi\nA: ")]
    [InlineData(AuthorRole.Assistant, "A: hi", "A: hi")]
    [InlineData(AuthorRole.Assistant, "hi\n> ", "hi\n> ", "hi")]
    [InlineData(AuthorRole.Assistant, "hi A:\n> ", "hi A:\n> ", "hi A:")]
    [InlineData(AuthorRole.Assistant, "hi\n> A:", "hi\n>")]
    [InlineData(AuthorRole.System, "U: hi A:", "U: hi A:")]
    public void Names_that_models_repeat_are_trimmed(AuthorRole role, string text, string expected, string? ofInstructions = null)
    {
        foreach (bool isInstructMode in new[] { false, true })
        {
            var transform = new LLamaTransforms.DefaultHistoryTransform("U", "A", "S", "X", isInstructMode);
            string trimmed = isInstructMode ? ofInstructions ?? expected : expected;
            Assert.Equal(trimmed, transform.TrimNamesFromText(text, role));
            Assert.Equal(trimmed, transform.TextToHistory(role, text).Messages.Single().Content);
        }
    }
}
