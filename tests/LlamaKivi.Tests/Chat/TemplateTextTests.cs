using LlamaKivi.TestHelpers;

namespace LlamaKivi.Tests.Chat;

/// <summary>Variables that a chat template reads, found in its source.</summary>
public class TemplateTextTests
{
    /// <summary>Text that nothing closes is scanned once: quadratic time would be hours.</summary>
    [Theory]
    [InlineData("{#", "{{ last }}")]
    [InlineData("{{", "{{ last }}")]
    [InlineData("{%", "{{ last }}")]
    [InlineData("{", "{{ last }}")]
    [InlineData("{{ a }} {% if b %}{# c #}", "{{ last }}")]
    [InlineData("\\'", "{{ last }}", "{{ ")]
    [InlineData("\\\"", "{% last %}", "{% ")]
    public void Unclosed_tags_and_strings_take_linear_time(string repeated, string end, string begin = "")
    {
        string template = begin + string.Concat(Enumerable.Repeat(repeated, 1_000_000)) + end;
        TimeSpan start = ThreadTime.Now;
        var text = new TemplateText(template);
        Assert.InRange((ThreadTime.Now - start).TotalSeconds, 0, 10);
        Assert.True(text.Reads("last"));
    }

    [Theory]
    [InlineData("{{ 'it\\'s tools' ~ name }}", "name")]
    [InlineData("{{ \"a\" ~ name }}{# tools #}", "name")]
    [InlineData("{{ '{#' }}{{ name }}{{ '#}' }}", "name")]
    [InlineData("{%- set x = 1name ~ name.tools -%}", "set x name")]
    [InlineData("{{ name", "")]
    [InlineData("tools {", "")]
    [InlineData("{", "")]
    [InlineData("{{", "")]
    [InlineData("", "")]
    public void Names_are_those_outside_strings_and_comments(string template, string names)
    {
        var text = new TemplateText(template);
        string[] all = ["name", "tools", "set", "x", "it", "s", "a"];
        Assert.Equal(names, string.Join(' ', all.Where(text.Reads).OrderBy(name => names.IndexOf(name, StringComparison.Ordinal))));
    }

    [Fact]
    public void Names_inside_tags_are_found()
    {
        var text = new TemplateText("{# tools #}{% if documents %}{{ x['enable_thinking'].builtin }}{% endif %} messages");
        Assert.True(text.Reads("documents") && text.Reads("x"));
        Assert.False(text.Reads("tools") || text.Reads("enable_thinking") || text.Reads("builtin") || text.Reads("messages"));
    }
}
