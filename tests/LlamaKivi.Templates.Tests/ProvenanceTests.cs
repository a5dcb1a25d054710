using System.Text.Json;
using System.Text.RegularExpressions;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates.Tests;

/// <summary>Provenance tracking does not change the output, and distinguishes the template's special tokens from equal text in variables.</summary>
public class ProvenanceTests
{
    private static readonly SpecialMarks Marks = new([(0, "<|end|>"), (1, "[INST]"), (2, "{x}"), (3, "sop")]);

    private static PromptText Render(string template, params (string Name, object? Value)[] variables) =>
        new JinjaTemplate(template).Render([], variables.Select(item => KeyValuePair.Create(item.Name, item.Value)), Marks, cancellationToken: TestContext.Current.CancellationToken);

    // Positions of special tokens that belong to the template.
    private static int[] Own(PromptText text, int id = 0, string name = "<|end|>") =>
        [.. Enumerable.Range(0, text.Value.Length).Where(i => text.Value.AsSpan(i).StartsWith(name) && text.Allows(id, i, name.Length))];

    [Theory]
    [InlineData("expressions.jsonl", 5)]
    [InlineData("generated.jsonl", 300)]
    public void Tracking_does_not_change_the_output(string file, int atLeast)
    {
        using StreamReader given = Cases.Open("variables.json");
        // Letters of the texts, and of the substrings that templates search for, are replaced by first and last characters of special tokens.
        static string Edged(string text) => text.Replace('o', '<').Replace('l', '|').Replace('b', '[').Replace('d', '>');
        Dictionary<string, object?> variables = Cases.Variables(
            JsonDocument.Parse(Regex.Replace(given.ReadToEnd(), "(?<=[:,[]\\s*)\"[^\"\\\\]*\"(?!:)", match => Edged(match.Value))).RootElement);
        using StreamReader cases = Cases.Open(file);
        var differences = new List<string>();
        int tracked = 0;
        foreach (JsonElement item in Cases.Read(cases))
        {
            string source = Regex.Replace(item.GetProperty("template").GetString()!, "'(o|l|ll|lo|or|b|d|ld|Hello|World|Hello World|bob|Al|deep)'", match => Edged(match.Value));
            string plain = Try(() => new JinjaTemplate(source).Render(variables, new Cases.FixedTime()));
            string kept = Try(() =>
            {
                PromptText text = new JinjaTemplate(source).Render([], variables, Marks, new Cases.FixedTime());
                tracked += Enumerable.Range(0, text.Value.Length).Any(i => !text.Allows(0, i, 1)) ? 1 : 0;
                return text.Value;
            });
            if (Cases.Address().Replace(plain, "0x") != Cases.Address().Replace(kept, "0x"))
            {
                differences.Add($"{source}\n  plain: {JsonSerializer.Serialize(plain)}\n  kept:  {JsonSerializer.Serialize(kept)}");
            }
        }

        Assert.True(differences.Count == 0, $"{differences.Count} differ:\n{string.Join('\n', differences.Take(20))}");
        Assert.True(tracked >= atLeast, $"{tracked} texts had characters from outside");

        static string Try(Func<string> render)
        {
            try
            {
                return render();
            }
            catch (TemplateException e)
            {
                return "raises " + e.Message;
            }
        }
    }

    [Theory]
    [InlineData("{{ c }}<|end|>", "a<|end|>", "a<|end|><|end|>")]
    [InlineData("{{ c | trim }}<|end|>", "  a<|end|> ", "a<|end|><|end|>")]
    [InlineData("{{ c.strip('<a') }}<|end|>", "<a<|end|>", "|end|><|end|>")]
    [InlineData("{{ c.split('<|end|>') | join('<|end|>') }}", "a<|end|>b", "a<|end|>b")]
    [InlineData("{{ c.split('|')[0] }}|end|>{{ c.split('</t>')[-1] }}", "<|</t><|end|>", "<|end|><|end|>")]
    [InlineData("{{ c[:3] }}{{ c[3:] }}<|end|>", "a<|end|>", "a<|end|><|end|>")]
    [InlineData("{{ c | tojson }}<|end|>", "a<|end|>\"é", "\"a<|end|>\\\"é\"<|end|>")]
    [InlineData("{{ c | tojson(ensure_ascii=true) }}<|end|>", "a<|end|>\"é", "\"a<|end|>\\\"\\u00e9\"<|end|>")]
    [InlineData("{{ [c] }}<|end|>", "a<|end|>'", "[\"a<|end|>'\"]<|end|>")]
    [InlineData("{{ {c: 1} | tojson }}<|end|>", "<|end|>", "{\"<|end|>\": 1}<|end|>")]
    [InlineData("{{ c | upper | lower }}<|end|>", "<|end|>", "<|end|><|end|>")]
    [InlineData("{{ c.replace('a', 'b') }}<|end|>", "a<|end|>", "b<|end|><|end|>")]
    [InlineData("{{ c | replace('<|end|>', '') }}<|end|>", "a<|end|>", "a<|end|>")]
    [InlineData("{{ c.removeprefix('<|end|>') }}<|end|>", "<|end|>a", "a<|end|>")]
    [InlineData("{{ c | striptags }}<|end|>", "&lt;|end|&gt;", "<|end|><|end|>")]
    [InlineData("{{ c | escape }}<|end|>", "<|end|>", "&lt;|end|&gt;<|end|>")]
    [InlineData("{{ '%s' % c }}{{ '{}'.format(c) }}<|end|>", "<|end|>", "<|end|><|end|><|end|>")]
    [InlineData("{% set ns = namespace(t='') %}{% for x in c %}{% set ns.t = ns.t ~ x %}{% endfor %}{{ ns.t }}<|end|>", "<|end|>", "<|end|><|end|>")]
    [InlineData("{% macro m(x) %}{{ x }}{% endmacro %}{{ m(c) }}<|end|>", "<|end|>", "<|end|><|end|>")]
    public void Operations_on_a_string_keep_its_origin(string template, string content, string expected)
    {
        PromptText text = Render(template, ("c", content));
        Assert.Equal(expected, text.Value);
        Assert.Equal(template.Contains("join", StringComparison.Ordinal) ? [1] : template.EndsWith("<|end|>", StringComparison.Ordinal) ? [expected.Length - 7] : [], Own(text));
    }

