using System.Text;

namespace LlamaKivi.Templates;

/// <summary>Runs a template's tree. What it may do is bounded: steps, characters written, depth of calls.</summary>
internal sealed class JinjaInterpreter
{
    private const int MaxDepth = 100;

    private static readonly Dictionary<string, object?> NoNames = [];

    private readonly JinjaBudget _budget;
    private readonly JinjaValues _values;
    private readonly JinjaFilters _filters;
    private readonly JinjaTests _tests;
    private readonly JinjaMethods _methods;
    private Dictionary<string, object?> _scope;
    private readonly Stack<Dictionary<string, object?>> _outer = new();
    private JinjaTextBuilder _out = new();
    private int _depth;

    public JinjaInterpreter(IEnumerable<KeyValuePair<string, object?>> variables, TimeProvider time, CancellationToken cancellationToken)
    {
        _budget = new JinjaBudget(cancellationToken);
        _values = new JinjaValues(_budget);
        _filters = new JinjaFilters(_values);
        _tests = new JinjaTests(_values);
        _methods = new JinjaMethods(_values);
        _scope = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["range"] = (Callable)Range,
            ["namespace"] = (Callable)((positional, named) => Dict(positional, named, isNamespace: true)),
            ["dict"] = (Callable)((positional, named) => Dict(positional, named, isNamespace: false)),
            ["raise_exception"] = (Callable)((positional, _) => throw new TemplateException(_values.Text(positional.FirstOrDefault())) { IsRaised = true }),
            ["strftime_now"] = (Callable)((positional, _) => StrfTime.Format(_values.Text(positional.FirstOrDefault()), time.GetLocalNow())),
        };
        foreach ((string name, object? value) in variables)
        {
            _scope[name] = JinjaValues.From(value);
        }
    }

    private enum Flow
    {
        Next,
        Break,
        Continue,
    }

    public string Run(Statement[] body)
    {
        Execute(body);
        return _out.ToString();
    }

    /// <summary>The line of the statement that runs, or failed.</summary>
    public int Line { get; private set; } = 1;

    private JinjaDict Dict(object?[] positional, IReadOnlyDictionary<string, object?> named, bool isNamespace)
    {
        var given = positional.FirstOrDefault() as JinjaDict;
        _budget.Step((given?.Count ?? 0) + named.Count);
        return new JinjaDict(given?.Items.Concat(named) ?? named) { IsNamespace = isNamespace };
    }

    private Flow Execute(Statement[] body)
    {
        foreach (Statement statement in body)
        {
            _budget.Step();
            _budget.Enter();
            int line = Line;
            Line = statement.Line;
            Flow flow = Execute(statement);
            Line = line;
            _budget.Leave();
            if (flow != Flow.Next)
            {
                return flow;
            }
        }

        return Flow.Next;
    }

    private Flow Execute(Statement statement)
    {
        switch (statement)
        {
            case TextStatement text:
                _out.Append(text.Text);
                return Flow.Next;
            case OutputStatement output:
                _out.Append(_values.Text(Evaluate(output.Value)));
                return Flow.Next;
            case IfStatement choice:
                foreach ((Expression condition, Statement[] body) in choice.Branches)
                {
                    if (JinjaValues.IsTrue(Evaluate(condition)))
                    {
                        return Execute(body);
                    }
                }

                return Execute(choice.Else);
            case ForStatement loop:
                return For(loop);
            case SetStatement set:
                Set(set);
                return Flow.Next;
            case MacroStatement macro:
                _scope[macro.Name] = Macro(macro.Parameters, macro.Body);
                return Flow.Next;
            case CallStatement call:
                _out.Append(_values.Text(InScope(() =>
                {
                    _scope["caller"] = Macro([], call.Body);
                    return Evaluate(call.Target);
                })));
                return Flow.Next;
            case FilterStatement filter:
                string captured = Capture(filter.Body);
                _out.Append(_values.Text(Filtered(filter.Name, captured, filter.Arguments)));
                return Flow.Next;
            case BlockStatement block:
                return Execute(block.Body);
            case LoopControl control:
                return control.Ends ? Flow.Break : Flow.Continue;
            default:
                throw new InvalidOperationException($"statement {statement.GetType().Name}");
        }
    }

    private Flow For(ForStatement loop)
    {
        var items = new List<object?>();
        foreach (object? item in _values.Iterate(Evaluate(loop.Sequence)))
        {
            if (loop.Condition is null || InScope(() =>
                {
                    Assign(loop.Names, item);
                    return JinjaValues.IsTrue(Evaluate(loop.Condition));
                }))
            {
                items.Add(item);
            }
        }

        if (items.Count == 0)
        {
            return Execute(loop.Else);
        }

        var state = new JinjaDict { ["length"] = (long)items.Count };
        for (int i = 0; i < items.Count; i++)
        {
            int index = i;
            state["index"] = (long)i + 1;
            state["index0"] = (long)i;
            state["revindex"] = (long)items.Count - i;
            state["revindex0"] = (long)items.Count - i - 1;
            state["first"] = i == 0;
            state["last"] = i == items.Count - 1;
            state["previtem"] = i > 0 ? items[i - 1] : Undefined.Value;
            state["nextitem"] = i + 1 < items.Count ? items[i + 1] : Undefined.Value;
            state["cycle"] = (Callable)((positional, _) => positional.Length > 0 ? positional[index % positional.Length] : Undefined.Value);
            Flow flow = InScope(() =>
            {
                _scope["loop"] = state;
                Assign(loop.Names, items[index]);
                return Execute(loop.Body);
            });
            if (flow == Flow.Break)
            {
                break;
            }
        }

        return Flow.Next;
    }

    // Names that are set inside are forgotten after.
    private T InScope<T>(Func<T> body)
    {
        if (++_depth > MaxDepth)
        {
            throw new TemplateException($"The template nests more than {MaxDepth} deep; it was stopped.");
        }

        _outer.Push(_scope);
        _scope = new Dictionary<string, object?>(StringComparer.Ordinal);
        T result = body();
        _scope = _outer.Pop();
        _depth--;
        return result;
    }

    private string Capture(Statement[] body)
    {
        JinjaTextBuilder before = _out;
        _out = new JinjaTextBuilder();
        Execute(body);
        string captured = _budget.Made(_out.ToString());
        _out = before;
        return captured;
    }

    private void Assign(string[] names, object? value)
    {
        if (names.Length == 1)
        {
            _scope[names[0]] = value;
            return;
        }

        object?[] parts = [.. _values.Iterate(value)];
        if (parts.Length != names.Length)
        {
            throw new TemplateException($"{parts.Length} values do not go into the {names.Length} names {string.Join(", ", names)}.");
        }

        for (int i = 0; i < names.Length; i++)
        {
            _scope[names[i]] = parts[i];
        }
    }

    private void Set(SetStatement set)
    {
        object? value = set.Value is null ? Capture(set.Body) : Evaluate(set.Value);
        if (set.Attribute is null)
        {
            Assign(set.Names, value);
            return;
        }

        if (Lookup(set.Names[0]) is not JinjaDict { IsNamespace: true } target)
        {
            throw new TemplateException($"{set.Names[0]} is no namespace: {set.Names[0]}.{set.Attribute} cannot be set.");
        }

        target[set.Attribute] = value;
    }

    private Callable Macro((string Name, Expression? Default)[] parameters, Statement[] body) => (positional, named) => InScope(() =>
    {
        for (int i = 0; i < parameters.Length; i++)
        {
            (string name, Expression? fallback) = parameters[i];
            _scope[name] = i < positional.Length ? positional[i]
                : named.TryGetValue(name, out object? value) ? value
                : fallback is not null ? Evaluate(fallback) : Undefined.Value;
        }

        return (object?)Capture(body);
    });

    private object? Lookup(string name)
    {
        if (_scope.TryGetValue(name, out object? value))
        {
            return value;
        }

        foreach (Dictionary<string, object?> scope in _outer)
        {
            if (scope.TryGetValue(name, out value))
            {
                return value;
            }
        }

        return Undefined.Value;
    }

    private object? Evaluate(Expression expression)
    {
        _budget.Step();
        _budget.Enter();
        object? value = ValueOf(expression);
        _budget.Leave();
        return value;
    }

    private object? ValueOf(Expression expression)
    {
        switch (expression)
        {
            case Literal literal:
                return literal.Value;
            case Variable variable:
                return Lookup(variable.Name);
            case ListLiteral list:
                return new JinjaList(list.Items.Select(Evaluate));
            case DictLiteral dict:
                return new JinjaDict(dict.Items.Select(item => KeyValuePair.Create(_values.Text(Evaluate(item.Key)), Evaluate(item.Value))));
            case Member member:
                return GetMember(Evaluate(member.Target), Evaluate(member.Key), member.IsAttribute);
            case Slice slice:
                return GetSlice(slice);
            case Call call:
                return CallOf(call);
            case Filter filter:
                return Filtered(filter.Name, Evaluate(filter.Target), filter.Arguments);
            case Test test:
                return _tests.Apply(test.Name, Evaluate(test.Target), [.. test.Arguments.Positional.Select(Evaluate)]) != test.Negated;
            case Unary unary:
                return Apply(unary.Operator, Evaluate(unary.Operand));
            case Binary binary:
                return Apply(binary);
            case Conditional conditional:
                return JinjaValues.IsTrue(Evaluate(conditional.Condition)) ? Evaluate(conditional.Then)
                    : conditional.Else is null ? Undefined.Value : Evaluate(conditional.Else);
            default:
                throw new InvalidOperationException($"expression {expression.GetType().Name}");
        }
    }

    private object? Filtered(string name, object? value, Arguments arguments)
    {
        (object?[] positional, Dictionary<string, object?> named) = Evaluate(arguments);
        return Made(_filters.Apply(name, value, positional, named));
    }

    private (object?[] Positional, Dictionary<string, object?> Named) Evaluate(Arguments arguments) =>
        ([.. arguments.Positional.Select(Evaluate)],
            arguments.Named.Length == 0 ? NoNames : arguments.Named.ToDictionary(item => item.Name, item => Evaluate(item.Value)));

    private object? CallOf(Call call)
    {
        (object?[] positional, Dictionary<string, object?> named) = Evaluate(call.Arguments);
        if (call.Target is Member { IsAttribute: true } member)
        {
            object? target = Evaluate(member.Target);
            string name = (string)((Literal)member.Key).Value!;
            if (target is JinjaDict dict && dict.TryGetValue(name, out object? stored) && stored is Callable function)
            {
                return Made(function(positional, named));
            }

            return Made(_methods.Call(target, name, positional, named));
        }

        if (Evaluate(call.Target) is Callable callable)
        {
            return Made(callable(positional, named));
        }

        throw new TemplateException($"{(call.Target is Variable v ? v.Name : "The value")} is no function.");
    }

    private object? Made(object? value) => value is string text ? _budget.Made(text) : value;

    private object? GetMember(object? target, object? key, bool isAttribute)
    {
        switch (target)
        {
            case JinjaDict dict when key is string name:
                _budget.Read(name);
                return dict.TryGetValue(name, out object? value) ? value : Undefined.Value;
            case JinjaList list when key is long or bool:
                long at = JinjaValues.Integer(key);
                at += at < 0 ? list.Items.Count : 0;
                return at >= 0 && at < list.Items.Count ? list.Items[(int)at] : Undefined.Value;
            case string text when key is long index:
                _budget.Read(text);
                Rune[] runes = [.. text.EnumerateRunes()];
                index += index < 0 ? runes.Length : 0;
                return index >= 0 && index < runes.Length ? runes[index].ToString() : Undefined.Value;
            case null or Undefined:
                throw new TemplateException($"{_values.Text(key)} of {(target is null ? "none" : "something undefined")} was asked for.");
            default:
                return isAttribute || key is string ? Undefined.Value : throw new TemplateException($"A {JinjaValues.TypeName(target)} has no parts.");
        }
    }

    private object? GetSlice(Slice slice)
    {
        object? target = Evaluate(slice.Target);
        _budget.Read(target);
        string? text = target as string;
        Rune[] runes = text is null ? [] : [.. text.EnumerateRunes()];
        object?[] items = text is null ? [.. _values.Iterate(target)] : [];
        int count = runes.Length + items.Length;
        long step = slice.Step is null || Evaluate(slice.Step) is not { } given ? 1 : JinjaValues.Integer(given);
        if (step == 0)
        {
            throw new TemplateException("The step of a slice is 0.");
        }

        step = Math.Clamp(step, -count - 1, count + 1);
        long Bound(Expression? expression, long fallback)
        {
            if (expression is null || Evaluate(expression) is not { } value)
            {
                return fallback;
            }

            long at = JinjaValues.Integer(value);
            at += at < 0 ? count : 0;
            return step > 0 ? Math.Clamp(at, 0, count) : Math.Clamp(at, -1, count - 1);
        }

        long start = Bound(slice.Start, step > 0 ? 0 : count - 1);
        long stop = Bound(slice.Stop, step > 0 ? count : -1);
        var cut = new StringBuilder();
        var part = new List<object?>();
        for (long i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            if (text is null)
            {
                _budget.Step();
                part.Add(items[i]);
            }
            else
            {
                cut.Append(runes[i]);
            }
        }

        return text is null ? new JinjaList(part) : _budget.Made(cut.ToString());
    }

    private static object? Apply(string op, object? value) => op switch
    {
        "not" => !JinjaValues.IsTrue(value),
        "-" => value is double x ? -x : Arithmetic("-", 0L, value),
        _ => value is double ? value : JinjaValues.Integer(value),
    };

    private object? Apply(Binary binary)
    {
        object? a = Evaluate(binary.Left);
        if (binary.Operator is "and" or "or")
        {
            return JinjaValues.IsTrue(a) == (binary.Operator == "and") ? Evaluate(binary.Right) : a;
        }

        object? b = Evaluate(binary.Right);
        switch (binary.Operator)
        {
            case "==":
                return _values.AreEqual(a, b);
            case "!=":
                return !_values.AreEqual(a, b);
            case "<":
                return _values.Compare(a, b) < 0;
            case ">":
                return _values.Compare(a, b) > 0;
            case "<=":
                return _values.Compare(a, b) <= 0;
            case ">=":
                return _values.Compare(a, b) >= 0;
            case "in":
                return _tests.IsIn(a, b);
            case "not in":
                return !_tests.IsIn(a, b);
            case "~":
                return Added(_values.Text(a), _values.Text(b));
            case "+" when a is string x && b is string y:
                return Added(x, y);
            case "+" when a is JinjaList x && b is JinjaList y:
                _budget.Step((long)x.Items.Count + y.Items.Count);
                return new JinjaList(x.Items.Concat(y.Items));
            case "+" when a is string or JinjaList || b is string or JinjaList:
                throw new TemplateException($"A {JinjaValues.TypeName(a)} and a {JinjaValues.TypeName(b)} cannot be added.");
            case "*" when a is string text:
                long times = Math.Clamp(JinjaValues.Integer(b), 0, JinjaBudget.MaxCharacters + 1L);
                JinjaBudget.Room(text.Length * times);
                return _budget.Made(string.Concat(Enumerable.Repeat(text, (int)(text.Length == 0 ? 0 : times))));
            case "%" when a is string format:
                throw new TemplateException($"'{format}': texts with % are not supported; use ~ or the filter format.");
            default:
                return Arithmetic(binary.Operator, a, b);
        }
    }

    private string Added(string a, string b)
    {
        JinjaBudget.Room((long)a.Length + b.Length);
        return _budget.Made(a + b);
    }

    private static object Arithmetic(string op, object? a, object? b)
    {
        if (a is double || b is double || op == "/" || (op == "**" && JinjaValues.Number(b) < 0))
        {
            double x = JinjaValues.Number(a);
            double y = JinjaValues.Number(b);
            if (y == 0 && op is "/" or "//" or "%")
            {
                throw new TemplateException("A number is divided by 0.");
            }

            return op switch
            {
                "+" => x + y,
                "-" => x - y,
                "*" => x * y,
                "/" => x / y,
                "//" => Math.Floor(x / y),
                "%" => x - y * Math.Floor(x / y),
                _ => Math.Pow(x, y),
            };
        }

        long m = JinjaValues.Integer(a);
        long n = JinjaValues.Integer(b);
        if (n == 0 && op is "//" or "%")
        {
            throw new TemplateException("A number is divided by 0.");
        }

        try
        {
            checked
            {
                return op switch
                {
                    "+" => m + n,
                    "-" => m - n,
                    "*" => m * n,
                    "//" => m / n - (m % n != 0 && m < 0 != n < 0 ? 1 : 0),
                    "%" => n == -1 ? 0 : m % n + (m % n != 0 && m < 0 != n < 0 ? n : 0),
                    _ => Power(m, n),
                };
            }
        }
        catch (OverflowException)
        {
            throw new TemplateException($"{m} {op} {n} is too large.");
        }
    }

    // By squares; a factor that is not used in the end may not be too large.
    private static long Power(long number, long exponent)
    {
        long power = 1;
        for (; exponent > 0 && number is not 1; exponent >>= 1)
        {
            power = checked((exponent & 1) != 0 ? power * number : power);
            number = exponent > 1 ? checked(number * number) : number;
        }

        return power;
    }

    private object? Range(object?[] positional, IReadOnlyDictionary<string, object?> named)
    {
        if (positional.Length is 0 or > 3)
        {
            throw new TemplateException("range takes one to three numbers.");
        }

        long[] n = [.. positional.Select(JinjaValues.Integer)];
        (long start, long stop, long step) = (n.Length > 1 ? n[0] : 0, n.Length > 1 ? n[1] : n[0], n.Length > 2 ? n[2] : 1);
        if (step == 0)
        {
            throw new TemplateException("The step of a range is 0.");
        }

        var items = new List<object?>();
        for (Int128 i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            _budget.Step();
            items.Add((long)i);
        }

        return new JinjaList(items);
    }
}
