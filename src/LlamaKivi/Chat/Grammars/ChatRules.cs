using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi;

/// <summary>The rules of one answer: those of its schemas, and of the marks and free text around them.</summary>
internal sealed class ChatRules
{
    private const int MaxSpace = 20;

    private readonly Dictionary<string, Gbnf> _texts = new(StringComparer.Ordinal);  // [mark]: text up to it

    public ChatRules() => Json = new JsonRules(All);

    public GbnfRules All { get; } = new();

    /// <summary>The rules of JSON, shared by all schemas.</summary>
    public JsonRules Json { get; }

    /// <summary>White space that a model may write between parts.</summary>
    public Gbnf Space => All.Common("space", static () => Gbnf.Repeat(Gbnf.Class(CharacterSet.OfText(" \t\r\n")), 0, MaxSpace));

    /// <summary>Any text up to a mark, and the mark.</summary>
    /// <param name="mark">Its first character occurs in it once.</param>
    public Gbnf Until(string mark)
    {
        if (_texts.TryGetValue(mark, out Gbnf? known))
        {
            return known;
        }

        // The text is cut before each occurrence of the mark's first character. No piece but the last continues as the mark does.
        Gbnf none = Gbnf.Repeat(Except(mark[0]), 0, null);
        Gbnf rest = Gbnf.Empty;
        for (int i = mark.Length - 1; i > 0; i--)
        {
            Gbnf other = Gbnf.Sequence(Except(mark[0], mark[i]), none);
            rest = Gbnf.Optional(rest == Gbnf.Empty ? other : Gbnf.Choice(other, Gbnf.Sequence(mark[i..(i + 1)], rest)));
        }

        return _texts[mark] = All.Add(Gbnf.Sequence(none, Gbnf.Repeat(Gbnf.Sequence(mark[..1], rest), 0, null), mark), "");
    }

    private static Gbnf Except(params ReadOnlySpan<char> characters) => Gbnf.Class(CharacterSet.OfText(characters.ToString()).Complement());
}
