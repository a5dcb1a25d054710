using System.Runtime.InteropServices;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>
/// The states of texts under a grammar, computed on demand. A rule that is called from several places at one byte of the text is followed
/// once, with all its callers in one frame (generalized LR parsing with a graph-structured stack, Tomita 1986), so ambiguity adds callers instead of copies.
/// Not thread-safe.
/// </summary>
internal sealed partial class GrammarStates
{
    /// <summary>Maximum number of places, callers and byte classes in the tables before they are emptied: about 50 MB.</summary>
    public const long DefaultMaxSize = 2_000_000;

    // A state used more often than this gets a table of its next states; most are used once or twice.
    private const int StepsBeforeTable = 12;

    // Work of a new state or frame, in visited places.
    private const int CreationWork = 4;

    private readonly CompiledGrammar _grammar;
    private readonly int[] _reach;
    private readonly GrammarClosures _closures;
    private readonly HashSet<GrammarFrame> _frames = new(new FrameComparer());
    private readonly HashSet<GrammarState> _states = new(new StateComparer());
    private readonly Dictionary<GrammarPlace, GrammarState> _reached = [];  // [any node and its callers]: the state before the next byte
    private readonly GrammarFrame _root;
    private long _frameIds;
    private long _size;
    private int _generation;

    // Data of the current step.
    private readonly List<GrammarPlace> _places = [];
    private readonly Stack<GrammarPlace> _open = [];  // any node, not only those that consume a byte
    private readonly List<GrammarPlace> _reachedFew = [];
    private readonly HashSet<GrammarPlace> _reachedMany = [];
    private readonly List<FrameEntry>?[] _callers;  // [rule]
    private readonly PriorityQueue<int, int> _called = new();
    private bool _canEnd;
    private long _step;

    /// <summary>Creates the states of a grammar.</summary>
    /// <param name="grammar">The grammar.</param>
    /// <param name="reach">[<see cref="TokenTrie"/> part]: bytes of its longest token. States that allow the same texts of that length share a mask.</param>
    public GrammarStates(CompiledGrammar grammar, params int[] reach)
    {
        (_grammar, _reach) = (grammar, reach);
        _closures = new GrammarClosures(grammar, Work);
        _callers = new List<FrameEntry>?[grammar.Starts.Length];
        _root = FrameOf([new FrameEntry(FrameEntry.Root, 0, 0, null)]);
    }

    /// <summary>Capacity of the tables before they are emptied.</summary>
    public long MaxSize { get; init; } = DefaultMaxSize;

    /// <summary>Work since the last reset.</summary>
    public GrammarWork Work { get; } = new();

    /// <summary>The state before the text.</summary>
    public GrammarState Start => field is { } start && start.Generation == _generation ? start : field = FindStart();

    /// <summary>The start state of the last step, for messages.</summary>
    public GrammarState? Last { get; private set; }

    /// <summary>Places found so far by the current step, for messages.</summary>
    public IReadOnlyList<GrammarPlace> Pending => _places;

    /// <summary>The state after a byte; null if the grammar does not allow it.</summary>
    public GrammarState? Next(GrammarState state, byte value)
    {
        int byteClass = _grammar.ByteClasses[value];
        GrammarState known = state.After?[byteClass] ?? Step(state, byteClass);
        return ReferenceEquals(known, GrammarState.Dead) ? null : known;
    }

    private GrammarState FindStart()
    {
        Begin();
        Call(_grammar.Root, new FrameEntry(FrameEntry.Root, 0, 0, null));
        FollowCalls();
        return StateOf(_places, _grammar.Nullable[_grammar.Root]);
    }

    private GrammarState Step(GrammarState state, int byteClass)
    {
        Last = state;
        ReadOnlySpan<GrammarState.Group> groups = state.Groups ?? Group(state);
        byte value = _grammar.ClassBytes[byteClass];
        ulong taken = 0;
        bool any = false;
        for (int i = 0; i < groups.Length; i++)
        {
            if (_grammar.Sets[groups[i].Set].Contains(value))
            {
                taken |= 1ul << (i & 63);
                any = true;
            }
        }

        Work.Add(groups.Length / 8 + 1);
        GrammarState next = !any ? GrammarState.Dead
            : (groups.Length <= 64 ? Known(state, taken) : null) ?? Follow(state, groups, value, groups.Length <= 64 ? taken : 0);
        if (state.After is null && ++state.Steps > StepsBeforeTable)
        {
            state.After = new GrammarState?[_grammar.ClassBytes.Length];
            _size += state.After.Length;
        }

        if (state.After is { } after)
        {
            after[byteClass] = next;
        }

        return next;
    }

    private static GrammarState? Known(GrammarState state, ulong taken)
    {
        foreach ((ulong groups, GrammarState after) in CollectionsMarshal.AsSpan(state.AfterGroups))
        {
            if (groups == taken)
            {
                return after;
            }
        }

        return null;
    }

    private GrammarState Follow(GrammarState state, ReadOnlySpan<GrammarState.Group> groups, byte value, ulong taken)
    {
        Begin();
        GrammarPlace reached = default;
        int count = 0;
        foreach (GrammarState.Group group in groups)
        {
            if (_grammar.Sets[group.Set].Contains(value))
            {
                count += group.Count;
                foreach (int i in state.Order.AsSpan(group.First, group.Count))
                {
                    reached = state.Places[i] with { Node = _grammar.Nodes[state.Places[i].Node].Target };
                    Reach(reached.Node, reached.Frame);
                }
            }
        }

        // If a single place continues, the next state does not depend on the state that contained it.
        if (count > 1 || !_reached.TryGetValue(reached, out GrammarState? next))
        {
            FollowOpen();
            FollowCalls();
            next = _places.Count == 0 && !_canEnd ? GrammarState.Dead : StateOf(_places, _canEnd);
            if (count == 1)
            {
                _reached.Add(reached, next);
                _size += 2;
            }
        }

        if (taken != 0)
        {
            (state.AfterGroups ??= []).Add((taken, next));
            _size++;
        }

        return next;
    }

    private GrammarState.Group[] Group(GrammarState state)
    {
        Work.Add(state.Places.Length);
        _size += state.Places.Length / 2;
        var sets = new int[state.Places.Length];
        var order = new int[sets.Length];
        for (int i = 0; i < sets.Length; i++)
        {
            (sets[i], order[i]) = (_grammar.Nodes[state.Places[i].Node].Index, i);
        }

        Array.Sort(sets, order);
        var groups = new List<GrammarState.Group>();
        for (int i = 0; i < sets.Length; i++)
        {
            if (i == 0 || sets[i] != sets[i - 1])
            {
                groups.Add(new GrammarState.Group(sets[i], i, 0));
            }

            groups[^1] = groups[^1] with { Count = groups[^1].Count + 1 };
        }

        state.Order = order;
        return state.Groups = [.. groups];
    }
}
