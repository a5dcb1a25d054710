namespace LlamaKivi.Sampling.Grammars;

/// <summary>Compiles rules to an automaton, in time linear in their size.</summary>
internal sealed class GrammarCompiler
{
    private readonly GrammarBuilder.Rule[] _rules;
    private readonly UInt256[] _sets;
    private readonly List<Node> _nodes = [];
    private readonly List<int> _owners = [];
    private readonly List<int> _splits = [];
    private readonly List<Loop> _loops = [];
    private readonly List<int> _starts = [];  // [rule]; loop bodies follow the named rules
    private readonly Queue<(Expression Body, int Rule, int Owner)> _bodies = [];
    private int _owner;

    public GrammarCompiler(GrammarBuilder.Rule[] rules, UInt256[] sets) => (_rules, _sets) = (rules, sets);

    public CompiledGrammar Compile(int root)
    {
        Add(NodeKind.End, 0, 0);
        _starts.AddRange(Enumerable.Repeat(-1, _rules.Length));
        for (int rule = 0; rule < _rules.Length; rule++)
        {
            _owner = rule;
            _starts[rule] = Compile(_rules[rule].Body!, CompiledGrammar.EndNode);
            while (_bodies.TryDequeue(out (Expression Body, int Rule, int Owner) body))
            {
                _starts[body.Rule] = Compile(body.Body, CompiledGrammar.EndNode);
            }
        }

        var analysis = new GrammarAnalysis([.. _nodes], [.. _splits], [.. _loops], [.. _starts]);
        (byte[] classes, byte[] classBytes) = Classes();
        var grammar = new CompiledGrammar
        {
            Nodes = [.. _nodes],
            SplitTargets = [.. _splits],
            Loops = analysis.Loops,
            Sets = _sets,
            Starts = [.. _starts],
            Nullable = analysis.Nullable,
            Ranks = analysis.Ranks,
            Root = root,
            ByteClasses = classes,
            ClassBytes = classBytes,
            Owners = [.. _owners],
            Rules = _rules,
        };
        if (analysis.LeftRecursive is { } node)
        {
            throw new GrammarException(
                $"The grammar's rule '{_rules[_owners[node]].Name}' can begin with itself (left recursion, line {_rules[_owners[node]].Line}); write the recursion at the end, or as a repetition.");
        }

        return grammar;
    }

    private int Add(NodeKind kind, int index, int target)
    {
        _nodes.Add(new Node(kind, index, target));
        _owners.Add(_owner);
        return _nodes.Count - 1;
    }

    private int Split(params ReadOnlySpan<int> targets)
    {
        int first = _splits.Count;
        _splits.AddRange(targets);
        return Add(NodeKind.Split, first, targets.Length);
    }

    // Compiles an expression in front of a node and returns its first node.
    private int Compile(Expression expression, int next)
    {
        switch (expression)
        {
            case Expression.Bytes bytes:
                return Add(NodeKind.Bytes, bytes.Set, next);
            case Expression.Reference reference:
                return Add(NodeKind.Call, reference.Rule, next);
            case Expression.Sequence sequence:
                return Compile(sequence.Items, next);
            case Expression.Choice choice:
                return CompileOptions([.. choice.Options.Select(option => (ReadOnlyMemory<Expression>)(option is Expression.Sequence s ? Flatten(s) : [option]))], next);
            case Expression.Repeat repeat:
                return CompileRepeat(repeat, next);
            default:
                throw new InvalidOperationException($"There is no expression {expression.GetType().Name}.");
        }
    }

    private int Compile(ReadOnlySpan<Expression> items, int next)
    {
        for (int i = items.Length - 1; i >= 0; i--)
        {
            next = Compile(items[i], next);
        }

        return next;
    }

    private static Expression[] Flatten(Expression.Sequence sequence) =>
        [.. sequence.Items.SelectMany(item => item is Expression.Sequence inner ? Flatten(inner) : [item])];

    // Options that begin with the same bytes share nodes: a list of thousands of literals becomes a trie, in which a text is at one place.
    private int CompileOptions(List<ReadOnlyMemory<Expression>> options, int next)
    {
        var targets = new List<int>();
        var byFirst = new Dictionary<Expression, List<ReadOnlyMemory<Expression>>>(ReferenceEqualityComparer.Instance);
        foreach (ReadOnlyMemory<Expression> option in options)
        {
            if (option.IsEmpty)
            {
                targets.Add(next);
            }
            else if (option.Span[0] is Expression.Bytes first)
            {
                if (!byFirst.TryGetValue(first, out List<ReadOnlyMemory<Expression>>? same))
                {
                    byFirst.Add(first, same = []);
                }

                same.Add(option);
            }
            else
            {
                targets.Add(Compile(option.Span, next));
            }
        }

        foreach (List<ReadOnlyMemory<Expression>> same in byFirst.Values)
        {
            ReadOnlyMemory<Expression> one = same[0];
            if (same.Count == 1)
            {
                targets.Add(Compile(one.Span, next));
                continue;
            }

            int common = one.Length;
            foreach (ReadOnlyMemory<Expression> other in same)
            {
                int shared = 1;
                while (shared < Math.Min(common, other.Length) && other.Span[shared] is Expression.Bytes && ReferenceEquals(other.Span[shared], one.Span[shared]))
                {
                    shared++;
                }

                common = shared;
            }

            int rest = CompileOptions([.. same.Select(option => option[common..])], next);
            targets.Add(Compile(one.Span[..common], rest));
        }

        int[] distinct = [.. targets.Distinct()];
        return distinct.Length == 1 ? distinct[0] : Split(distinct);
    }

    private int CompileRepeat(Expression.Repeat repeat, int next)
    {
        (Expression item, int least, int most) = (repeat.Item, repeat.Least, repeat.Most);
        if (repeat.IsCounted)
        {
            int body = item is Expression.Reference reference ? reference.Rule : _starts.Count;
            if (body == _starts.Count)
            {
                _starts.Add(-1);
                _bodies.Enqueue((item, body, _owner));
            }

            _loops.Add(new Loop(body, least, most));
            return Add(NodeKind.Loop, _loops.Count - 1, next);
        }

        int at;
        int copies;
        if (most == Expression.Repeat.Unbounded)
        {
            // The loop returns to a split, which also leads out.
            int loop = Split(0, next);
            int body = Compile(item, loop);
            _splits[_nodes[loop].Index] = body;
            (at, copies) = least == 0 ? (loop, 0) : (body, least - 1);
        }
        else
        {
            at = next;
            for (int i = least; i < most; i++)
            {
                at = Split(Compile(item, at), next);
            }

            copies = least;
        }

        for (; copies > 0; copies--)
        {
            at = Compile(item, at);
        }

        return at;
    }

    // A class contains the bytes that belong to the same sets.
    private (byte[] Classes, byte[] ClassBytes) Classes()
    {
        var classes = new int[256];
        int count = 1;
        foreach (UInt256 set in _sets)
        {
            var split = new Dictionary<(int Class, bool In), int>();
            var seen = new HashSet<int>();
            for (int value = 0; value < 256; value++)
            {
                (int Class, bool In) key = (classes[value], set.Contains((byte)value));
                if (!split.TryGetValue(key, out int part))
                {
                    part = seen.Add(key.Class) ? key.Class : count++;
                    split.Add(key, part);
                }

                classes[value] = part;
            }

            if (count == 256)
            {
                break;
            }
        }

        var bytes = new byte[count];
        for (int value = 255; value >= 0; value--)
        {
            bytes[classes[value]] = (byte)value;
        }

        return ([.. classes.Select(c => (byte)c)], bytes);
    }
}
