using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>A vocabulary for grammars: some control tokens have their names as text, others have no text.</summary>
/// <param name="tokenizer">The vocabulary.</param>
/// <param name="shown">Control tokens that have their names as text.</param>
internal sealed class GrammarVocabulary(Tokenizer tokenizer, IReadOnlySet<int> shown)
{
    private readonly ConditionalWeakTable<CompiledGrammar, GrammarMasks> _masks = [];
    private readonly Lazy<TokenTrie> _trie = new(() => TokenTrie.Of(tokenizer, shown));

    public Tokenizer Tokenizer => tokenizer;

    /// <summary>Control tokens that have their names as text.</summary>
    public IReadOnlySet<int> Shown => shown;

    public bool IsShown(int token) => shown.Contains(token);

    public ReadOnlyMemory<byte> BytesOf(int token) => tokenizer.GetBytes(token, shown.Contains(token));

    public GrammarMasks MasksOf(CompiledGrammar grammar) =>
        shown.Count == 0 ? GrammarMasks.Of(grammar, tokenizer) : _masks.GetValue(grammar, g => new GrammarMasks(g, _trie.Value));
}