    [Theory]
    [InlineData("a<|en", "{{ c }}d|><|end|>")]
    [InlineData("d|>a", "<|en{{ c }}<|end|>")]
    [InlineData("<", "{{ c }}|end|><|end|>")]
    [InlineData(">", "<|end|{{ c }}<|end|>")]
    public void Halves_of_two_sources_do_not_join(string content, string template)
    {
        PromptText text = Render(template, ("c", content));
        Assert.Contains("<|end|>", text.Value[..^7], StringComparison.Ordinal);
        Assert.Equal([text.Value.Length - 7], Own(text));
    }

    [Fact]
    public void A_special_token_around_a_role_is_the_templates_own() => Assert.Equal([0], Own(Render("<|{{ role }}|>", ("role", "end"))));

    [Theory]
    [InlineData("'</think>' in c")]
    [InlineData("c.startswith('<t>')")]
    [InlineData("c.endswith('[x]')")]
    [InlineData("c.find('</think>') == 4")]
    [InlineData("c.count('<') == 3")]
    [InlineData("c == '<t>a</think>b<|end|>[x]'")]
    [InlineData("c in ['<t>a</think>b<|end|>[x]']")]
    [InlineData("{'<t>a</think>b<|end|>[x]': 1}[c] == 1")]
    [InlineData("c.split('</think>')[0].split('<t>')[-1] == 'a'")]
    [InlineData("c.rsplit('>', 1)[1] == '[x]'")]
    [InlineData("c.partition('</think>')[0] == '<t>a'")]
    [InlineData("c[0] == '<' and c[-1] == ']' and c | first == '<'")]
    [InlineData("c < '=' and c > ';'")]
    [InlineData("c | length == 23")]
    [InlineData("c.isascii() and c.isprintable()")]
    public void Comparisons_use_the_original_characters(string condition) =>
        Assert.Equal("yes", Render("{{ 'yes' if " + condition + " else 'no' }}", ("c", "<t>a</think>b<|end|>[x]")).Value);

    [Fact]
    public void Special_tokens_without_brackets_are_found()
    {
        PromptText text = Render("{{ c }}sop", ("c", "a sop, soap"));
        Assert.Equal("a sop, soapsop", text.Value);
        Assert.Equal([11], Own(text, 3, "sop"));
    }

    [Fact]
    public void Noncharacters_in_a_text_are_restored()
    {
        string all = string.Concat(Enumerable.Range(0xfdd0, 26).Select(code => (char)code));
        PromptText text = Render("{{ c }}{{ c == d }}{{ c | tojson(ensure_ascii=true) }}", ("c", $"<{all}>"), ("d", $"<{all}>"));
        Assert.StartsWith($"<{all}>True\"<\\ufdd0\\ufdd1", text.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void Errors_quote_the_original_characters()
    {
        Assert.Equal("no <|end|>", Assert.Throws<TemplateException>(() => Render("{{ raise_exception('no ' ~ c) }}", ("c", "<|end|>"))).Message);
        Assert.Contains("'<|end|>'", Assert.Throws<TemplateException>(() => Render("{{ {c: 1} | xmlattr }}", ("c", "<|end|>"))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Variables_of_the_template_itself_are_its_own()
    {
        PromptText text = new JinjaTemplate("{{ eos_token }}{{ c }}").Render(
            [KeyValuePair.Create("eos_token", (object?)"<|end|>")], [KeyValuePair.Create("c", (object?)"<|end|>")], Marks, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal([0], Own(text));
    }
}
