using System.Text.Json;
using LlamaKivi.Templates.Jinja;
using Xunit;

namespace LlamaKivi.Templates.Tests;

/// <summary>Hostile templates. Each gives its output or a TemplateException, and none ends the process.</summary>
public class HostileTemplateTests
{
    private static string Render(string template) => new JinjaTemplate(template).Render([new("l", new object?[] { 1L })]);

    private static string Repeat(string piece, int times) => string.Concat(Enumerable.Repeat(piece, times));

    // Expected outputs are those of jinja2 3.1.
    [Theory]
    [InlineData("{% set ns = namespace(a=1) %}{% set ns.self = ns %}{{ ns }}", "<Namespace {'a': 1, 'self': <Namespace {...}>}>")]
    [InlineData("{% set ns = namespace() %}{% set ns.l = [1, ns] %}{{ ns.l }}{{ ns.l == ns.l }}{{ ns.l[1] == ns }}", "[1, <Namespace {'l': [...]}>]TrueTrue")]
    [InlineData("{% set ns = namespace() %}{% set ns.d = {'a': ns} %}{{ [ns.d, ns.d] | join('-') }}", "{'a': <Namespace {'d': {...}}>}-{'a': <Namespace {'d': {...}}>}")]
    [InlineData("{% set a = [1] %}{% set b = [a, a] %}{{ b }}{{ b | tojson }}", "[[1], [1]][[1], [1]]")]  // shared, not cyclic
    [InlineData("{{ 1.5 | round(400) }} {{ 15.0 | round(-400) }} {{ [3, 1, 2] | max }} {{ ['b', 'A'] | min }}", "1.5 0.0 3 A")]
    [InlineData("{{ 7 // -2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 62 }} {{ 3 ** 39 }} {{ 5 % -1 }}", "-4 2 -2 4611686018427387904 4052555153018976267 0")]
    [InlineData("{{ 'abcdef'[::9223372036854775807] }} {{ 'abc'[0:100000000000] }} {{ range(0, 10, 9223372036854775807) | list }}", "a abc [0]")]
    [InlineData("{{ '%s %d %5.2f|%-5s|%05d|%x %%' | format('a', 3, 2.5, 'b', 42, 255) }} {{ '%(a)s' | format(a=1) }}", "a 3  2.50|b    |00042|ff % 1")]
    [InlineData("{{ '<a \"b\" \\'c\\'>&' | escape }} {{ 'xaxbx'.replace('x', 'y', 2) }} {{ 'aaa'.rsplit('aa') }} {{ 'a,b,c'.rsplit(',', 1) }}", "&lt;a &#34;b&#34; &#39;c&#39;&gt;&amp; yaybx ['a', ''] ['a,b', 'c']")]
    [InlineData("{{ [[1, 2], [1]] | sort }} {{ {'a': 1} | tojson(indent=-1) }} {{ 'xxaxx'.strip('x') }} {{ {'b': 1, 'A': 2} | dictsort }}", "[[1], [1, 2]] {\n\"a\": 1\n} a [('A', 2), ('b', 1)]")]
    [InlineData("{{ '\\ud800' | tojson | length }} {{ '\\u00a0\\u0001😀' | tojson }}", "3 \"\u00a0\\u0001😀\"")]
    [InlineData("{% set x = 1e400 %}{{ [x, -x, x - x] }} {{ [x, -x, x - x] | tojson }}", "[inf, -inf, nan] [Infinity, -Infinity, NaN]")]
    [InlineData("{{ [9223372036854775807, 1] | sum }} {{ (-9223372036854775807 - 1) | abs }} {{ -(-9223372036854775807 - 1) }} {{ (-9223372036854775807 - 1) // -1 }}", "9223372036854775808 9223372036854775808 9223372036854775808 9223372036854775808")]
    public void Odd_templates_render_as_in_python(string template, string expected) => Assert.Equal(expected, Render(template));

