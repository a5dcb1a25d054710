using System.Text.RegularExpressions;

namespace LlamaKivi;

/// <summary>What a chat template in the Jinja language reads, found in its text.</summary>
internal sealed partial class TemplateText
{
    private readonly HashSet<string> _names;

    public TemplateText(string source)
    {
        Source = source;
        _names = [.. from Match tag in Tags().Matches(Comments().Replace(source, ""))
                     from Match name in Names().Matches(Strings().Replace(tag.Value, "''"))
                     select name.Value];
    }

    public string Source { get; }

    /// <summary>Whether the template reads a variable.</summary>
    public bool Reads(string name) => _names.Contains(name);

    [GeneratedRegex(@"\{#.*?#\}", RegexOptions.Singleline)]
    private static partial Regex Comments();

    [GeneratedRegex(@"\{\{.*?\}\}|\{%.*?%\}", RegexOptions.Singleline)]
    private static partial Regex Tags();

    [GeneratedRegex("""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*["]""", RegexOptions.Singleline)]
    private static partial Regex Strings();

    // Not a member: what stands behind a dot.
    [GeneratedRegex(@"(?<![\w.])[A-Za-z_]\w*")]
    private static partial Regex Names();
}
