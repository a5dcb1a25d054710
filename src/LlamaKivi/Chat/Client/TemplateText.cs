using System.Text.RegularExpressions;
using LlamaKivi.Templates;

namespace LlamaKivi;

/// <summary>Finds the variables that a Jinja chat template reads, from its source.</summary>
internal sealed partial class TemplateText
{
    // An untrusted template may open many tags and close none; each search then runs to the end of the text.
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
            throw new TemplateException($"Scanning the template takes more than {TimeoutMilliseconds / 1000} s: it opens tags or comments and does not close them.", e);
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

    // A name after a dot is a member, not a variable.
    [GeneratedRegex(@"(?<![\w.])[A-Za-z_]\w*", RegexOptions.None, TimeoutMilliseconds)]
    private static partial Regex Names();
}
