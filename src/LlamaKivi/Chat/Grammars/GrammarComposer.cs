using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using LlamaKivi.Sampling;

namespace LlamaKivi;

/// <summary>Composes a grammar of others.</summary>
internal sealed partial class GrammarComposer
{
    private readonly StringBuilder _rules = new();
    private readonly Dictionary<Grammar, string> _included = [];
    private int _count;

    /// <summary>White space that a model may put between parts.</summary>
    public string Space => field ??= Define("[ \\t\\r\\n]{0,20}");

    /// <summary>Adds a rule, and gives its name.</summary>
    public string Define(string body)
    {
        string name = $"c{_count++}";
        _rules.Append(CultureInfo.InvariantCulture, $"{name} ::= {body}\n");
        return name;
    }

    /// <summary>Adds the rules of a grammar, and gives the name of its root.</summary>
    public string Include(Grammar grammar)
    {
        if (!_included.TryGetValue(grammar, out string? root))
        {
            string prefix = $"g{_included.Count}-";
            _included.Add(grammar, root = prefix + grammar.Root);
            _rules.Append(Parts().Replace(grammar.Gbnf, part => part.Groups["name"].Success ? prefix + part.Value : part.Value)).Append('\n');
        }

        return root;
    }

    /// <summary>Adds a rule for any text up to a mark, and the mark, and gives its name.</summary>
    /// <param name="mark">Its first character does not occur in it again.</param>
    public string Until(string mark)
    {
        // The text is cut before each first character of the mark; no cut but the last goes on as the mark does.
        string first = Class(mark[0]);
        string rest = "";
        for (int i = mark.Length - 1; i > 0; i--)
        {
            string more = $"[^{Escape(mark[0])}{Escape(mark[i])}] [^{Escape(mark[0])}]*";
            rest = $"({more}{(rest.Length > 0 ? $" | {Class(mark[i])} {rest}" : "")})?";
        }

        return Define($"[^{Escape(mark[0])}]* ({first} {rest})* {Literal(mark)}");
    }

    /// <summary>The grammar of all rules.</summary>
    /// <param name="body">What the root is.</param>
    public Grammar ToGrammar(string body) => new($"root ::= {body}\n{_rules}", "root");

    /// <summary>A text as an expression.</summary>
    public static string Literal(string text)
    {
        var quoted = new StringBuilder("\"");
        foreach (char c in text)
        {
            quoted.Append(c switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                < ' ' => string.Create(CultureInfo.InvariantCulture, $"\\x{(int)c:X2}"),
                _ => c.ToString(),
            });
        }

        return quoted.Append('"').ToString();
    }

    private static string Class(char c) => $"[{Escape(c)}]";

    // In a class of characters.
    private static string Escape(char c) => c switch
    {
        '\n' => "\\n",
        ']' or '[' or '\\' or '^' or '-' => $"\\{c}",
        _ => c.ToString(),
    };

    // Names, and what may look like one: texts, classes, repetitions, comments.
    [GeneratedRegex("""
        "(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|\#[^\n]*|(?<name>[A-Za-z0-9_-]+)
        """, RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex Parts();
}
