using System.Runtime.InteropServices;

namespace LlamaKivi.Sampling.Grammars;

// The tables intern frames and states: equal ones are the same object, until the tables are full and emptied.
internal sealed partial class GrammarStates
{
    /// <summary>
    /// Empties the tables if they are full, and returns the state or its replacement. Any other state stays valid
    /// and can be passed later.
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
    /// A representative state that allows the same tokens of a part of the vocabulary: counts far from the bounds of their loops
    /// are equivalent.
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

    /// <summary>Adds data kept beside the tables, such as masks, to the size at which they are emptied.</summary>
    public void AddSize(long size) => _size += size;

    // Sorts the entries and removes duplicates.
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
            // Parents first, without recursion, because texts may nest deep.
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

    // Recreates the state in tables that were emptied.
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

    // A frame and its wanted ancestors, parents before children.
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

    // Sorts the places and removes duplicates.
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
