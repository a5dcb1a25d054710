using System.Text.Json;

namespace LlamaKivi.Templates.Tests;

/// <summary>
/// Output equals jinja2's byte for byte. bench/templates generates the cases; bench/templates/compare.py runs the last test over a folder of templates.
/// </summary>
public class DifferentialTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("expressions.jsonl", 210)]
    [InlineData("generated.jsonl", 10_000)]
    public void Cases_render_as_in_jinja2(string file, int atLeast)
    {
        using StreamReader variables = Cases.Open("variables.json");
        Dictionary<string, object?> shared = Cases.Variables(JsonDocument.Parse(variables.ReadToEnd()).RootElement);
        using StreamReader cases = Cases.Open(file);
        Assert.True(Compare(Cases.Read(cases), _ => shared) >= atLeast);
    }

    [Fact]
    public void Templates_of_a_folder_render_as_in_jinja2()
    {
        string? path = Environment.GetEnvironmentVariable("LLAMA_KIVI_TEMPLATE_RENDERS");
        Assert.SkipUnless(File.Exists(path), "LLAMA_KIVI_TEMPLATE_RENDERS does not name a file that bench/templates/compare.py wrote");
        using var cases = new StreamReader(path!);
        Compare(Cases.Read(cases), item => Cases.Variables(item.GetProperty("variables")));
    }

    private int Compare(IEnumerable<JsonElement> cases, Func<JsonElement, Dictionary<string, object?>> variables)
    {
        int count = 0;
        var differences = new List<string>();
        foreach (JsonElement item in cases)
        {
            count++;
            string? difference = Cases.Difference(item.GetProperty("template").GetString()!, item.GetProperty("expected").GetString()!, variables(item));
            if (difference is not null)
            {
                differences.Add(item.TryGetProperty("name", out JsonElement name) ? $"{name}: ...{difference[difference.IndexOf("\n  ", StringComparison.Ordinal)..]}" : difference);
            }
        }

        output.WriteLine($"{count - differences.Count} of {count} as jinja2");
        Assert.True(differences.Count == 0, $"{count - differences.Count} of {count} as jinja2; {differences.Count} differ:\n{string.Join('\n', differences.Take(100))}");
        return count;
    }
}
