using System.Runtime.InteropServices;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>
/// The states that a text can be in under a grammar, found as they are needed. A rule that is called from several places at one byte of the text is followed
/// once, with all its callers in one frame (generalized LR parsing with a graph-structured stack, Tomita 1986), so that ambiguity adds callers and not copies.
/// One thread at a time may use it.
/// </summary>
internal sealed class GrammarStates
{
    /// <summary>Places, callers and classes of bytes that the tables hold before they are emptied: some 50 MB.</summary>
    public const long DefaultMaxSize = 2_000_000;

    // A state that is left more often than this has a table of its next states; most are left once or twice.
    private const int StepsBeforeTable = 12;

    // What a new state or frame costs, in places that are looked at.
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

    // Of the step that is computed.
    private readonly List<GrammarPlace> _places = [];
    private readonly Stack<GrammarPlace> _open = [];  // any node, not only one that takes a byte
    private readonly List<GrammarPlace> _reachedFew = [];
    private readonly HashSet<GrammarPlace> _reachedMany = [];
    private readonly List<FrameEntry>?[] _callers;  // [rule]
    private readonly PriorityQueue<int, int> _called = new();
    private bool _canEnd;
    private long _step;

    /// <summary>Makes the states of a grammar.</summary>
    /// <param name="grammar">The grammar.</param>
    /// <param name="reach">[<see cref="TokenTrie"/> part]: bytes of its longest token. States that allow the same texts of that length share their mask.</param>
    public GrammarStates(CompiledGrammar grammar, params int[] reach)
    {
        (_grammar, _reach) = (grammar, reach);
        _closures = new GrammarClosures(grammar, Work);
        _callers = new List<FrameEntry>?[grammar.Starts.Length];
        _root = FrameOf([new FrameEntry(FrameEntry.Root, 0, 0, null)]);
    }

    /// <summary>What the tables hold before they are emptied.</summary>
    public long MaxSize { get; init; } = DefaultMaxSize;

    /// <summary>What the work since its last beginning came to.</summary>
    public GrammarWork Work { get; } = new();

    /// <summary>The state before the text.</summary>
    public GrammarState Start => field is { } start && start.Generation == _generation ? start : field = FindStart();

    /// <summary>The state that was stepped from last, for messages.</summary>
    public GrammarState? Last { get; private set; }

    /// <summary>Places that the step under way has found so far, for messages.</summary>
    public IReadOnlyList<GrammarPlace> Pending => _places;

    /// <summary>The state after a byte; null if the grammar does not allow it.</summary>
    public GrammarState? Next(GrammarState state, byte value)
    {
        int byteClass = _grammar.ByteClasses[value];
        GrammarState known = state.After?[byteClass] ?? Step(state, byteClass);
        return ReferenceEquals(known, GrammarState.Dead) ? null : known;
    }

    /// <summary>
    /// The state itself, with the tables emptied if they are full; from then on the state returned stands for the one given. Any other state keeps its
    /// meaning and can be given as well.
    /// </summary>
    public GrammarState Refresh(GrammarState state)
    {
        if (_size + _closures.Size > MaxSize)
        {
            _generation++;
            _size = 0;
            _closures.Clear();
            _frames.Clear();
            _states.Clear();
            _reached.Clear();
            Intern(_root);
        }

        return state.Generation == _generation ? state : Copy(state);
    }

    /// <summary>
    /// The state that allows the same tokens of a part of the vocabulary as a state and stands for all that do so because their counts are far from the bounds
    /// of their loops.
    /// </summary>
    public GrammarState Canonical(GrammarState state, int part)
    {
        if (state.Canonical?[part] is { } known)
        {
            return known;
        }

        bool same = true;
        _places.Clear();
        foreach (GrammarPlace place in state.Places)
        {
            GrammarFrame frame = Canonical(place.Frame, part);
            same &= ReferenceEquals(frame, place.Frame);
            _places.Add(place with { Frame = frame });
        }

        Work.Add(_places.Count);
        GrammarState canonical = same ? state : StateOf(_places, state.CanEnd);
        (canonical.Canonical ??= new GrammarState?[_reach.Length])[part] = canonical;
        (state.Canonical ??= new GrammarState?[_reach.Length])[part] = canonical;
        return canonical;
    }

