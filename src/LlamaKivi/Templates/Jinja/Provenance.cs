using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Tells which characters of a rendered text come from outside of the template. Of one rendering.</summary>
/// <remarks>
/// Only characters that special tokens begin or end with matter. In outside text they are written as stand-ins while the template is rendered: noncharacters of Unicode,
/// one per character, so that texts keep their length. Comparisons, searches and escapes of the evaluator see the characters that are meant, and what they cut out of a text stays marked.
/// </remarks>
internal sealed class Provenance(SpecialMarks marks)
{
    private const char First = '\ufdd0';
    private const char Last = '\ufdef';

    // 32, more than vocabularies need. By stand-in, less First.
    private readonly List<char> _meant = [];

    /// <summary>A text from outside, with stand-ins.</summary>
    public string Mark(string text)
    {
        if (text.AsSpan().IndexOfAny(marks.Edges) < 0 && !HasStandIns(text) && !marks.Wholes.Any(name => text.Contains(name, StringComparison.Ordinal)))
        {
            return text;
        }

        char[] marked = text.ToCharArray();
        for (int i = 0; i < marked.Length; i++)
        {
            // A noncharacter of the text itself is one to stand in for, too.
            if (marks.Edges.Contains(marked[i]) || IsStandIn(marked[i]))
            {
                marked[i] = StandIn(marked[i]);
            }
        }

        foreach (string name in marks.Wholes)
        {
            foreach (int place in TextSearch.Places(text, name))
            {
                marked[place] = StandIn(text[place]);
                marked[place + name.Length - 1] = StandIn(text[place + name.Length - 1]);
            }
        }

        return new string(marked);
    }

    /// <summary>The character that is meant.</summary>
    public char Meant(char c) => IsStandIn(c) && c - First < _meant.Count ? _meant[c - First] : c;

    /// <summary>A text as it is meant, of the same length.</summary>
    public string Meant(string text)
    {
        if (!HasStandIns(text))
        {
            return text;
        }

        return string.Create(text.Length, (this, text), static (to, from) =>
        {
            for (int i = 0; i < to.Length; i++)
            {
                to[i] = from.Item1.Meant(from.text[i]);
            }
        });
    }

    /// <summary>A set of characters, each both as itself and as its stand-in.</summary>
    public string WithStandIns(string characters)
    {
        string meant = Meant(characters);
        return string.Concat(meant, string.Concat(meant.Select(c => _meant.IndexOf(c)).Where(at => at >= 0).Select(at => (char)(First + at))));
    }

    /// <summary>What was rendered.</summary>
    public PromptText Read(string rendered) => HasStandIns(rendered)
        ? new PromptText(Meant(rendered), [.. Enumerable.Range(0, rendered.Length).Where(i => IsStandIn(rendered[i]))], marks)
        : new PromptText(rendered);

    private static bool IsStandIn(char c) => c is >= First and <= Last;

    private static bool HasStandIns(string text) => text.AsSpan().ContainsAnyInRange(First, Last);

    private char StandIn(char meant)
    {
        int at = _meant.IndexOf(meant);
        if (at < 0 && First + _meant.Count <= Last)
        {
            at = _meant.Count;
            _meant.Add(meant);
        }

        return at >= 0 ? (char)(First + at) : IsStandIn(meant) ? '\ufffd' : meant;
    }
}
