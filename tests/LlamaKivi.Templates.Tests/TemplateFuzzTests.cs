using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Templates.Tests;

/// <summary>
/// Random templates over the whole language with odd values, and damaged templates. Each gives a text or a TemplateException.
/// With LLAMA_KIVI_FUZZ_SECONDS they run longer, with other seeds.
/// </summary>
public class TemplateFuzzTests(ITestOutputHelper output)
{
    private const string Marks = "{}%#'\"()[]|.~-+*/<>=!,: \n\\0\ud83d\u00e9";

    private static readonly string? Seconds = Environment.GetEnvironmentVariable("LLAMA_KIVI_FUZZ_SECONDS");

    private static readonly Dictionary<string, object?> Variables = new()
    {
        ["messages"] = JsonDocument.Parse("""[{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi\n😀"}, {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5]}}}]}]""").RootElement,
        ["tools"] = JsonDocument.Parse("""[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": ["array", "null"]}}}}}]""").RootElement,
        ["add_generation_prompt"] = true,
        ["bos_token"] = "<s>",
        ["eos_token"] = "</s>",
    };

    [Fact]
    public void Random_templates_give_a_text_or_a_TemplateException() => Fuzz(3000, random => new TemplateGrammar(random).Template());

    [Fact]
    public void Damaged_templates_give_a_text_or_a_TemplateException()
    {
        using var reader = new StreamReader(typeof(TemplateFuzzTests).Assembly.GetManifestResourceStream("CommonTemplates.txt")!);
        string[] sources =
        [
            .. CommonTemplates.Names.Select(name => CommonTemplates.Find(name)!),
            .. reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries),
            "{%- macro show(x) -%}{{ x | tojson(indent=2) if x is mapping else x | string }}{%- endmacro -%}{%- for t in tools -%}{{ show(t.function) }}{%- endfor -%}",
        ];
        Fuzz(3000, random => Damaged(sources[random.Next(sources.Length)], sources, random));
    }

    private static string Damaged(string source, string[] others, Random random)
    {
        var text = new StringBuilder(source);
        for (int changes = random.Next(1, 6); changes > 0 && text.Length > 0; changes--)
        {
            int at = random.Next(text.Length);
            int length = Math.Min(random.Next(1, 12), text.Length - at);
            switch (random.Next(6))
            {
                case 0:
                    text.Remove(at, length);
                    break;
                case 1:
                    text.Insert(at, text.ToString(at, length));
                    break;
                case 2:
                    text[at] = Marks[random.Next(Marks.Length)];
                    break;
                case 3:
                    string other = others[random.Next(others.Length)];
                    int from = random.Next(other.Length);
                    text.Insert(at, other.AsSpan(from, Math.Min(random.Next(1, 60), other.Length - from)));
                    break;
                case 4:
                    text.Insert(at, new TemplateGrammar(random).Expression(2));
                    break;
                default:
                    text.Insert(at, new TemplateGrammar(random).Statement(1));
                    break;
            }
        }

        return text.ToString();
    }

    private void Fuzz(int count, Func<Random, string> make)
    {
        double seconds = double.TryParse(Seconds, CultureInfo.InvariantCulture, out double given) ? given : 0;
        long start = Stopwatch.GetTimestamp();
        (int texts, int refused, long characters) = (0, 0, 0L);
        (TimeSpan longest, string slowest) = (TimeSpan.Zero, "");
        var reasons = new Dictionary<string, int>();
        for (int seed = 0; seed < count || Stopwatch.GetElapsedTime(start).TotalSeconds < seconds; seed++)
        {
            string template = make(new Random(seed));
            long begin = Stopwatch.GetTimestamp();
            try
            {
                characters += new JinjaTemplate(template).Render(Variables).Length;
                texts++;
            }
            catch (TemplateException e)
            {
                // JinjaTemplate wraps unexpected exceptions; here they are failures.
                Assert.True(e.InnerException is null or TemplateException, $"seed {seed}: {e.InnerException}\n{template}");
                refused++;
                string reason = new([.. e.Message.TakeWhile(c => c is not ('(' or '\'' or '%')).Where(c => !char.IsDigit(c))]);
                reasons[reason] = reasons.GetValueOrDefault(reason) + 1;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}: {e}\n{template}");
            }

            if (Stopwatch.GetElapsedTime(begin) is var took && took > longest)
            {
                (longest, slowest) = (took, template);
            }
        }

        output.WriteLine($"{texts} texts of {characters} characters, {refused} refused for {reasons.Count} reasons; the slowest took {longest.TotalSeconds:F2} s: {slowest}");
        output.WriteLine(string.Join('\n', reasons.OrderByDescending(reason => reason.Value).Take(60).Select(reason => $"{reason.Value,8} {reason.Key}")));
        Assert.True(texts > count / 20 && reasons.Count > 20, "too few of the templates get anywhere");
    }
}
