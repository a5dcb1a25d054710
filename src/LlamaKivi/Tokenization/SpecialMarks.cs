using System.Buffers;
using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

/// <summary>The special tokens that only a chat template may write: control tokens, and user-defined ones that the template has in it as marks.</summary>
/// <remarks>User-defined tokens that the template does not write, such as runs of spaces, are ordinary vocabulary and are found in any text.</remarks>
internal sealed class SpecialMarks
{
    private readonly HashSet<int> _ids = [];

    /// <summary>The tokens of a vocabulary that are marks.</summary>
    /// <param name="tokenizer">The vocabulary.</param>
    /// <param name="template">The template's source; null: there is none.</param>
    public SpecialMarks(Tokenizer tokenizer, string? template)
        : this(tokenizer.Specials.Where(token => tokenizer.AttributesOf(token.Id) != LLamaTokenAttr.UserDefined
            || (IsMark(token.Name) && template?.Contains(token.Name, StringComparison.Ordinal) == true)))
    {
    }

    /// <summary>Takes the marks.</summary>
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

    /// <summary>Characters other than letters, digits and spaces that such tokens begin and end with.</summary>
    public SearchValues<char> Edges { get; }

    /// <summary>Names of such tokens that begin or end otherwise.</summary>
    public IReadOnlyList<string> Wholes { get; }

    public bool Contains(int id) => _ids.Contains(id);

    private static bool IsEdge(char c) => !char.IsLetterOrDigit(c) && !char.IsWhiteSpace(c) && !char.IsSurrogate(c);

    private static bool IsMark(string name) => name.Length > 2 && IsEdge(name[0]) && IsEdge(name[^1]);
}
