using LlamaKivi.Templates;

namespace LlamaKivi.Tests.Chat;

/// <summary>Variables that a chat template reads, found in its source.</summary>
public class TemplateTextTests
{
    [Theory]
    [InlineData("{#")]
    [InlineData("{{")]
    [InlineData("{%")]
    public void Unclosed_tags_are_refused_in_time(string tag) =>
        Assert.Contains("does not close them", Assert.Throws<TemplateException>(() => new TemplateText(string.Concat(Enumerable.Repeat(tag, 1_000_000)))).Message, StringComparison.Ordinal);

    [Fact]
    public void Names_inside_tags_are_found()
    {
        var text = new TemplateText("{# tools #}{% if documents %}{{ x['enable_thinking'].builtin }}{% endif %} messages");
        Assert.True(text.Reads("documents") && text.Reads("x"));
        Assert.False(text.Reads("tools") || text.Reads("enable_thinking") || text.Reads("builtin") || text.Reads("messages"));
    }
}
