using System.Text.Json;
using System.Text.RegularExpressions;

namespace LlamaKivi.Templates.Tests;

/// <summary>Templates with jinja2's output, or "raises" and the error.</summary>
internal static partial class Cases
{
    private const string Raises = "raises ";

    /// <summary>The lines of an embedded file or a file on disk.</summary>
    public static IEnumerable<JsonElement> Read(TextReader reader)
    {
        for (string? line = reader.ReadLine(); line is not null; line = reader.ReadLine())
        {
            if (line.Length > 0)
            {
                yield return JsonDocument.Parse(line, new JsonDocumentOptions { MaxDepth = 500 }).RootElement;
            }
        }
    }

    public static StreamReader Open(string name) => new(typeof(Cases).Assembly.GetManifestResourceStream(name)!);

    public static Dictionary<string, object?> Variables(JsonElement variables) => variables.EnumerateObject().ToDictionary(item => item.Name, item => (object?)item.Value);

    /// <summary>Describes the difference between actual and expected output; null: none.</summary>
    public static string? Difference(string template, string expected, Dictionary<string, object?> variables)
    {
        string actual;
        try
        {
            actual = new JinjaTemplate(template).Render(variables, new FixedTime());
        }
        catch (TemplateException e) when (e.InnerException is null or TemplateException)
        {
            actual = Raises + e.Message;
        }
        catch (Exception e)
        {
            return $"{template}\n  {e}";
        }

        bool raises = expected.StartsWith(Raises, StringComparison.Ordinal);
        bool same = raises ? actual.StartsWith(Raises, StringComparison.Ordinal) : Address().Replace(actual, "0x") == Address().Replace(expected, "0x");
        return same ? null : $"{template}\n  expected: {JsonSerializer.Serialize(Around(expected, actual))}\n  actual:   {JsonSerializer.Serialize(Around(actual, expected))}";
    }

    // The text around the first difference.
    private static string Around(string text, string other)
    {
        int at = text.AsSpan().CommonPrefixLength(other);
        int start = Math.Max(0, at - 100);
        return text.Substring(start, Math.Min(text.Length - start, 300));
    }

    [GeneratedRegex("0x[0-9a-f]{6,}")]
    public static partial Regex Address();

    internal sealed class FixedTime : TimeProvider
    {
        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

        public override DateTimeOffset GetUtcNow() => new(2026, 3, 5, 14, 7, 9, TimeSpan.Zero);
    }
}