    /// <summary>Counts what is kept beside the tables, such as masks, to the size that they are emptied at.</summary>
    public void AddSize(long size) => _size += size;

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

        // Where one place goes on, what it leads to does not depend on the state that it was in.
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

    private void Begin()
    {
        _step++;
        _places.Clear();
        _open.Clear();
        _reachedFew.Clear();
        if (_reachedMany.Count > 0)
        {
            _reachedMany.Clear();
        }

        _canEnd = false;
        while (_called.TryDequeue(out int rule, out _))
        {
            _callers[rule]!.Clear();  // left by a step that was ended
        }
    }

    private void Reach(int node, GrammarFrame frame)
    {
        var place = new GrammarPlace(node, frame);
        if (node == CompiledGrammar.EndNode || IsNew(place))
        {
            _open.Push(place);
        }
    }

    // Most steps reach a place or two.
    private bool IsNew(GrammarPlace place)
    {
        const int Few = 8;
        if (_reachedFew.Count == Few)
        {
            return !_reachedFew.Contains(place) && _reachedMany.Add(place);
        }

        if (_reachedFew.Contains(place))
        {
            return false;
        }

        _reachedFew.Add(place);
        return true;
    }

    // Everything that is reached without a call: what the nodes take, and what follows in the callers of rules that end.
    private void FollowOpen()
    {
        while (_open.TryPop(out GrammarPlace place))
        {
            if (place.Node == CompiledGrammar.EndNode)
            {
                Leave(place.Frame);
                continue;
            }

            GrammarClosures.Closure closure = _closures.Of(place.Node);
            Enter(closure, place.Frame);
            if (closure.Ends)
            {
                Leave(place.Frame);
            }
        }
    }

    private void Enter(GrammarClosures.Closure closure, GrammarFrame frame)
    {
        Work.Add(closure.Bytes.Length + closure.Calls.Length + 1);
        foreach (int node in closure.Bytes)
        {
            _places.Add(new GrammarPlace(node, frame));
        }

        foreach (int node in closure.Calls)
        {
            (NodeKind kind, int index, int target) = _grammar.Nodes[node];
            if (kind == NodeKind.Loop)
            {
                Call(_grammar.Loops[index].Body, new FrameEntry(node, 1, 1, frame));
            }
            else if (target == CompiledGrammar.EndNode)
            {
                // Nothing is left to do in the rule: the callers go on, so that recursion at the end does not grow.
                Work.Add(frame.Entries.Length);
                foreach (FrameEntry entry in frame.Entries)
                {
                    Call(index, entry);
                }
            }
            else
            {
                Call(index, new FrameEntry(node, 0, 0, frame));
            }
        }
    }

    private void Call(int rule, FrameEntry caller)
    {
        List<FrameEntry> callers = _callers[rule] ??= [];
        if (callers.Count == 0)
        {
            _called.Enqueue(rule, -_grammar.Ranks[rule]);
        }

        callers.Add(caller);
    }

    private void Leave(GrammarFrame frame)
    {
        if (frame.Step == _step)
        {
            return;
        }

        frame.Step = _step;
        Work.Add(frame.Entries.Length);
        foreach ((int node, int low, int high, GrammarFrame? parent) in frame.Entries)
        {
            if (node == FrameEntry.Root)
            {
                _canEnd = true;
                continue;
            }

            (NodeKind kind, int index, int target) = _grammar.Nodes[node];
            if (kind == NodeKind.Call)
            {
                Reach(target, parent!);
                continue;
            }

            Loop loop = _grammar.Loops[index];
            if (high >= loop.Least)
            {
                Reach(target, parent!);
            }

            if (low < loop.Most)
            {
                int highest = high == loop.Most ? high : high + 1;
                Call(loop.Body, new FrameEntry(node, low + 1, highest, parent));
            }
        }
    }

    // Rules with greater ranks first: all callers of a rule are known when it is followed. That a rule has the empty text was taken into account where it was called.
    private void FollowCalls()
    {
        while (_called.TryPeek(out int rule, out _))
        {
            List<FrameEntry> callers = _callers[rule]!;
            Work.Add(callers.Count);
            GrammarFrame frame = FrameOf(callers);
            callers.Clear();
            _called.Dequeue();
            Enter(_closures.Of(_grammar.Starts[rule]), frame);
        }
    }

