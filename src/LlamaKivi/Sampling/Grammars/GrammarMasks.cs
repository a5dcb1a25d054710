using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>The states of a grammar and their token masks for one vocabulary. Shared by all texts under the grammar. Thread-safe.</summary>
internal sealed class GrammarMasks
{
    // A mask or a token of an accepted grammar takes some thousands. This limit takes about 0.1 s and is an error instead of a delay.
    private const long MaxWork = 4_000_000;

    private static readonly ConditionalWeakTable<CompiledGrammar, ConditionalWeakTable<Tokenizer, GrammarMasks>> Known = [];

    private readonly Lock _lock = new();
    private readonly CompiledGrammar _grammar;
    private readonly TokenTrie _trie;
    private readonly GrammarStates _states;
    private readonly long _maxWork;

    public GrammarMasks(CompiledGrammar grammar, TokenTrie trie, long maxWork = MaxWork, long maxSize = GrammarStates.DefaultMaxSize)
    {
        (_grammar, _trie, _maxWork) = (grammar, trie, maxWork);
        _states = new GrammarStates(grammar, trie.Longest) { MaxSize = maxSize };
    }

    /// <summary>Work of the last call.</summary>
    public long Work => _states.Work.Done;

    public static GrammarMasks Of(CompiledGrammar grammar, Tokenizer tokenizer) =>
        Known.GetOrCreateValue(grammar).GetValue(tokenizer, t => new GrammarMasks(grammar, TokenTrie.Of(t)));

    /// <summary>The state before the text.</summary>
    public GrammarState Start() => Bounded(static (masks, _) => masks._states.Start, GrammarState.Dead);

    /// <summary>
    /// A bit for each token that is allowed in a state, in two sets: one of short and end tokens, and one of long tokens, which is empty if there
    /// are none. The state is replaced by an equivalent one.
    /// </summary>
    /// <exception cref="GrammarException">The grammar is too ambiguous for this text.</exception>
    /// <exception cref="OperationCanceledException">The generation was cancelled.</exception>
    public (ulong[] Short, ulong[] Long) Allowed(ref GrammarState state)
    {
        (state, ulong[] shorts, ulong[] longs) = Bounded(
            static (masks, state) =>
            {
                state = masks._states.Refresh(state);
                return (state, masks.Allowed(state, 0), masks.Allowed(state, 1));
            },
            state);
        return (shorts, longs);
    }

    private ulong[] Allowed(GrammarState state, int part)
    {
        GrammarState canonical = _states.Canonical(state, part);
        if (canonical.Allowed?[part] is not { } allowed)
        {
            allowed = _trie.Allowed(part, _states, canonical);
            (canonical.Allowed ??= new ulong[]?[TokenTrie.Parts])[part] = allowed;
            _states.AddSize(allowed.Length / 2);
        }

        return allowed;
    }

    /// <summary>The state after some bytes; null if the grammar does not allow them.</summary>
    /// <exception cref="GrammarException">The grammar is too ambiguous for this text.</exception>
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
                throw TooAmbiguous(_grammar, _states, "here");
            }
        }
    }

    /// <summary>Creates the error for a grammar that takes too much work.</summary>
    public static GrammarException TooAmbiguous(CompiledGrammar grammar, GrammarStates states, string where)
    {
        IReadOnlyList<GrammarPlace> places = states.Last is { } last && last.Places.Length >= states.Pending.Count ? last.Places : states.Pending;
        GrammarBuilder.Rule? most = places.Count == 0 ? null : places.Select(place => OriginOf(grammar, place)).GroupBy(rule => rule.Origin ?? rule.Name, StringComparer.Ordinal).MaxBy(group => group.Count())!.First();
        return most?.Origin is { } origin
            ? new GrammarException(
                $"The schema is too ambiguous {where}: finding the tokens that may come next takes too long; most of it for {(origin.Length > 0 ? origin : "#")}, where a text can be at {places.Count} places at once. " +
                "Let the options of anyOf, the alternatives of a pattern and its repetitions begin with different characters, or have fewer of them.")
            : new GrammarException(
                $"The grammar is too ambiguous {where}: finding the tokens that may come next takes too long; " +
                (most is null ? "it can begin in too many ways. " : $"most of it in the rule '{most.Name}' (line {most.Line}), where a text can be at {places.Count} places at once. ") +
                "Let alternatives, optional parts and repetitions begin with different characters, or have fewer of them.");
    }

    // The rule of a place. Rules of JSON itself have no origin in the schema, so their callers are named.
    private static GrammarBuilder.Rule OriginOf(CompiledGrammar grammar, GrammarPlace place)
    {
        GrammarBuilder.Rule rule = grammar.RuleOf(place.Node);
        for (GrammarFrame frame = place.Frame; rule.Origin == "" && frame.Entries[0] is { Parent: { } parent } entry; frame = parent)
        {
            rule = grammar.RuleOf(entry.Node);
        }

        return rule;
    }
}
