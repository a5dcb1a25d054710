using System.Text.RegularExpressions;
using LlamaKivi.Templates;

namespace LlamaKivi;

/// <summary>What a chat template in the Jinja language reads, found in its text.</summary>
internal sealed partial class TemplateText
{
    // A file's template may open many tags and close none; each search then runs to the end of the text.
    private const int TimeoutMilliseconds = 1000;

    private readonly HashSet<string> _names;

    public TemplateText(string source)
    {
        Source = source;
        try
        {
            _names = [.. from Match tag in Tags().Matches(Comments().Replace(source, ""))
                         from Match name in Names().Matches(Strings().Replace(tag.Value, "''"))
                         select name.Value];
        }
        catch (RegexMatchTimeoutException e)
        {
            throw new TemplateException($"The template takes more than {TimeoutMilliseconds / 1000} s to look through: it opens tags or comments and does not close them.", e);
        }
    }

    public string Source { get; }

    /// <summary>Whether the template reads a variable.</summary>
    public bool Reads(string name) => _names.Contains(name);

    [GeneratedRegex(@"\{#.*?#\}", RegexOptions.Singleline, TimeoutMilliseconds)]
    private static partial Regex Comments();

    [GeneratedRegex(@"\{\{.*?\}\}|\{%.*?%\}", RegexOptions.Singleline, TimeoutMilliseconds)]
    private static partial Regex Tags();

    [GeneratedRegex("""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*["]""", RegexOptions.Singleline, TimeoutMilliseconds)]
    private static partial Regex Strings();

    // Not a member: what stands behind a dot.
    [GeneratedRegex(@"(?<![\w.])[A-Za-z_]\w*", RegexOptions.None, TimeoutMilliseconds)]
    private static partial Regex Names();
}