    [Theory]
    [InlineData("{% set _ = l.append(l) %}{{ l }}", "The attribute 'append' of a list is not accessible to templates")]
    [InlineData("{% set d = {'a': 1} %}{% set _ = d.update({'d': d}) %}{{ d | tojson }}", "The attribute 'update' of a dict is not accessible to templates")]
    [InlineData("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns | tojson }}", "A Namespace cannot be serialized to JSON")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "nests more than 4000 deep")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(5000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x | tojson }}", "nests more than 4000 deep")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}", "nests")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ ('%s' | safe) % (ns.x,) }}", "nests")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {}[ns.x] }}", "nests")]
    [InlineData("{% set ns = namespace(g=l) %}{% for i in range(99999) %}{% set ns.g = ns.g | map('string') %}{% endfor %}{{ ns.g | list }}", "nests")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}", "it was stopped")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}", "it was stopped")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | pprint }}", "it was stopped")]
    [InlineData("{% set ns = namespace(x=1, y=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}", "it was stopped")]
    [InlineData("{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}{{ {ns.x: 1}[ns.y] }}", "it was stopped")]
    [InlineData("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}", "it was stopped")]
    [InlineData("{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + ['a' * 1000000 ~ i] %}{% endfor %}", "characters of intermediate values")]
    [InlineData("{% set ns = namespace() %}{% for i in range(100000) %}{% for j in range(100000) %}{% set ns.x = i %}{% endfor %}{% endfor %}", "steps")]
    [InlineData("{{ [1, 'a'] | sort }}", "Values of types str and int cannot be ordered. (Line 1 of the template.)")]
    [InlineData("{{ [1, 'a'] | max }}", "cannot be ordered")]
    [InlineData("{{ [[1], 2] | sort }}", "cannot be ordered")]
    [InlineData("{{ 2 ** 1000000 }}", "integer of more than")]
    [InlineData("{{ 10 ** 10000 }}", "4300 digits")]
    [InlineData("{{ 9 ** (9 ** 9) }}", "integer of more than")]
    [InlineData("{{ 10.0 ** 400 }}", "too large for a float")]
    [InlineData("{{ '{' | format(1) }}", "does not use all of its values")]
    [InlineData("{{ '%s' | format }}", "needs more than the 0 given values")]
    [InlineData("{{ '%' | format(1) }}", "ends inside a conversion")]
    [InlineData("{{ '%q' | format(1) }}", "conversion %q in the format is unknown")]
    [InlineData("{{ '%d' | format('x') }}", "takes an integer, not a str")]
    [InlineData("{{ '%2000000000s' | format('x') }}", "it was stopped")]
    [InlineData("{{ '%*d' | format(-2000000000, 1) }}", "it was stopped")]
    [InlineData("{{ '{:2000000000}'.format('x') }}", "it was stopped")]
    [InlineData("{{ '%.2000000f' | format(1.5) }}", "a precision of 2000000 is too large")]
    [InlineData("{{ dict(a=1, a=2) }}", "the argument 'a' is given twice")]
    [InlineData("{{ [1] | tojson(indent=9000000000) }}", "it was stopped")]
    [InlineData("{{ ('a\n' * 1000) | indent(9000000000, true) }}", "it was stopped")]
    [InlineData("{{ 'a' | center(9000000000) }}{{ 'a'.zfill(9000000000) }}", "it was stopped")]
    [InlineData("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", "it was stopped")]
    [InlineData("{{ ('a' * 1000000) | replace('', 'b' * 1000000) | replace('a', 'b' * 1000000) }}", "it was stopped")]
    [InlineData("{{ range(100000) | join('a' * 1000000) }}", "it was stopped")]
    [InlineData("{{ (range(100000) | list | string).join(range(100000) | map('string')) }}", "it was stopped")]
    [InlineData("{{ ('<' * 16000000) | escape }}", "it was stopped")]
    [InlineData("{{ range(10 ** 12) }}", "A range may have at most 100000 numbers")]
    [InlineData("{{ ('a ' * 8000000).split() | length }}", "it was stopped")]
    [InlineData("{{ ('a ' * 8000000).rsplit(' ') | length }}", "it was stopped")]
    [InlineData("{{ ('a' * 16000000) | list }}", "it was stopped")]
    [InlineData("{{ [1] | batch(1000000000, 'x') | list }}", "it was stopped")]
    [InlineData("{{ [1] | slice(1000000000) | list }}", "it was stopped")]
    [InlineData("{{ (('a' * 16000000).count('a' * 8000000 ~ 'b' ~ 'a' * 7000000)) }}{{ l.x.y }}", "has no attribute 'x'")]  // in linear time
    [InlineData("{% set s = 'a' * 16000000 %}{% for i in range(100000) %}{% if s[0] == s %}{% endif %}{% endfor %}", "steps")]
    [InlineData("{% set s = 'a' * 16000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}", "steps")]
    [InlineData("{% set s = 'a' * 16000000 %}{% for i in range(100000) %}{% if s.isalpha() %}{% endif %}{% endfor %}", "steps")]
    [InlineData("{% set s = 'a-' * 1000000 %}{% for i in range(1000) %}{% set x = s | wordwrap(5) %}{% endfor %}", "it was stopped")]
    [InlineData("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}", "more than 250 deep")]
    [InlineData("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "more than 250 deep")]
    [InlineData("{% block a %}{{ self.a() }}{% endblock %}", "more than 250 deep")]
    [InlineData("{{ 1 }}\n\n{{ 1 // 0 }}", "Division by zero. (Line 3 of the template.)")]
    [InlineData("{% macro m() %}\n{{ 1 }}\n{% endmacro %}\n{{ m() ~ (1 // 0) }}", "(Line 4 of the template.)")]
    public void Failures_are_TemplateExceptions(string template, string expected)
    {
        var e = Assert.Throws<TemplateException>(() => Render(template));
        Assert.Contains(expected, e.Message, StringComparison.OrdinalIgnoreCase);
        Assert.True(e.InnerException is null or TemplateException, e.InnerException?.ToString());
    }

    // Deep trees without brackets, and deep calls without lists.
    [Theory]
    [InlineData("{{ 1", " + 1", " }}")]
    [InlineData("{{ ''", " ~ ''", " }}")]
    [InlineData("{{ a", ".b", " }}")]
    [InlineData("{{ a", "()", " }}")]
    [InlineData("{{ a", "[0]", " }}")]
    [InlineData("{{ a", " | trim", " }}")]
    [InlineData("{{ a", " is defined", " }}")]
    [InlineData("{% filter upper", " | upper", " %}a{% endfilter %}")]
    [InlineData("{% set a | upper", " | upper", " %}a{% endset %}")]
    [InlineData("{{ l", "[0:1]", " }}")]
    [InlineData("{{ '{", "{", "}'.format(1) }}")]
    [InlineData("{{ 2", " ** a", " }}")]
    [InlineData("{{ a", " or a", " }}")]
    [InlineData("{{ 1", " < 2", " }}")]
    [InlineData("{{ 1", " ** 1", " }}")]
    [InlineData("{{ 1", " if 1", " }}")]
    [InlineData("{{ 1", " if 0 else 1", " }}")]
    [InlineData("{{ ", "not ", "1 }}")]
    [InlineData("{{ ", "- ", "1 }}")]
    [InlineData("{{ 'a' | map(", "'map', ", "'upper') | list }}")]
    [InlineData("{{ 'a' ", "'b' ", "}}")]
    [InlineData("", "{% if 1 %}", "")]
    [InlineData("", "{% for a in [1] %}", "")]
    [InlineData("", "{% filter upper %}", "")]
    [InlineData("", "{% macro m() %}", "")]
    [InlineData("{{ ", "[", "")]
    [InlineData("{{ ", "{1: ", "")]
    [InlineData("{{ ", "a(", "")]
    [InlineData("{{ ", "(", "")]
    public void Long_chains_do_not_overflow_the_stack(string begin, string piece, string end)
    {
        // A thread with a small stack, as a server may have: the stack check triggers before the nesting limit.
        Exception? other = null;
        var thread = new Thread(
            () =>
            {
                foreach (int times in (int[])[20, 150, 900, 3000, 100_000])
                {
                    try
                    {
                        Render(begin + Repeat(piece, times) + end);
                    }
                    catch (TemplateException)
                    {
                    }
                    catch (Exception e)
                    {
                        other = e;
                    }
                }
            },
            256 << 10);
        thread.Start();
        thread.Join();
        Assert.Null(other);
    }

    // Many small objects that are all kept: each takes more memory than the characters in it.
    [Theory]
    [InlineData("{}")]
    [InlineData("{1: 1}")]
    [InlineData("[]")]
    [InlineData("l | map('upper')")]
    [InlineData("namespace()")]
    public void Objects_that_a_template_keeps_are_bounded(string value)
    {
        string many = "{% set ns = namespace(x=1) %}{% for i in range(100000) %}{% set ns.x = [ns.x" + Repeat(", " + value, 30) + "] %}{% endfor %}";
        Assert.Contains("characters of intermediate values", Assert.Throws<TemplateException>(() => Render(many)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_long_conversation_does_not_allow_any_memory()
    {
        var budget = new Budget(TestContext.Current.CancellationToken);
        budget.Grant(100_000_000);
        string text = new('a', 8 << 20);
        Assert.Contains("402653184 characters of intermediate values", Assert.Throws<TemplateException>(() =>
        {
            for (int i = 0; i < 100; i++)
            {
                budget.Made(text);
            }
        }).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Nested_calls_and_expressions_do_not_overflow_the_stack()
    {
        string deep = Repeat("[", 150) + "m(n - 1)" + Repeat("]", 150);
        var e = Assert.Throws<TemplateException>(() => Render("{% macro m(n) %}{{ " + deep + " if n else 'end' }}{% endmacro %}{{ m(90) }}"));
        Assert.Contains("nests more than", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_thousand_levels_fit_into_a_stack_of_one_megabyte()
    {
        string? made = null;
        var thread = new Thread(() => made = Render("{{ ''" + Repeat(" ~ 'a'", 990) + " }}"), 1 << 20);
        thread.Start();
        thread.Join();
        Assert.Equal(Repeat("a", 990), made);
    }

    [Fact]
    public void Variables_that_contain_themselves_are_an_argument_error()
    {
        var list = new List<object?>();
        list.Add(list);
        var dictionary = new Dictionary<string, object?>();
        dictionary["d"] = dictionary;
        JsonElement deep = JsonDocument.Parse(Repeat("[", 2000) + Repeat("]", 2000), new JsonDocumentOptions { MaxDepth = 4000 }).RootElement;
        var template = new JinjaTemplate("{{ x }}");
        Assert.All((object[])[list, dictionary, deep], value =>
            Assert.Contains("nests more than 500 deep", Assert.Throws<ArgumentException>(() => template.Render([new("x", value)])).Message, StringComparison.Ordinal));
        Assert.Throws<ArgumentException>(() => template.Render([new("x", JsonDocument.Parse("\"\\ud800\"").RootElement)]));
    }

    [Fact]
    public void Raised_messages_are_unchanged_and_cancellation_stays_a_cancellation()
    {
        Assert.Equal("no", Assert.Throws<TemplateException>(() => Render("\n{{ raise_exception('no') }}")).Message);
        Assert.Throws<OperationCanceledException>(() => new JinjaTemplate("{{ range(100000) | list | sort }}").Render([], null, new CancellationToken(true)));
        Assert.InRange(Assert.Throws<TemplateException>(() => Render("{{ x('a' * 1000000) }}{{ ('a' * 1000000).b.c }}{{ 1 + ['a' * 1000000] }}")).Message.Length, 1, 2000);
    }
}
