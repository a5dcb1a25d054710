using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Templates;

namespace LlamaKivi.Tests.Templates;

/// <summary>Common formats by name. CommonTemplates.txt has stock llama.cpp's output for conversations.</summary>
public class CommonTemplatesTests
{
    // "SUAU+": system, user, assistant and user messages and the header of an answer; T is a tool. The third message is " u3 ".
    private static string Render(string name, string conversation)
    {
        var template = new LLamaTemplate(name) { AddAssistant = conversation.EndsWith('+') };
        foreach (char role in conversation.TrimEnd('+'))
        {
            template.Add(role switch { 'S' => "system", 'U' => "user", 'A' => "assistant", _ => "tool" }, $" {char.ToLowerInvariant(role)}{template.Count + 1} ");
        }

        return Encoding.UTF8.GetString(template.Apply());
    }

    private static string[] Lines()
    {
        using var reader = new StreamReader(typeof(CommonTemplatesTests).Assembly.GetManifestResourceStream("CommonTemplates.txt")!);
        return reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    public static TheoryData<string> Names() => [.. Lines().Where(line => line.StartsWith("## ", StringComparison.Ordinal)).Select(line => line[3..])];

    [Theory]
    [MemberData(nameof(Names))]
    public void Output_equals_llama_cpps_to_the_last_space(string name)
    {
        var expected = Lines().SkipWhile(line => line != "## " + name).Skip(1).TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal)).ToList();
        Assert.NotEmpty(expected);
        Assert.All(expected, line =>
        {
            string conversation = line[..line.IndexOf('|', StringComparison.Ordinal)];
            Assert.Equal(line, $"{conversation}|{Render(name, conversation).Replace("\n", "\\n", StringComparison.Ordinal)}|");
        });
    }

    [Fact]
    public void Every_name_has_expected_outputs() => Assert.Equal(["mistral"], CommonTemplates.Names.Except(Lines().Select(line => line[Math.Min(3, line.Length)..])));

    [Theory]
    [InlineData("[INST]  s1 \n\n u2  [/INST]  a3 </s>[INST]  u4  [/INST]", "SUAU+")]
    public void Mistral_is_the_first_of_its_formats(string expected, string conversation) => Assert.Equal(expected, Render("mistral", conversation));

    [Theory]
    [InlineData("nonsense")]
    [InlineData("")]
    [InlineData("ChatML")]
    [InlineData("no {braces} of the language")]
    public void A_text_that_is_no_template_is_an_error_when_applied(string given)
    {
        var template = new LLamaTemplate(given);
        var error = Assert.Throws<MissingTemplateException>(() => template.Add("user", "hi").Apply().Length);
        Assert.Contains($"'{given}'", error.Message, StringComparison.Ordinal);
        Assert.Contains("chatml, command-r", error.Message, StringComparison.Ordinal);
    }
}
