using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Tracks which characters of a rendered text come from outside of the template. One instance per rendering.</summary>
/// <remarks>
/// Only the first and last characters of special tokens are tracked. During the rendering, each such character of outside text is replaced by a stand-in, a Unicode noncharacter.
/// The replacement keeps the length. The evaluator compares, searches and escapes the original characters; substrings and copies keep their stand-ins.
/// </remarks>
internal sealed class Provenance(SpecialMarks marks)
{
    private const char First = '\ufdd0';
    private const char Last = '\ufdef';

    // [stand-in - First]. There are 32 stand-ins; special tokens of published vocabularies begin and end with fewer than ten characters.
    private readonly List<char> _meant = [];

    /// <summary>Replaces the tracked characters of outside text by stand-ins.</summary>
    public string Mark(string text)
    {
        if (text.AsSpan().IndexOfAny(marks.Edges) < 0 && !HasStandIns(text) && !marks.Wholes.Any(name => text.Contains(name, StringComparison.Ordinal)))
        {
            return text;
        }

        char[] marked = text.ToCharArray();
        for (int i = 0; i < marked.Length; i++)
        {
            // A noncharacter in the text itself gets a stand-in too, so that it is restored.
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

    /// <summary>The character of a stand-in; other characters unchanged.</summary>
    public char Meant(char c) => IsStandIn(c) && c - First < _meant.Count ? _meant[c - First] : c;

    /// <summary>Replaces stand-ins by their characters; the length is unchanged.</summary>
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

    /// <summary>Adds the stand-ins of a set of characters.</summary>
    public string WithStandIns(string characters)
    {
        string meant = Meant(characters);
        return string.Concat(meant, string.Concat(meant.Select(c => _meant.IndexOf(c)).Where(at => at >= 0).Select(at => (char)(First + at))));
    }

    /// <summary>Replaces the stand-ins of a rendered text and records their positions.</summary>
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
