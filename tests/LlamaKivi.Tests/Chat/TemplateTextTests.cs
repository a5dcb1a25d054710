using LlamaKivi.Templates;

namespace LlamaKivi.Tests.Chat;

/// <summary>What a chat template reads, found in its text.</summary>
public class TemplateTextTests
{
    [Theory]
    [InlineData("{#")]
    [InlineData("{{")]
    [InlineData("{%")]
    public void TextsWhoseTagsDoNotCloseAreRefusedInTime(string tag) =>
        Assert.Contains("does not close them", Assert.Throws<TemplateException>(() => new TemplateText(string.Concat(Enumerable.Repeat(tag, 1_000_000)))).Message, StringComparison.Ordinal);

    [Fact]
    public void NamesOfTagsAreRead()
    {
        var text = new TemplateText("{# tools #}{% if documents %}{{ x['enable_thinking'].builtin }}{% endif %} messages");
        Assert.True(text.Reads("documents") && text.Reads("x"));
        Assert.False(text.Reads("tools") || text.Reads("enable_thinking") || text.Reads("builtin") || text.Reads("messages"));
    }
}
