using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>A vocabulary as grammars see it: some control tokens stand for their names, others have no text.</summary>
/// <param name="tokenizer">The vocabulary.</param>
/// <param name="shown">Control tokens that stand for their names.</param>
internal sealed class GrammarVocabulary(Tokenizer tokenizer, IReadOnlySet<int> shown)
{
    private readonly ConditionalWeakTable<CompiledGrammar, GrammarMasks> _masks = [];
    private readonly Lazy<TokenTrie> _trie = new(() => shown.Count == 0 ? TokenTrie.Of(tokenizer) : new TokenTrie(
        tokenizer.VocabularySize,
        Enumerable.Range(0, tokenizer.VocabularySize).Where(id => !tokenizer.IsEndOfGeneration(id)).Select(id => (id, tokenizer.GetBytes(id, shown.Contains(id)).ToArray())),
        tokenizer.EndTokens));

    public Tokenizer Tokenizer => tokenizer;

    /// <summary>Control tokens that stand for their names.</summary>
    public IReadOnlySet<int> Shown => shown;

    public bool IsShown(int token) => shown.Contains(token);

    public ReadOnlyMemory<byte> BytesOf(int token) => tokenizer.GetBytes(token, shown.Contains(token));

    public GrammarMasks MasksOf(CompiledGrammar grammar) =>
        shown.Count == 0 ? GrammarMasks.Of(grammar, tokenizer) : _masks.GetValue(grammar, g => new GrammarMasks(g, _trie.Value));
}
