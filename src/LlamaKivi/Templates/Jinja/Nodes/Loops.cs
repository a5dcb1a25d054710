namespace LlamaKivi.Templates.Jinja;

internal sealed class ForStatement(Target target, Expression sequence, Expression? condition, bool isRecursive, Statement[] body, Statement[] otherwise) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        object? items = sequence.Evaluate(rendering);
        if (!isRecursive)
        {
            return Run(rendering, items, rendering.Scope, null, 0);
        }

        Scope outer = rendering.Scope;
        rendering.Write(Recurse(rendering, items, outer, 0));
        return Flow.Next;
    }

    private object Recurse(Rendering rendering, object? items, Scope outer, int depth)
    {
        rendering.Budget.EnterCall();
        var turns = new InnerLoop(this, items, outer, depth);
        string text = rendering.Capture([turns], outer, out _);
        rendering.Budget.LeaveCall();
        return rendering.Captured(text);
    }

    private Flow Run(Rendering rendering, object? items, Scope outer, Func<Rendering, object?, object>? recurse, int depth)
    {
        IEnumerable<object?> turns = Iteration.Of(rendering.Budget, items);
        turns = condition is null ? turns : turns.Where(item => Passes(rendering, outer, item));
        var loop = new LoopContext(condition is null ? items : null, turns, recurse, depth);
        bool finished = false;  // whether an iteration ran to its end: as in jinja2, else runs if break or continue ended every one
        while (loop.MoveNext(out object? item))
        {
            var scope = new Scope(outer);
            target.Assign(rendering, scope, item);
            scope.Set("loop", loop);
            rendering.Scope = scope;
            Flow flow = rendering.Execute(body);
            rendering.Scope = outer;
            if (flow == Flow.Break)
            {
                break;
            }

            finished |= flow == Flow.Next;
        }

        if (finished || otherwise.Length == 0)
        {
            return Flow.Next;
        }

        rendering.Scope = new Scope(outer);
        Flow after = rendering.Execute(otherwise);
        rendering.Scope = outer;
        return after;
    }

    private bool Passes(Rendering rendering, Scope outer, object? item)
    {
        Scope current = rendering.Scope;
        rendering.Scope = new Scope(outer);
        target.Assign(rendering, rendering.Scope, item);
        bool passes = Types.IsTrue(condition!.Evaluate(rendering));
        rendering.Scope = current;
        return passes;
    }

    // Runs a recursive loop and captures its output.
    private sealed class InnerLoop(ForStatement statement, object? items, Scope outer, int depth) : Statement
    {
        public override Flow Execute(Rendering rendering) =>
            statement.Run(rendering, items, outer, (inner, more) => statement.Recurse(inner, more, outer, depth + 1), depth);
    }
}

/// <summary>The variable <c>loop</c>.</summary>
/// <remarks>Items are fetched lazily, because the loop's condition may depend on its iterations.</remarks>
internal sealed class LoopContext(object? iterable, IEnumerable<object?> items, Func<Rendering, object?, object>? recurse, int depth)
{
    private static readonly Undefined NoPrevious = new("There is no previous item.");
    private static readonly Undefined NoNext = new("There is no next item.");

    private static readonly Operation Cycle = new("cycle", (_, self, arguments) =>
        arguments.Positional.Length > 0 ? arguments.Positional[((LoopContext)self!)._index % arguments.Positional.Length] : throw new TemplateException("loop.cycle() needs at least one argument."));

    private static readonly Operation Changed = new("changed", (rendering, self, arguments) => ((LoopContext)self!).HasChanged(rendering.Budget, arguments.Positional));

    private IEnumerator<object?> _items = items.GetEnumerator();
    private int _index = -1;
    private long? _length;
    private bool _hasNext;  // whether _next is fetched
    private object? _next;
    private object? _current;
    private object? _previous;
    private PyTuple? _lastValues;

    public long Index => _index + 1;

    public long Length => _length ??= Count();

    public bool MoveNext(out object? item)
    {
        bool any = PeekNext();
        item = _next;
        if (any)
        {
            (_hasNext, _next) = (false, null);
            _previous = _current;
            _current = item;
            _index++;
        }

        return any;
    }

    public IEnumerable<object?> Rest()
    {
        while (MoveNext(out object? item))
        {
            yield return new PyTuple([item, this]);
        }
    }

    public object Recurse(Rendering rendering, object? more) =>
        recurse is null ? throw new TemplateException("loop() can be called only in a loop marked 'recursive'.") : recurse(rendering, more);

    public bool TryGetAttribute(string name, out object? value)
    {
        value = name switch
        {
            "index" => Index,
            "index0" => (long)_index,
            "first" => _index == 0,
            "last" => !PeekNext(),
            "length" => Length,
            "revindex" => Length - _index,
            "revindex0" => Length - Index,
            "depth" => (long)depth + 1,
            "depth0" => (long)depth,
            "previtem" => _index == 0 ? NoPrevious : _previous,
            "nextitem" => PeekNext() ? _next : NoNext,
            "cycle" => new BoundMethod(this, Cycle),
            "changed" => new BoundMethod(this, Changed),
            _ => this,
        };
        return !ReferenceEquals(value, this);
    }

    private bool PeekNext()
    {
        if (!_hasNext && _items.MoveNext())
        {
            (_hasNext, _next) = (true, _items.Current);
        }

        return _hasNext;
    }

    private long Count()
    {
        if (Iteration.Length(iterable) is long length && iterable is not null)
        {
            return length;
        }

        List<object?> rest = [];
        while (_items.MoveNext())
        {
            rest.Add(_items.Current);
        }

        _items = rest.GetEnumerator();
        return rest.Count + Index + (_hasNext ? 1 : 0);
    }

    private bool HasChanged(Budget budget, object?[] values)
    {
        if (_lastValues is not null && Equality.AreEqual(budget, _lastValues, new PyTuple(values)))
        {
            return false;
        }

        _lastValues = new PyTuple(values);
        return true;
    }
}