    // Takes the entries' order and duplicates away.
    private GrammarFrame FrameOf(List<FrameEntry> entries)
    {
        FrameEntry.Normalize(entries, _grammar);
        return Intern(new GrammarFrame(_frameIds + 1, [.. entries]));
    }

    private GrammarFrame Intern(GrammarFrame frame)
    {
        if (_frames.TryGetValue(frame, out GrammarFrame? known))
        {
            return known;
        }

        Work.Add(CreationWork);
        _frames.Add(frame);
        _frameIds = Math.Max(_frameIds, frame.Id);
        _size += frame.Entries.Length + 4;
        return frame;
    }

    private GrammarFrame Canonical(GrammarFrame frame, int part)
    {
        if (frame.Canonical?[part] is null)
        {
            // Parents first, without recursion: texts nest deep.
            foreach (GrammarFrame each in Ancestors(frame, f => f.Canonical?[part] is null))
            {
                List<FrameEntry> entries = [.. each.Entries.Select(entry => entry.Parent is null ? entry
                    : (entry.Low > 0 ? entry.Within(_reach[part], _grammar.Loops[_grammar.Nodes[entry.Node].Index]) : entry) with { Parent = entry.Parent.Canonical![part] })];
                Work.Add(entries.Count);
                GrammarFrame canonical = FrameOf(entries);
                (canonical.Canonical ??= new GrammarFrame?[_reach.Length])[part] = canonical;
                (each.Canonical ??= new GrammarFrame?[_reach.Length])[part] = canonical;
            }
        }

        return frame.Canonical![part]!;
    }

    // The state again, in tables that were emptied since.
    private GrammarState Copy(GrammarState state)
    {
        var copies = new Dictionary<GrammarFrame, GrammarFrame>();
        var places = new List<GrammarPlace>();
        foreach (GrammarPlace place in state.Places)
        {
            foreach (GrammarFrame frame in Ancestors(place.Frame, f => !copies.ContainsKey(f)))
            {
                copies[frame] = FrameOf([.. frame.Entries.Select(entry => entry.Parent is null ? entry : entry with { Parent = copies[entry.Parent] })]);
            }

            places.Add(place with { Frame = copies[place.Frame] });
        }

        return StateOf(places, state.CanEnd);
    }

    // A frame and those that it leads to, as far as they are wanted, parents before children.
    private static List<GrammarFrame> Ancestors(GrammarFrame frame, Func<GrammarFrame, bool> wanted)
    {
        var found = new HashSet<GrammarFrame>(ReferenceEqualityComparer.Instance);
        var open = new Stack<GrammarFrame>();
        open.Push(frame);
        while (open.TryPop(out GrammarFrame? at))
        {
            if (!wanted(at) || !found.Add(at))
            {
                continue;
            }

            foreach (FrameEntry entry in at.Entries)
            {
                if (entry.Parent is not null)
                {
                    open.Push(entry.Parent);
                }
            }
        }

        return [.. found.OrderBy(each => each.Id)];
    }

    // Takes the places' order and duplicates away.
    private GrammarState StateOf(List<GrammarPlace> places, bool canEnd)
    {
        Span<GrammarPlace> span = CollectionsMarshal.AsSpan(places);
        if (span.Length > 1)
        {
            span.Sort(static (a, b) => a.Frame.Id != b.Frame.Id ? a.Frame.Id.CompareTo(b.Frame.Id) : a.Node.CompareTo(b.Node));
            int kept = 1;
            for (int i = 1; i < span.Length; i++)
            {
                if (span[i].Node != span[kept - 1].Node || !ReferenceEquals(span[i].Frame, span[kept - 1].Frame))
                {
                    span[kept++] = span[i];
                }
            }

            span = span[..kept];
        }

        var state = new GrammarState(span.ToArray(), canEnd, _generation);
        if (_states.TryGetValue(state, out GrammarState? known))
        {
            return known;
        }

        Work.Add(CreationWork);
        _states.Add(state);
        _size += span.Length + 16;
        return state;
    }
}
