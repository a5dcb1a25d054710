using System.Diagnostics;

namespace LlamaKivi.Templates.Tests;

/// <summary>Long but legitimate conversations stay within the limits.</summary>
public class LimitsTests(ITestOutputHelper output)
{
    // Like published templates: each message inspects the others, and a string grows in a namespace.
    private const string Template =
        """
        {%- macro show(tool) %}
        {{- '\n' ~ (tool | tojson) }}
        {%- endmacro %}
        {%- set ns = namespace(last=-1, system='', calls=0) %}
        {%- for message in messages %}
        {%- if message.role == 'user' and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.last = loop.index0 %}
        {%- endif %}
        {%- endfor %}
        {%- for tool in tools %}{{ show(tool) }}{% endfor %}
        {%- for message in messages[::-1] %}
        {%- set index = (messages | length - 1) - loop.index0 %}
        {%- if message.role == 'system' %}{% set ns.system = ns.system ~ message.content %}{% endif %}
        {%- endfor %}
        {%- for message in messages %}
        {%- set later = messages[loop.index:] | selectattr('role', 'equalto', 'user') | list | length %}
        <|{{ message.role }}|>{{ later }}
        {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}{% set ns.calls = ns.calls + 1 %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>{% endfor %}
        {%- endif %}
        {%- if '</think>' in message.content %}{% set content = message.content.split('</think>')[-1].lstrip('\n') %}{% else %}{% set content = message.content %}{% endif %}
        {%- for part in content.split('\n') %}{{ part | trim }}
        {% endfor %}
        {%- endfor %}{{ ns.calls }}
        """;

    [Fact]
    public void A_thousand_turns_with_tools_and_600_kB_are_rendered()
    {
        string text = string.Concat(Enumerable.Repeat("A line of about forty characters, or so.\n", 14));
        object?[] messages =
        [
            .. Enumerable.Range(0, 1000).Select(i => (object?)new Dictionary<string, object?>
            {
                ["role"] = (i % 3) switch { 0 => "user", 1 => "assistant", _ => "tool" },
                ["content"] = "<think>x</think>\n" + text,
                ["tool_calls"] = i % 3 == 1 ? new object?[] { new Dictionary<string, object?> { ["function"] = new Dictionary<string, object?> { ["name"] = "f", ["arguments"] = new Dictionary<string, object?> { ["x"] = i, ["y"] = text } } } } : null,
            }),
        ];
        object?[] tools = [.. Enumerable.Range(0, 50).Select(i => (object?)new Dictionary<string, object?> { ["name"] = $"tool{i}", ["description"] = text })];
        long start = Stopwatch.GetTimestamp();
        string prompt = new JinjaTemplate(Template).Render([new("messages", messages), new("tools", tools)]);
        output.WriteLine($"{prompt.Length} characters in {Stopwatch.GetElapsedTime(start).TotalMilliseconds:F0} ms");
        Assert.True(prompt.Length > 700_000);
        Assert.EndsWith("333", prompt, StringComparison.Ordinal);
    }

    [Fact]
    public void A_string_may_grow_with_every_message()
    {
        object?[] messages = [.. Enumerable.Range(0, 1000).Select(i => (object?)new Dictionary<string, object?> { ["content"] = new string('a', 600) })];
        string prompt = new JinjaTemplate("{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content %}{% endfor %}{{ ns.t }}").Render([new("messages", messages)]);
        Assert.Equal(600_000, prompt.Length);
    }

    [Fact]
    public void Macros_may_call_themselves_two_hundred_deep() =>
        Assert.Equal("200", new JinjaTemplate("{% macro m(n) %}{% if n < 200 %}{{ m(n + 1) }}{% else %}{{ n }}{% endif %}{% endmacro %}{{ m(0) }}").Render([]));
}
