using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates;

/// <summary>Runs a template's tree. What it may do is bounded: steps, characters written, depth of calls.</summary>
internal sealed class JinjaInterpreter
{
    private const int MaxSteps = 2_000_000;
    private const int MaxCharacters = 16 << 20;
    private const int MaxDepth = 100;

    private static readonly Dictionary<string, object?> NoNames = [];

    private readonly CancellationToken _cancellationToken;
    private readonly TimeProvider _time;
    private Dictionary<string, object?> _scope;
    private readonly Stack<Dictionary<string, object?>> _outer = new();
    private StringBuilder _out = new();
    private int _steps;
    private int _depth;

    public JinjaInterpreter(IEnumerable<KeyValuePair<string, object?>> variables, TimeProvider time, CancellationToken cancellationToken)
    {
        _time = time;
        _cancellationToken = cancellationToken;
        _scope = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["range"] = (Callable)Range,
            ["namespace"] = (Callable)((positional, named) => new JinjaDict((positional.FirstOrDefault() as JinjaDict)?.Items.Concat(named) ?? named) { IsNamespace = true }),
            ["dict"] = (Callable)((positional, named) => new JinjaDict((positional.FirstOrDefault() as JinjaDict)?.Items.Concat(named) ?? named)),
            ["raise_exception"] = (Callable)((positional, _) => throw new TemplateException(JinjaValues.Text(positional.FirstOrDefault()))),
            ["strftime_now"] = (Callable)((positional, _) => StrfTime.Format(JinjaValues.Text(positional.FirstOrDefault()), _time.GetLocalNow())),
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

    private void Step(int count = 1)
    {
        _steps += count;
        if (_steps > MaxSteps)
        {
            throw new TemplateException($"The template takes more than {MaxSteps} steps; it was stopped.");
        }

        if (_steps % 1024 < count)
        {
            _cancellationToken.ThrowIfCancellationRequested();
        }
    }

    // A text that came to be; long ones count for more.
    private string Made(string text)
    {
        if (text.Length > MaxCharacters)
        {
            throw TooLong();
        }

        Step(text.Length / 64 + 1);
        return text;
    }

    private static TemplateException TooLong() => new($"The template makes a text of more than {MaxCharacters} characters; it was stopped.");

    private void Write(string text)
    {
        _out.Append(text);
        if (_out.Length > MaxCharacters)
        {
            throw new TemplateException($"The template writes more than {MaxCharacters} characters; it was stopped.");
        }
    }

    private Flow Execute(Statement[] body)
    {
        foreach (Statement statement in body)
        {
            Step();
            Flow flow = Execute(statement);
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
                Write(text.Text);
                return Flow.Next;
            case OutputStatement output:
                Write(JinjaValues.Text(Evaluate(output.Value)));
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
                Write(JinjaValues.Text(InScope(() =>
                {
                    _scope["caller"] = Macro([], call.Body);
                    return Evaluate(call.Target);
                })));
                return Flow.Next;
            case FilterStatement filter:
                string captured = Capture(filter.Body);
                Write(JinjaValues.Text(Filtered(filter.Name, captured, filter.Arguments)));
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
        foreach (object? item in JinjaValues.Iterate(Evaluate(loop.Sequence)))
        {
            Step();
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
        try
        {
            return body();
        }
        finally
        {
            _scope = _outer.Pop();
            _depth--;
        }
    }

    private string Capture(Statement[] body)
    {
        StringBuilder before = _out;
        _out = new StringBuilder();
        try
        {
            Execute(body);
            return Made(_out.ToString());
        }
        finally
        {
            _out = before;
        }
    }

    private void Assign(string[] names, object? value)
    {
        if (names.Length == 1)
        {
            _scope[names[0]] = value;
            return;
        }

        object?[] parts = [.. JinjaValues.Iterate(value)];
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
        Step();
        switch (expression)
        {
            case Literal literal:
                return literal.Value;
            case Variable variable:
                return Lookup(variable.Name);
            case ListLiteral list:
                return new JinjaList(list.Items.Select(Evaluate));
            case DictLiteral dict:
                return new JinjaDict(dict.Items.Select(item => KeyValuePair.Create(JinjaValues.Text(Evaluate(item.Key)), Evaluate(item.Value))));
            case Member member:
                return GetMember(Evaluate(member.Target), Evaluate(member.Key), member.IsAttribute);
            case Slice slice:
                return GetSlice(slice);
            case Call call:
                return CallOf(call);
            case Filter filter:
                return Filtered(filter.Name, Evaluate(filter.Target), filter.Arguments);
            case Test test:
                return JinjaTests.Apply(test.Name, Evaluate(test.Target), [.. test.Arguments.Positional.Select(Evaluate)]) != test.Negated;
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
        object? result = JinjaFilters.Apply(name, value, positional, named);
        return result is string text ? Made(text) : result;
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
                return function(positional, named);
            }

            object? result = JinjaMethods.Call(target, name, positional, named);
            return result is string text ? Made(text) : result;
        }

        if (Evaluate(call.Target) is Callable callable)
        {
            return callable(positional, named);
        }

        throw new TemplateException($"{(call.Target is Variable v ? v.Name : "The value")} is no function.");
    }

    private static object? GetMember(object? target, object? key, bool isAttribute)
    {
        switch (target)
        {
            case JinjaDict dict when key is string name:
                return dict.TryGetValue(name, out object? value) ? value : Undefined.Value;
            case JinjaList list when key is long or bool:
                long at = JinjaValues.Integer(key);
                at += at < 0 ? list.Items.Count : 0;
                return at >= 0 && at < list.Items.Count ? list.Items[(int)at] : Undefined.Value;
            case string text when key is long index:
                Rune[] runes = [.. text.EnumerateRunes()];
                index += index < 0 ? runes.Length : 0;
                return index >= 0 && index < runes.Length ? runes[index].ToString() : Undefined.Value;
            case null or Undefined:
                throw new TemplateException($"{JinjaValues.Text(key)} of {(target is null ? "none" : "something undefined")} was asked for.");
            default:
                return isAttribute || key is string ? Undefined.Value : throw new TemplateException($"A {JinjaValues.TypeName(target)} has no parts.");
        }
    }

    private object? GetSlice(Slice slice)
    {
        object? target = Evaluate(slice.Target);
        object?[] items = [.. JinjaValues.Iterate(target)];
        long step = slice.Step is null ? 1 : JinjaValues.Integer(Evaluate(slice.Step));
        if (step == 0)
        {
            throw new TemplateException("The step of a slice is 0.");
        }

        long Bound(Expression? expression, long fallback)
        {
            if (expression is null || Evaluate(expression) is not { } value)
            {
                return fallback;
            }

            long at = JinjaValues.Integer(value);
            at += at < 0 ? items.Length : 0;
            return step > 0 ? Math.Clamp(at, 0, items.Length) : Math.Clamp(at, -1, items.Length - 1);
        }

        long start = Bound(slice.Start, step > 0 ? 0 : items.Length - 1);
        long stop = Bound(slice.Stop, step > 0 ? items.Length : -1);
        var part = new List<object?>();
        for (long i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            Step();
            part.Add(items[i]);
        }

        return target is string ? string.Concat(part) : new JinjaList(part);
    }

    private static object? Apply(string op, object? value) => op switch
    {
        "not" => !JinjaValues.IsTrue(value),
        "-" => value is double x ? -x : (object)-JinjaValues.Integer(value),
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
                return JinjaValues.Equals(a, b);
            case "!=":
                return !JinjaValues.Equals(a, b);
            case "<":
                return JinjaValues.Compare(a, b) < 0;
            case ">":
                return JinjaValues.Compare(a, b) > 0;
            case "<=":
                return JinjaValues.Compare(a, b) <= 0;
            case ">=":
                return JinjaValues.Compare(a, b) >= 0;
            case "in":
                return JinjaTests.IsIn(a, b);
            case "not in":
                return !JinjaTests.IsIn(a, b);
            case "~":
                return Made(JinjaValues.Text(a) + JinjaValues.Text(b));
            case "+" when a is string x && b is string y:
                return Made(x + y);
            case "+" when a is JinjaList x && b is JinjaList y:
                Step(x.Items.Count + y.Items.Count);
                return new JinjaList(x.Items.Concat(y.Items));
            case "+" when a is string or JinjaList || b is string or JinjaList:
                throw new TemplateException($"A {JinjaValues.TypeName(a)} and a {JinjaValues.TypeName(b)} cannot be added.");
            case "*" when a is string text:
                long times = Math.Clamp(JinjaValues.Integer(b), 0, MaxCharacters + 1);
                return text.Length * times <= MaxCharacters ? Made(string.Concat(Enumerable.Repeat(text, (int)times))) : throw TooLong();
            case "%" when a is string format:
                throw new TemplateException($"'{format}': texts with % are not supported; use ~ or the filter format.");
            default:
                return Arithmetic(binary.Operator, a, b);
        }
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
                    "//" => (long)Math.Floor((decimal)m / n),
                    "%" => m - n * (long)Math.Floor((decimal)m / n),
                    _ => (long)Math.Pow(m, n),
                };
            }
        }
        catch (OverflowException)
        {
            throw new TemplateException($"{m} {op} {n} is too large.");
        }
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
        for (long i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            Step();
            items.Add(i);
        }

        return new JinjaList(items);
    }
}
