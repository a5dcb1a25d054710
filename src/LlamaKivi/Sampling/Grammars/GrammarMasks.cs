using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>A grammar's states and the masks of their tokens for one vocabulary. Shared by all texts under the grammar; any thread may use it.</summary>
internal sealed class GrammarMasks
{
    // A mask or a token of an accepted grammar takes some thousands; this much takes about 0.1 s, and is an error rather than a wait.
    private const long MaxWork = 4_000_000;

    private static readonly ConditionalWeakTable<CompiledGrammar, ConditionalWeakTable<Tokenizer, GrammarMasks>> Known = [];

    private readonly Lock _lock = new();
    private readonly CompiledGrammar _grammar;
    private readonly TokenTrie _trie;
    private readonly GrammarStates _states;
    private readonly long _maxWork;

    public GrammarMasks(CompiledGrammar grammar, TokenTrie trie, long maxWork = MaxWork)
    {
        (_grammar, _trie, _maxWork) = (grammar, trie, maxWork);
        _states = new GrammarStates(grammar, trie.Longest);
    }

    /// <summary>Work of the last call.</summary>
    public long Work => _states.Work.Done;

    public static GrammarMasks Of(CompiledGrammar grammar, Tokenizer tokenizer) =>
        Known.GetOrCreateValue(grammar).GetValue(tokenizer, t => new GrammarMasks(grammar, TokenTrie.Of(t)));

    /// <summary>The state before the text.</summary>
    public GrammarState Start() => Bounded(static (masks, _) => masks._states.Start, GrammarState.Dead);

    /// <summary>A bit for each token that is allowed in a state. The state is changed to one that means the same.</summary>
    /// <exception cref="GrammarException">The text is at too many places of the grammar.</exception>
    /// <exception cref="OperationCanceledException">The generation was cancelled.</exception>
    public ulong[] Allowed(ref GrammarState state)
    {
        (state, ulong[] allowed) = Bounded(
            static (masks, state) =>
            {
                state = masks._states.Refresh(state);
                GrammarState canonical = masks._states.Canonical(state);
                if (canonical.Allowed is null)
                {
                    canonical.Allowed = masks._trie.Allowed(masks._states, canonical);
                    masks._states.AddSize(canonical.Allowed.Length / 2);
                }

                return (state, canonical.Allowed);
            },
            state);
        return allowed;
    }

    /// <summary>The state after some bytes; null if the grammar does not allow them.</summary>
    /// <exception cref="GrammarException">The text is at too many places of the grammar.</exception>
    /// <exception cref="OperationCanceledException">The generation was cancelled.</exception>
    public GrammarState? After(GrammarState state, ReadOnlyMemory<byte> text) => Bounded(
        static (masks, at) =>
        {
            GrammarState? state = masks._states.Refresh(at.state);
            foreach (byte value in at.text.Span)
            {
                state = state is null ? null : masks._states.Next(state, value);
            }

            return state;
        },
        (state, text));

    private TResult Bounded<TState, TResult>(Func<GrammarMasks, TState, TResult> call, TState state)
    {
        lock (_lock)
        {
            _states.Work.Begin(_maxWork, StepCancellation.Token);
            try
            {
                return call(this, state);
            }
            catch (WorkExceededException)
            {
                throw TooAmbiguous(_grammar, _states.Last, "here");
            }
        }
    }

    /// <summary>The error for a text that is at too many places.</summary>
    public static GrammarException TooAmbiguous(CompiledGrammar grammar, GrammarState? state, string where)
    {
        string rule = state is not { Places.Length: > 0 } ? grammar.Describe(CompiledGrammar.EndNode)
            : grammar.Describe(state.Places.CountBy(place => grammar.Owners[place.Node]).MaxBy(count => count.Value) is var most
                ? state.Places.First(place => grammar.Owners[place.Node] == most.Key).Node : 0);
        return new GrammarException(
            $"The grammar is too ambiguous {where}: the tokens that may come next take too long to find, most of it in the rule {rule}, " +
            $"where a text can be at {state?.Places.Length ?? 0} places at once. Let optional and repeated parts and alternatives begin with different characters, or have fewer of them.");
    }
}
