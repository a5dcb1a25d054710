using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Tracks which characters of a rendered text come from outside of the template. One instance per rendering.</summary>
/// <remarks>
/// Tracked are the characters that special tokens begin and end with. During the rendering, a stand-in takes the place of each of them in outside text: a Unicode noncharacter.
/// One stand-in per character keeps the length of texts. The evaluator compares, searches and escapes the characters meant; texts cut or copied from others keep their stand-ins.
/// </remarks>
internal sealed class Provenance(SpecialMarks marks)
{
    private const char First = '\ufdd0';
    private const char Last = '\ufdef';

    // [stand-in - First]. There are 32 stand-ins; special tokens of published vocabularies begin and end with fewer than ten characters.
    private readonly List<char> _meant = [];

    /// <summary>Puts stand-ins into a text from outside.</summary>
    public string Mark(string text)
    {
        if (text.AsSpan().IndexOfAny(marks.Edges) < 0 && !HasStandIns(text) && !marks.Wholes.Any(name => text.Contains(name, StringComparison.Ordinal)))
        {
            return text;
        }

        char[] marked = text.ToCharArray();
        for (int i = 0; i < marked.Length; i++)
        {
            // A noncharacter in the text itself gets a stand-in too, so that it comes back.
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

    /// <summary>The character that a stand-in stands for; other characters as they are.</summary>
    public char Meant(char c) => IsStandIn(c) && c - First < _meant.Count ? _meant[c - First] : c;

    /// <summary>A text without stand-ins, of the same length.</summary>
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

    /// <summary>A set of characters together with their stand-ins.</summary>
    public string WithStandIns(string characters)
    {
        string meant = Meant(characters);
        return string.Concat(meant, string.Concat(meant.Select(c => _meant.IndexOf(c)).Where(at => at >= 0).Select(at => (char)(First + at))));
    }

    /// <summary>Removes the stand-ins of a rendered text and notes where they were.</summary>
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
