namespace LlamaKivi.Sampling.Grammars;

// Computes a step: the places after a byte, the calls that begin there, and the callers of rules that end.
internal sealed partial class GrammarStates
{
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
            _callers[rule]!.Clear();  // left over from an aborted step
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

    // Most steps reach one or two places.
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

    // Follows everything reachable without a call: nodes that consume a byte, and the continuation of callers of rules that end.
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
                // The rule ends after this call: its callers are used directly, so that tail recursion does not grow.
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

    // Rules with greater ranks first, so that all callers of a rule are known when it is followed. Empty matches were handled at the call.
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
}
