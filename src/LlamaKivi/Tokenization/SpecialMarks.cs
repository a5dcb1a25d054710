using System.Buffers;
using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

/// <summary>The special tokens that only a chat template may write: control tokens, and user-defined tokens in brackets that its source contains.</summary>
/// <remarks>Other user-defined tokens, such as runs of spaces, are ordinary vocabulary and are matched in any text.</remarks>
internal sealed class SpecialMarks
{
    private readonly HashSet<int> _ids = [];

    /// <summary>Selects the tokens of a vocabulary.</summary>
    /// <param name="tokenizer">The vocabulary.</param>
    /// <param name="template">The template's source; null: there is none.</param>
    public SpecialMarks(Tokenizer tokenizer, string? template)
        : this(tokenizer.Specials.Where(token => tokenizer.AttributesOf(token.Id) != LLamaTokenAttr.UserDefined
            || (IsMark(token.Name) && template?.Contains(token.Name, StringComparison.Ordinal) == true)))
    {
    }

    /// <summary>Takes the given tokens.</summary>
    public SpecialMarks(IEnumerable<(int Id, string Name)> tokens)
    {
        var edges = new HashSet<char>();
        var wholes = new List<string>();
        foreach ((int id, string name) in tokens)
        {
            _ids.Add(id);
            if (IsEdge(name[0]) && IsEdge(name[^1]))
            {
                edges.UnionWith([name[0], name[^1]]);
            }
            else
            {
                wholes.Add(name);
            }
        }

        Edges = SearchValues.Create([.. edges]);
        Wholes = [.. wholes];
    }

    /// <summary>First and last characters of the names that begin and end with neither a letter, a digit nor a space.</summary>
    public SearchValues<char> Edges { get; }

    /// <summary>The other names. They are tracked only where a text contains a whole name, because their first and last characters are common in texts.</summary>
    public IReadOnlyList<string> Wholes { get; }

    public bool Contains(int id) => _ids.Contains(id);

    private static bool IsEdge(char c) => !char.IsLetterOrDigit(c) && !char.IsWhiteSpace(c) && !char.IsSurrogate(c);

    private static bool IsMark(string name) => name.Length > 2 && IsEdge(name[0]) && IsEdge(name[^1]);
}
